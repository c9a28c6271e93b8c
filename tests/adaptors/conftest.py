"""What the adaptors' tests share: random banks, and the one identity that they all serve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral.adaptors import adapted, init_bank, merge

TOLERANCE = 2e-5
"""Of float32 sums of a few dozen terms of order one, taken in two orders."""


def _random_tree(struct, seed):
    """Normal numbers by NumPy, which need no compilation, unlike those of ``jax.random``."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), leaf.dtype), struct
    )


def _random_bank(plan, num_adaptors=3, seed=7):
    """A bank without zero factors, as after some training."""
    struct = jax.eval_shape(lambda key: init_bank(key, plan, num_adaptors), jax.random.key(0))
    return _random_tree(struct, seed)


def _close(left, right, tolerance=TOLERANCE):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="session")
def random_tree():
    return _random_tree


@pytest.fixture(scope="session")
def random_bank():
    return _random_bank


@pytest.fixture(scope="session")
def close():
    return _close


@pytest.fixture(scope="session")
def merged_is_factored(jit):
    """Asserts that the fast path has the definition's outputs, and its gradients if asked, and so
    has what training with the base makes of it; returns the methods."""

    def check(model, plan, batch, *, params=None, weights=None, gradients=True):
        struct, stats = jax.eval_shape(model.init, jax.random.key(0), batch)
        params = _random_tree(struct, 3) if params is None else params
        bank = _random_bank(plan)
        weights = jnp.array([0.5, 0.2, 0.3]) if weights is None else weights
        fast = adapted(model, plan, batch)

        def score(outputs):
            return jnp.sum(jnp.sin(outputs)), outputs

        def factored(params, bank, weights):
            return score(fast.apply(params, stats, bank, weights, batch)[0])

        def chosen(params, bank, weights):
            apply = fast.apply_training(plan.leaves)
            return score(apply(params, stats, bank, weights, batch)[0])

        def defined(params, bank, weights):
            return score(model.apply(merge(params, bank, weights, plan), stats, batch)[0])

        if gradients:
            factored, chosen, defined = (
                jax.value_and_grad(fn, argnums=(0, 1, 2), has_aux=True)
                for fn in (factored, chosen, defined)
            )
        *left, right = jit(lambda *args: (factored(*args), chosen(*args), defined(*args)))(
            params, bank, weights
        )
        for one in left:
            _close(one, right, tolerance=2e-4 if gradients else TOLERANCE)
        return fast.methods

    return check
