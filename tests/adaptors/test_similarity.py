"""Cosines between adaptors: of what they do to the weights, not of how that is factored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral.adaptors import (
    Bank,
    Rule,
    additive,
    cosines,
    init_bank,
    likeness,
    low_rank,
    make_plan,
    merge,
)

BASE = {"kernel": jnp.zeros((6, 5)), "bias": jnp.zeros(5)}
PLAN = make_plan([Rule("kernel", low_rank(rank=2)), Rule("bias", additive())], BASE)


@pytest.fixture
def bank():
    start = init_bank(jax.random.key(0), PLAN, 3)
    keys = iter(jax.random.split(jax.random.key(1), 10))
    trained = jax.tree.map(
        lambda leaf: leaf + jax.random.normal(next(keys), leaf.shape), start.trained
    )
    return Bank(trained, start.fixed)


def test_cosines_are_of_the_weights_that_adaptors_add(bank):
    whole = [merge(BASE, bank, jnp.eye(3)[c], PLAN) for c in range(3)]
    flat = np.array([np.concatenate([np.ravel(w["kernel"]), w["bias"]]) for w in whole], float)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(cosines(bank, PLAN), flat @ flat.T, atol=1e-5)


def test_factors_of_other_signs_and_scales_are_the_same_adaptor(bank, near):
    kernel = bank.trained["kernel"]
    names = sorted(kernel)
    other = dict(zip(names, (-2 * kernel[names[0]], -kernel[names[1]] / 2), strict=True))
    near(
        cosines(bank, PLAN), cosines(bank._replace(trained=bank.trained | {"kernel": other}), PLAN)
    )


def test_likeness_is_of_pairs_in_use(bank):
    table = np.asarray(cosines(bank, PLAN))
    everyone = likeness(bank, PLAN, jnp.ones(3, bool))
    assert float(everyone) == pytest.approx(np.mean(table[~np.eye(3, dtype=bool)]), abs=1e-5)
    two = likeness(bank, PLAN, jnp.array([True, False, True]))
    assert float(two) == pytest.approx(table[0, 2], abs=1e-5)
    assert float(likeness(bank, PLAN, jnp.array([True, False, False]))) == 0


def test_a_bank_that_does_nothing_is_like_nothing():
    start = init_bank(jax.random.key(0), PLAN, 3)
    assert not np.any(cosines(start, PLAN))
