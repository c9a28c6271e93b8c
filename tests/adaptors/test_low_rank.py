import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from floral.adaptors import Rule, additive, conv, embedding, low_rank, make_plan
from floral.errors import SpecError
from floral.models.frameworks.linen import from_linen

KEY = jax.random.key(0)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def struct(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize("init", ["uniform_in", "uniform_out", "normal_in", "normal_out"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda init: low_rank(rank=2, init=init), (5, 4)),
        (lambda init: low_rank(rank=2, init=init, in_axes=(0, 1)), (2, 3, 4)),
        (lambda init: conv(rank=2, init=init), (3, 2, 4, 5)),
        (lambda init: embedding(rank=2), (7, 4)),
        (lambda init: additive(), (3,)),
    ],
)
def test_delta_is_exactly_zero_at_the_start(make, shape, init):
    adaptor = make(init)
    trained, fixed = adaptor.init(KEY, struct(*shape))
    delta = adaptor.delta(trained, fixed)
    assert delta.shape == shape
    assert not np.any(delta)


def test_one_factor_is_random_and_the_other_zero():
    leaf = struct(50, 30)
    into = low_rank(rank=20, init="uniform_in").init(KEY, leaf)[0]
    out = low_rank(rank=20, init="normal_out").init(KEY, leaf)[0]
    assert np.any(into["a"])
    assert not np.any(into["b"])
    assert np.any(out["b"])
    assert not np.any(out["a"])
    # Both have variance 2 / fan: 1000 and 600 draws give it to about 5 %.
    assert np.var(into["a"]) == pytest.approx(2 / 50, rel=0.15)
    assert np.abs(into["a"]).max() <= np.sqrt(6 / 50)
    assert np.var(out["b"]) == pytest.approx(2 / 30, rel=0.2)


def test_embedding_draws_a_standard_normal_input_factor():
    trained, _ = embedding(rank=8).init(KEY, struct(200, 9))
    assert np.std(trained["a"]) == pytest.approx(1, rel=0.1)
    assert not np.any(trained["b"])


def test_delta_is_alpha_times_the_product():
    pair = {"a": normal(2, 5), "b": normal(2, 3)}
    delta = low_rank(rank=2, alpha=0.5).delta(pair, ())
    np.testing.assert_allclose(delta, 0.5 * pair["a"].T @ pair["b"], rtol=1e-6)


@given(rank=st.integers(0, 5))
@settings(max_examples=6, deadline=None)
def test_rank_masks_the_directions_beyond_it(rank):
    a, b = normal(4, 2, 3), normal(4, 5)
    adaptor = low_rank(rank=4, in_axes=(0, 1))
    cut = jnp.tensordot(a[:rank], b[:rank], axes=(0, 0))
    masked = jax.jit(lambda r: adaptor.delta({"a": a, "b": b}, (), r))(rank)
    np.testing.assert_allclose(masked, cut, atol=1e-6)
    truncated = adaptor.truncate({"a": a, "b": b}, rank)
    np.testing.assert_allclose(adaptor.delta(truncated, ()), cut, atol=1e-6)


def test_rank_by_budget_is_the_papers():
    assert low_rank(budget=0.01).rank(struct(784, 200)) == 1
    assert low_rank(budget=0.1).rank(struct(784, 200)) == 15
    assert low_rank(budget=1.0).rank(struct(10, 10)) == 5
    assert low_rank(budget=0.01).rank(struct(3, 2)) == 1
    assert embedding(budget=0.1).rank(struct(1000, 64)) == 6
    assert low_rank(budget=0.5, in_axes=(0,)).rank(struct(8, 2, 4)) == 2


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), budget=st.floats(1e-3, 1))
@settings(max_examples=50, deadline=None)
def test_a_budget_is_kept_above_rank_one(rows, columns, budget):
    rank = low_rank(budget=budget).rank(struct(rows, columns))
    assert 1 <= rank <= min(rows, columns)
    assert rank == 1 or rank * (rows + columns) <= budget * rows * columns * (1 + 1e-6)


class Attention(nn.Module):
    """The two kernels of several axes that attention has."""

    @nn.compact
    def __call__(self, x):
        heads = nn.DenseGeneral((2, 3), name="query")(x)
        return nn.DenseGeneral(4, axis=(-2, -1), use_bias=False, name="out")(jnp.tanh(heads))


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)])
def test_dense_merged_is_factored(merged_is_factored, shape):
    model, batch = from_linen(nn.Dense(4)), {"x": normal(*shape)}
    plan = make_plan([Rule(".*/kernel", low_rank(rank=2, alpha=0.7))], {"params": dense_params(5)})
    assert merged_is_factored(model, plan, batch) == {"params/kernel": "fast"}


def dense_params(features):
    return {"kernel": struct(features, 4), "bias": struct(4)}


def test_dense_general_merged_is_factored(merged_is_factored):
    model, batch = from_linen(Attention()), {"x": normal(2, 3, 5)}
    params, _ = jax.eval_shape(model.init, KEY, batch)
    rules = [
        Rule(".*/query/kernel", low_rank(rank=2, in_axes=(0,))),
        Rule(".*/out/kernel", low_rank(rank=2, in_axes=(0, 1))),
    ]
    methods = merged_is_factored(model, make_plan(rules, params), batch)
    assert set(methods.values()) == {"fast"}


def test_dense_general_over_unsorted_axes_merged_is_factored(merged_is_factored):
    model = from_linen(nn.DenseGeneral((2, 3), axis=(-1, 1)))
    batch = {"x": normal(2, 5, 3, 4)}
    params, _ = jax.eval_shape(model.init, KEY, batch)
    plan = make_plan([Rule(".*/kernel", low_rank(rank=2, in_axes=(0, 1)))], params)
    assert merged_is_factored(model, plan, batch) == {"params/kernel": "fast"}


def test_wrong_in_axes_are_merged(merged_is_factored):
    model, batch = from_linen(nn.DenseGeneral((2, 3))), {"x": normal(2, 5)}
    params, _ = jax.eval_shape(model.init, KEY, batch)
    plan = make_plan([Rule(".*/kernel", low_rank(rank=2, in_axes=(0, 1)))], params)
    methods = merged_is_factored(model, plan, batch)
    assert methods == {"params/kernel": "merged: low_rank does not serve this layer"}


@pytest.mark.parametrize("adaptor", [embedding(rank=2), low_rank(rank=2)])
def test_embed_merged_is_factored(merged_is_factored, adaptor):
    model = from_linen(nn.Embed(7, 4))
    batch = {"x": jnp.array([[0, 3, 6], [6, 1, 0]])}
    plan = make_plan([Rule(".*", adaptor)], {"params": {"embedding": struct(7, 4)}})
    assert merged_is_factored(model, plan, batch) == {"params/embedding": "fast"}


def test_layers_in_half_precision_keep_their_dtype(merged_is_factored, random_bank):
    from floral.adaptors import adapted, merge

    model, batch = from_linen(nn.Dense(4, dtype=jnp.bfloat16)), {"x": jnp.ones((2, 5))}
    params, stats = model.init(KEY, batch)
    plan = make_plan([Rule(".*/kernel", low_rank(rank=2))], params)
    bank, weights = random_bank(plan), jnp.array([0.5, 0.2, 0.3])
    fast = adapted(model, plan, batch).apply(params, stats, bank, weights, batch)[0]
    slow = model.apply(merge(params, bank, weights, plan), stats, batch)[0]
    assert fast.dtype == slow.dtype == jnp.bfloat16
    # bfloat16 has eight bits: sums of order one are good to a few hundredths.
    np.testing.assert_allclose(np.float32(fast), np.float32(slow), atol=0.06)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "state one of rank and budget"),
        ({"rank": 2, "budget": 0.1}, "state one of rank and budget"),
        ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
        ({"rank": 2.5}, "rank must be a whole number"),
        ({"budget": 2.0}, "budget is a share of the leaf's size and at most 1, got 2.0"),
        ({"budget": 0.0}, "budget must be positive"),
        ({"rank": 1, "in_axes": (1,)}, "in_axes must be the leaf's leading axes"),
        ({"rank": 1, "in_axes": ()}, "in_axes must be the leaf's leading axes"),
        ({"rank": 1, "alpha": 0.0}, "alpha must be positive"),
        ({"rank": 1, "init": "uniform"}, "init must be one of .* did you mean 'uniform_in'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(SpecError, match=message):
        low_rank(**settings)


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({"rank": 5}, (8, 4), r"rank 5 is above 4, the largest for shape \(8, 4\)"),
        ({"rank": 1}, (8,), r"needs a matrix, got shape \(8,\)"),
        ({"rank": 1}, (2, 3, 4), r"input axes of shape \(2, 3, 4\): state in_axes"),
        ({"rank": 1, "in_axes": (0, 1)}, (8, 4), "leave no output axis"),
    ],
)
def test_leaves_that_do_not_fit_are_named(settings, shape, message):
    with pytest.raises(SpecError, match=f"low_rank does not fit 'layer/kernel': .*{message}"):
        make_plan([Rule(".*", low_rank(**settings))], {"layer": {"kernel": struct(*shape)}})
