"""Moments taken a tree at a time are those of all of them at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral.simulate.evaluation.moments import no_moments, of_all_groups, variance, with_value

STRUCT = {"w": jax.ShapeDtypeStruct((3, 2), jnp.float32), "b": jax.ShapeDtypeStruct((), "float32")}
WEIGHTS = np.array([3.0, 1.0, 0.0, 2.0, 5.0, 2.0])
GROUPS = np.array([0, 1, 0, 1, 0, 0])


def trees(seed, offset=0.0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(offset + rng.standard_normal(shape), jnp.float32)  # noqa: E731
    return [{"w": draw(3, 2), "b": draw()} for _ in WEIGHTS]


def flat(values):
    return np.array([np.concatenate([np.ravel(t["w"]), [t["b"]]]) for t in values], float)


def of(values, weights, group=None):
    """The moments of groups, [G, ...], of trees that come one after another."""
    group = np.zeros(len(weights), int) if group is None else group
    moments = no_moments(STRUCT, int(group.max()) + 1)
    for value, weight, own in zip(values, weights, group, strict=True):
        one = jax.tree.map(lambda leaf, own=own: leaf[own], moments)
        after = with_value(one, value, jnp.float32(weight))
        moments = jax.tree.map(lambda all, leaf, own=own: all.at[own].set(leaf), moments, after)
    return moments


def plain(values, weights):
    """By the formula: mean, scatter and unbiased variance."""
    x = flat(values)
    mean = np.average(x, axis=0, weights=weights)
    scatter = weights @ np.square(x - mean).sum(axis=1)
    share = weights / weights.sum()
    return mean, scatter, scatter / weights.sum() / (1 - np.square(share).sum())


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_moments_are_those_of_the_formula(offset):
    values = trees(0, offset)
    mean, scatter, unbiased = plain(values, WEIGHTS)
    moments = jax.tree.map(lambda leaf: leaf[0], of(values, WEIGHTS))
    np.testing.assert_allclose(flat([moments.mean])[0], mean, rtol=1e-5)
    # Numbers near 1000 are held to 6e-5 in float32, and their differences of order one as well.
    np.testing.assert_allclose(moments.scatter, scatter, rtol=1e-3 if offset else 1e-5)
    np.testing.assert_allclose(variance(moments), unbiased, rtol=1e-3 if offset else 1e-5)


def test_groups_put_together_are_all_of_them():
    values = trees(1)
    whole = of_all_groups(of(values, WEIGHTS, GROUPS))
    for found, expected in zip(
        jax.tree.leaves(whole), jax.tree.leaves(of(values, WEIGHTS)), strict=True
    ):
        np.testing.assert_allclose(found, expected[0], rtol=1e-5, atol=1e-6)


def test_total_is_within_and_between_groups():
    values = trees(2)
    groups = of(values, WEIGHTS, GROUPS)
    total = plain(values, WEIGHTS)
    between = sum(
        float(groups.weight[g])
        * np.square(
            flat([{name: leaf[g] for name, leaf in groups.mean.items()}])[0] - total[0]
        ).sum()
        for g in range(2)
    )
    assert float(groups.scatter.sum()) + between == pytest.approx(total[1], rel=1e-5)


def test_a_tree_without_weight_changes_nothing(same):
    values = trees(3)
    before = of(values[:2], WEIGHTS[:2])
    same(of(values[:3], WEIGHTS[:3]), before)


def test_of_one_tree_nothing_is_known_to_vary():
    assert np.isnan(variance(of(trees(4)[:1], WEIGHTS[:1]))).all()
    assert np.isnan(variance(no_moments(STRUCT, 2))).all()
    one = of(trees(4)[:1], np.array([0.1]))
    assert np.isnan(variance(of_all_groups(one)))


def test_the_estimate_is_unbiased_for_unequal_weights():
    """The mean of many estimates of seven numbers of variance one is seven."""
    weights = jnp.array([5.0, 1.0, 1.0])
    draws = jax.random.normal(jax.random.key(0), (20_000, 3, 7))

    def estimate(some):
        moments = jax.tree.map(lambda leaf: leaf[0], no_moments(some[0], 1))
        for value, weight in zip(some, weights, strict=True):
            moments = with_value(moments, value, weight)
        return variance(moments)

    # Measured spread of one estimate: 5; of their mean 0.035.
    assert float(jax.vmap(estimate)(draws).mean()) == pytest.approx(7, abs=0.15)
