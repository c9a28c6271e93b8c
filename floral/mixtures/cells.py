"""Where many clients lie in a few dimensions, told by sums, and the groups that they form.

Space is parted into cells, by the nearest of random anchors. Each client adds to the sums of its
own cell; the means of cells, weighted, then stand for the clients, and the server looks for groups
among them as often and as long as it likes, without asking anyone again. Few clients share a cell.

Source: Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++: the
advantages of careful seeding", 2007.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral.typing import Array, Key

__all__ = ["Cells", "add_to", "anchors_of", "empty_cells", "grouped"]

_TAILS = 3.0  # degrees of freedom: a small group lies many deviations away from all clients' mean
_STEPS = 50


class Cells(NamedTuple):
    """Sums over clients.

    Attributes:
      sums: [M, r], of places times weights.
      weights: [M].
    """

    sums: Array
    weights: Array


def empty_cells(cells: int, rank: int) -> Cells:
    """Of nobody."""
    return Cells(jnp.zeros((cells, rank)), jnp.zeros((cells,)))


def anchors_of(key: Key, scale: Array, cells: int) -> Array:
    """Random points, [M, r], around zero.

    Args:
      key: of them.
      scale: [r], about how far clients lie from zero along each axis.
      cells: M.
    """
    return scale[None] * jax.random.t(key, _TAILS, (cells, scale.shape[0]))


def add_to(cells: Cells, anchors: Array, place: Array, weight: Array) -> Cells:
    """The cells with a client more.

    Args:
      cells: so far.
      anchors: [M, r].
      place: [r].
      weight: [].
    """
    nearest = jnp.argmin(jnp.sum(jnp.square(anchors - place[None]), axis=-1))
    return Cells(cells.sums.at[nearest].add(weight * place), cells.weights.at[nearest].add(weight))


def grouped(key: Key, cells: Cells, used: Array, *, starts: int) -> Array:
    """The centroids of the groups, [C, r], by k-means from the best of several starts.

    Args:
      key: of the starts.
      cells: M of them.
      used: [C] bool, the first of them True: which centroids are sought.
      starts: how many.

    Returns:
      Centroids; of those that are not sought, and of all where the cells are empty, no use.
    """
    points = cells.sums / jnp.maximum(cells.weights, 1e-30)[:, None]

    def distances(centroids: Array) -> Array:
        """[M, C], infinite to what is not sought."""
        away = jnp.sum(jnp.square(points[:, None] - centroids[None]), axis=-1)
        return jnp.where(used[None], away, jnp.inf)

    def seeds(key: Key) -> Array:
        """Cells far from one another, by weight."""
        keys = jax.random.split(key, used.shape[0])

        def more(index: Array, chosen: Array) -> Array:
            before = jnp.arange(used.shape[0]) < index
            away = jnp.sum(jnp.square(points[:, None] - chosen[None]), axis=-1)
            nearest = jnp.min(jnp.where(before[None], away, jnp.inf), axis=1)
            nearest = jnp.where(index == 0, 1.0, nearest)
            picked = jax.random.categorical(keys[index], jnp.log(cells.weights * nearest))
            return chosen.at[index].set(points[picked])

        return jax.lax.fori_loop(
            0, used.shape[0], more, jnp.zeros((used.shape[0], points.shape[1]))
        )

    def step(_: Array, centroids: Array) -> Array:
        own = jax.nn.one_hot(jnp.argmin(distances(centroids), axis=1), used.shape[0])
        weights = cells.weights[:, None] * own
        total = jnp.sum(weights, axis=0)
        means = jnp.einsum("mc,mr->cr", weights, points) / jnp.maximum(total, 1e-30)[:, None]
        return jnp.where(total[:, None] > 0, means, centroids)

    def settled(key: Key) -> tuple[Array, Array]:
        centroids = jax.lax.fori_loop(0, _STEPS, step, seeds(key))
        return centroids, jnp.sum(cells.weights * jnp.min(distances(centroids), axis=1))

    centroids, costs = jax.vmap(settled)(jax.random.split(key, starts))
    return centroids[jnp.argmin(costs)]
