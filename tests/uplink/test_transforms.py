import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floral.errors import SpecError
from floral.uplink import clip, uplink, weighted_mean

updates = st.lists(st.floats(-100, 100, width=32), min_size=5, max_size=5).map(
    lambda values: {
        "base": np.array(values[:3], np.float32),
        "bank": {"a": np.array(values[3:], np.float32)},
    }
)


@functools.partial(jax.jit, static_argnums=1)
def _clipped(update, max_norm):
    return clip(max_norm=max_norm).update(update, optax.EmptyState())[0]


@given(updates, st.sampled_from([0.01, 1.0, 50.0]))
def test_a_clipped_update_has_at_most_the_norm_and_its_direction(update, max_norm):
    clipped = _clipped(update, max_norm)
    norm = float(optax.tree.norm(update))
    # One division and one square root in float32.
    assert float(optax.tree.norm(clipped)) <= max_norm * (1 + 1e-5)
    scale = min(1.0, max_norm / norm) if norm else 1.0
    for got, given_leaf in zip(jax.tree.leaves(clipped), jax.tree.leaves(update), strict=True):
        np.testing.assert_allclose(got, scale * given_leaf, rtol=1e-5, atol=1e-30)


def test_an_update_within_the_norm_passes_bit_for_bit(same):
    update = {"w": jnp.array([0.3, -0.4])}
    same(clip(max_norm=0.51).update(update, optax.EmptyState())[0], update)


def test_a_norm_that_is_not_positive_is_refused():
    with pytest.raises(SpecError, match="max_norm must be positive, got 0"):
        clip(max_norm=0)


def test_an_uplink_of_nothing_is_the_weighted_mean(same):
    plain = uplink()
    update = {"w": jnp.array([1.0, -2.0])}
    for side in (plain.client, plain.server):
        passed, _ = side.update(update, side.init(update), key=jax.random.key(0))
        same(passed, update)
    stacked, weights = {"w": jnp.array([[1.0], [4.0]])}, {"w": jnp.array([2.0, 1.0])}
    same(
        plain.reduce.reduce(stacked, weights, ())[0],
        weighted_mean().reduce(stacked, weights, ())[0],
    )


def test_transforms_are_applied_in_order():
    side = uplink(client=[clip(max_norm=1.0), optax.with_extra_args_support(optax.scale(3.0))])
    update = {"w": jnp.array([3.0, 4.0])}
    sent, _ = side.client.update(update, side.client.init(update), key=jax.random.key(0))
    np.testing.assert_allclose(sent["w"], [1.8, 2.4], rtol=1e-6)
