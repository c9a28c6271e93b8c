import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral.adaptors import Rule, additive, conv, low_rank, make_plan, precondition
from floral.errors import SpecError

EPSILON = 1e-2
STRUCT = jax.eval_shape(
    lambda: {
        "attention": jnp.ones((2, 3, 4)),
        "bias": jnp.ones(3),
        "conv": jnp.ones((3, 2, 4, 5)),
        "kernel": jnp.ones((5, 4)),
    }
)
PLAN = make_plan(
    [
        Rule("kernel", low_rank(rank=2)),
        Rule("attention", low_rank(rank=2, in_axes=(0, 1))),
        Rule("conv", conv(rank=3)),
        Rule("bias", additive()),
    ],
    STRUCT,
)


@pytest.fixture
def factors(random_bank):
    return random_bank(PLAN, seed=1).trained


@pytest.fixture
def gradients(random_bank):
    return random_bank(PLAN, seed=2).trained


@pytest.fixture
def scaled(factors, gradients):
    transform = precondition(PLAN, epsilon=EPSILON)
    return transform.update(gradients, transform.init(factors), factors)[0]


def test_matrices_are_divided_by_the_regularised_gram_matrix(factors, gradients, scaled):
    for path, rows in (("kernel", 5), ("attention", 6)):
        for c in range(3):
            a = np.asarray(factors[path]["a"][c], np.float64).reshape(2, rows).T
            b = np.asarray(factors[path]["b"][c], np.float64)
            a_gradient = np.asarray(gradients[path]["a"][c]).reshape(2, rows).T
            expected = {
                "a": a_gradient @ np.linalg.inv(b @ b.T + EPSILON * np.eye(2)),
                "b": np.linalg.inv(a.T @ a + EPSILON * np.eye(2)) @ gradients[path]["b"][c],
            }
            for name, value in expected.items():
                given = scaled[path][name][c]
                assert given.shape == gradients[path][name][c].shape
                value = value.T if name == "a" else value  # the rank comes first
                np.testing.assert_allclose(given.reshape(value.shape), value, rtol=1e-3, atol=1e-4)


def test_convolutions_are_divided_by_the_norm_of_the_gram_matrix(factors, gradients, scaled):
    for c in range(3):
        a = np.asarray(factors["conv"]["a"][c]).reshape(-1, 3)
        b = np.moveaxis(factors["conv"]["b"][c], -2, 0).reshape(3, -1)
        for name, gram in (("a", b @ b.T), ("b", a.T @ a)):
            expected = gradients["conv"][name][c] / (np.linalg.norm(gram) + EPSILON)
            np.testing.assert_allclose(scaled["conv"][name][c], expected, rtol=1e-4)


def test_offsets_are_untouched(gradients, scaled):
    assert scaled["bias"] is gradients["bias"]


def test_a_step_of_the_product_does_not_depend_on_how_its_scale_is_split(factors, gradients):
    """(s a, b / s) has gradients (G_a / s, s G_b); as ε → 0 the product's step is the same."""

    def step(pair, gradient):
        transform = precondition(PLAN, epsilon=1e-6)
        scaled, _ = transform.update({"kernel": gradient}, optax.EmptyState(), {"kernel": pair})
        a, b = scaled["kernel"]["a"], scaled["kernel"]["b"]
        return a.mT @ pair["b"] + pair["a"].mT @ b

    pair, gradient = factors["kernel"], gradients["kernel"]
    split = {"a": 3 * pair["a"], "b": pair["b"] / 3}
    moved = {"a": gradient["a"] / 3, "b": 3 * gradient["b"]}
    np.testing.assert_allclose(step(split, moved), step(pair, gradient), rtol=1e-2, atol=1e-3)


def test_a_zero_partner_gives_a_finite_update(factors, gradients):
    factors["kernel"]["b"] = jnp.zeros_like(factors["kernel"]["b"])
    scaled, _ = precondition(PLAN).update(gradients, optax.EmptyState(), factors)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(scaled))


@pytest.mark.parametrize("absent", [None, optax.MaskedNode()])
def test_one_trained_factor_is_rescaled_by_its_frozen_partner(factors, gradients, scaled, absent):
    alone = {path: gradients[path] | {"a": absent} for path in ("kernel", "conv")}
    params = {path: factors[path] | {"a": absent} for path in alone}
    transform = precondition(PLAN, epsilon=EPSILON)
    rescaled, _ = transform.update(alone, optax.EmptyState(), params, factors=factors)
    for path in alone:
        np.testing.assert_allclose(rescaled[path]["b"], scaled[path]["b"], rtol=1e-6)
        assert rescaled[path]["a"] is absent
    with pytest.raises(SpecError, match="by the factor 'a', which is not among the params"):
        transform.update(alone, optax.EmptyState(), params)


def test_it_chains_with_other_transforms(factors, gradients, scaled, close):
    chain = optax.chain(precondition(PLAN, epsilon=EPSILON), optax.sgd(0.5))
    updates, _ = jax.jit(chain.update)(gradients, chain.init(factors), factors)
    close(updates, jax.tree.map(lambda leaf: -0.5 * leaf, scaled))


def test_what_it_cannot_rescale_is_refused(factors, gradients):
    with pytest.raises(SpecError, match="needs the factors"):
        precondition(PLAN).update(gradients, optax.EmptyState())
    with pytest.raises(SpecError, match="no adaptor at 'kernels'; did you mean 'kernel'"):
        precondition(PLAN).update({"kernels": {}}, optax.EmptyState(), factors)
    with pytest.raises(SpecError, match="epsilon must be positive"):
        precondition(PLAN, epsilon=0.0)
