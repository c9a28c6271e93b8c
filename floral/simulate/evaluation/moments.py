r"""Means and variances of trees over clients, taken a client at a time: no two trees are kept.

A client's weight says how much of it counts. Means are moved and squared distances from them added
up as clients come, so that nothing is lost where a mean is large beside what varies.

Source: West, "Updating mean and variance estimates: an improved method", 1979; Chan, Golub,
LeVeque, "Algorithms for computing the sample variance", 1983, for parts that are put together.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from floral import tree
from floral.simulate.shard import summed
from floral.typing import Array, PyTree

__all__ = ["Moments", "no_moments", "of_all_groups", "over_devices", "variance", "with_value"]


class Moments(NamedTuple):
    """What is known of the trees x_k so far; of several groups each leaf has a leading axis.

    Attributes:
      weight: Σ_k w_k.
      squared: Σ_k w_k².
      mean: Σ_k w_k x_k / Σ_k w_k, a tree.
      scatter: Σ_k w_k ‖x_k - mean‖², over all leaves.
    """

    weight: Array
    squared: Array
    mean: PyTree
    scatter: Array


def no_moments(struct: PyTree, groups: int) -> Moments:
    """Of no trees yet, which will have these shapes, in so many groups: leaves [G, ...]."""
    none = jnp.zeros((groups,))
    mean = jax.tree.map(lambda leaf: jnp.zeros((groups, *leaf.shape), leaf.dtype), struct)
    return Moments(none, none, mean, none)


def with_value(moments: Moments, value: PyTree, weight: Array) -> Moments:
    """With one tree more; a weight of zero changes nothing."""
    total = moments.weight + weight
    share = weight / jnp.where(total > 0, total, 1.0)
    away = tree.subtract(value, moments.mean)
    return Moments(
        weight=total,
        squared=moments.squared + weight**2,
        mean=jax.tree.map(lambda mean, leaf: mean + share * leaf, moments.mean, away),
        scatter=moments.scatter + weight * (1 - share) * _squares(away),
    )


def of_all_groups(groups: Moments) -> Moments:
    """The moments of groups [G, ...] as those of all their trees."""

    def total(values: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, keepdims=True), values)

    return jax.tree.map(lambda leaf: leaf[0], _put_together(groups, total))


def over_devices(moments: Moments, mesh: Mesh) -> Moments:
    """The moments that each device has, as those of all; inside ``on_each_device``."""
    if mesh.size == 1:
        return moments
    return _put_together(moments, lambda values: summed(values, mesh))


def variance(moments: Moments) -> Array:
    """An unbiased estimate of E ‖x - E x‖² for independent x_k; NaN of fewer than two of them.

    ``Σ_k p_k ‖x_k - mean‖² / (1 - Σ_k p_k²)`` with ``p_k = w_k / Σ_j w_j``.
    """
    weight = jnp.where(moments.weight > 0, moments.weight, 1.0)
    left = 1 - moments.squared / weight**2
    known = (moments.weight > 0) & (left > 1e-6)  # of one client rounding leaves some
    return jnp.where(known, moments.scatter / weight / jnp.where(known, left, 1.0), jnp.nan)


def _put_together(parts: Moments, add: Callable[[PyTree], PyTree]) -> Moments:
    """One from several, given how trees of theirs are added, axes kept."""
    weight = add(parts.weight)
    share = parts.weight / jnp.where(weight > 0, weight, 1.0)
    mean = add(jax.tree.map(lambda leaf: _like(share, leaf) * leaf, parts.mean))
    away = _squares(tree.subtract(parts.mean, mean), keep=share.ndim)
    scatter = add(parts.scatter + parts.weight * away)
    return Moments(weight, add(parts.squared), mean, scatter)


def _squares(values: PyTree, keep: int = 0) -> Array:
    """The sum of squares over all leaves, and all their axes but the first ``keep``."""
    sums = [
        jnp.sum(jnp.square(leaf), axis=tuple(range(keep, leaf.ndim)))
        for leaf in jax.tree.leaves(values)
    ]
    return sum(sums, start=jnp.zeros(()))


def _like(share: Array, leaf: Array) -> Array:
    return share.reshape(share.shape + (1,) * (leaf.ndim - share.ndim))
