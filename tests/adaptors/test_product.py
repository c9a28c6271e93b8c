"""Factor pairs as products of matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral.adaptors import (
    Rule,
    additive,
    best_pair,
    best_pair_of_sum,
    conv,
    embedding,
    factor_pairs,
    init_bank,
    low_rank,
    make_plan,
    select,
)

PAIRS = {
    "matrix": (low_rank(rank=2, alpha=3.0), (5, 4)),
    "attention out": (low_rank(rank=2, in_axes=(0, 1)), (2, 3, 4)),
    "embedding": (embedding(rank=2, alpha=0.5), (7, 3)),
    "separable": (conv(rank=3, alpha=2.0), (3, 5, 2, 4)),
    "separable, swapped": (conv(rank=3), (3, 5, 4, 2)),
    "in": (conv(layout="in", rank=2), (3, 3, 2, 4)),
    "out": (conv(layout="out", rank=2), (3, 2, 2, 4)),
    "filter_wise": (conv(layout="filter_wise", rank=1), (3, 2, 4, 2)),
    "one spatial axis": (conv(rank=2), (3, 2, 4)),
}


@pytest.fixture(params=PAIRS)
def pair(request, random_bank):
    """``(adaptor, factors of one, shape of the leaf)``."""
    adaptor, shape = PAIRS[request.param]
    plan = make_plan([Rule(".*", adaptor)], {"w": jnp.zeros(shape)})
    return adaptor, select(random_bank(plan), 1)["w"], shape


def test_the_delta_is_the_product_of_the_matrices(pair, close):
    adaptor, factors, shape = pair
    left, right = adaptor.product.matrices(factors)
    delta = adaptor.delta(factors, ())
    assert left.shape[1] * right.shape[1] == np.prod(shape)
    close(adaptor.product.leaf(left.T @ right, factors), delta)
    norm = adaptor.product.scale * np.linalg.norm(left.T @ right)
    np.testing.assert_allclose(norm, np.linalg.norm(delta), rtol=1e-5)


def test_the_pair_of_the_matrices_is_the_pair(pair, same):
    adaptor, factors, _ = pair
    left, right = adaptor.product.matrices(factors)
    same(adaptor.product.pair(left, right, factors), factors)


def test_what_is_no_pair_has_no_product():
    plan = make_plan(
        [Rule("w", low_rank(rank=1)), Rule(".*", additive())],
        {"b": jnp.zeros(2), "w": jnp.zeros((2, 2))},
    )
    bank = jax.eval_shape(lambda: init_bank(jax.random.key(0), plan, 2)).trained
    assert plan.adaptors["b"].product is None
    assert factor_pairs(plan, bank).keys() == {"w"}
    assert factor_pairs(plan, {**bank, "w": {"a": None, "b": bank["w"]["b"]}}) == {}


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
@pytest.mark.parametrize("rank", [1, 3, 4, 5])
def test_no_pair_of_its_rank_is_nearer_than_the_best(shape, rank):
    matrix = np.random.default_rng(rank).standard_normal(shape).astype(np.float32)
    left, right = best_pair(jnp.asarray(matrix), rank)
    assert left.shape == (rank, shape[0])
    assert right.shape == (rank, shape[1])
    missed = np.linalg.svd(matrix.astype(float), compute_uv=False)[rank:]
    distance = np.linalg.norm(matrix - left.T @ right)
    np.testing.assert_allclose(distance, np.linalg.norm(missed), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(left @ left.T, right @ right.T, atol=1e-5)  # balanced


@pytest.mark.parametrize("count", [2, 4, 9])
def test_the_best_pair_of_a_sum_is_that_of_the_matrix(count):
    rng = np.random.default_rng(count)
    left, right = (rng.standard_normal((count, n)).astype(np.float32) for n in (6, 5))
    apart = best_pair_of_sum(jnp.asarray(left), jnp.asarray(right), 3)
    whole = best_pair(jnp.asarray(left.T @ right), 3)
    np.testing.assert_allclose(apart[0].T @ apart[1], whole[0].T @ whole[1], atol=1e-4)
    np.testing.assert_allclose(apart[0] @ apart[0].T, apart[1] @ apart[1].T, atol=1e-4)
