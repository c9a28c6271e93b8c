"""The weighted mean, with one weight per part of the update.

Sums are kept in float32 at least, and the mean has the update's own dtypes again: a sum of many
clients in bfloat16 would lose whole clients to rounding.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floral.messages import Reduced, evidence
from floral.tree import prefix_map
from floral.typing import Array, PyTree
from floral.uplink.base import Fold, Reducer

__all__ = ["weighted_mean"]


class _Sums(NamedTuple):
    """What is kept of the clients so far.

    Attributes:
      totals: ``Σ_k w_k u_k``.
      weight: ``Σ_k w_k``.
      kind: a zero of each leaf's own dtype, in which the mean is given.
    """

    totals: PyTree
    weight: PyTree
    kind: PyTree


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _weighted_sum(weights: Array, updates: Array) -> Array:
    """``Σ_k w_k u_k`` for weights [k] or [k, C] and updates [k, ...] or [k, C, ...].

    A client of weight zero adds nothing at all, not even a NaN.
    """
    trailing = updates.ndim - weights.ndim
    weights = jnp.reshape(weights, weights.shape + (1,) * trailing)
    updates = updates.astype(_wide(updates.dtype))
    return jnp.sum(jnp.where(weights != 0, weights * updates, 0), axis=0)


def weighted_mean() -> Reducer:
    r"""``Σ_k w_k u_k / Σ_k w_k``, leaf by leaf, the weights a prefix of the update.

    FLoRAL's ``w_k`` are ``n_k`` for the base and ``n_k π_kc`` for adaptor c. Where a weight's sum
    carries no evidence (``floral.messages.evidence``) the reduced update is zero.

    Example:
      >>> updates = {"w": jnp.array([[1.0], [4.0]])}
      >>> reduced, _ = weighted_mean().reduce(updates, {"w": jnp.array([2.0, 1.0])}, ())
      >>> float(reduced.update["w"][0])
      2.0

    Source: FLoRAL, Algorithm 1; McMahan et al., "Communication-Efficient Learning of Deep
    Networks from Decentralized Data", 2017, Algorithm 1.
    """

    def zero(update, weight):
        totals, weight = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, _wide(leaf.dtype)), (update, weight)
        )
        return _Sums(totals, weight, jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), update))

    def add(sums, updates, weights):
        def more(total, new):
            return total + new.astype(total.dtype)

        added = prefix_map(_weighted_sum, weights, updates)
        weight = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), weights)
        return sums._replace(
            totals=jax.tree.map(more, sums.totals, added),
            weight=jax.tree.map(more, sums.weight, weight),
        )

    def finish(sums, server=None):
        def divide(weight, total, kind):
            trusted = evidence(weight)
            shape = weight.shape + (1,) * (total.ndim - weight.ndim)
            mean = total / jnp.reshape(jnp.where(trusted, weight, 1), shape)
            return jnp.where(jnp.reshape(trusted, shape), mean, 0).astype(kind.dtype)

        return Reduced(prefix_map(divide, sums.weight, sums.totals, sums.kind), sums.weight)

    def reduce(updates, weights, state, *, key=None, server=None):
        first = jax.tree.map(lambda leaf: leaf[0], (updates, weights))
        return finish(add(zero(*first), updates, weights)), state

    return Reducer(init=lambda update: (), reduce=reduce, fold=Fold(zero, add, finish))
