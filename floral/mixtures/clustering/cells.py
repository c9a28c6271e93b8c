"""Where many clients lie in a few dimensions, told by sums, and the groups that they form.

Space is parted into cells, by the nearest of random anchors. Each client adds to the sums of its
own cell; the means of cells, weighted, then stand for the clients, and the server looks for groups
among them as often and as long as it likes, without asking anyone again. Few clients share a cell.

Source: Dempster, Laird, Rubin, "Maximum likelihood from incomplete data via the EM algorithm",
1977; Banfield and Raftery, "Model-based Gaussian and non-Gaussian clustering", 1993, for a part of
the mixture that is no group; Arthur and Vassilvitskii, "k-means++: the advantages of careful
seeding", 2007, for where it starts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral.typing import Array, Key

__all__ = ["Cells", "add_to", "anchors_of", "empty_cells", "grouped"]

_TAILS = 3  # degrees of freedom: a small group lies many deviations away from all clients' mean
_BROAD = 3.0  # standard deviations of all places, of what belongs to no group
_STEPS = 100


class Cells(NamedTuple):
    """Sums over clients.

    Attributes:
      sums: [M, r], of places times weights.
      squares: [M], of their squared lengths times weights.
      weights: [M].
    """

    sums: Array
    squares: Array
    weights: Array


def empty_cells(cells: int, rank: int) -> Cells:
    """Of nobody."""
    return Cells(jnp.zeros((cells, rank)), jnp.zeros((cells,)), jnp.zeros((cells,)))


def anchors_of(key: Key, scale: Array, cells: int) -> Array:
    """Random points, [M, r], around zero.

    Args:
      key: of them.
      scale: [r], about how far clients lie from zero along each axis.
      cells: M.
    """
    normal, squares = jax.random.split(key)
    shape = (cells, scale.shape[0])
    # Of Student's distribution, by normal numbers alone: JAX's own rejects in loops, which takes
    # a second more to compile.
    spread = jnp.mean(jnp.square(jax.random.normal(squares, (_TAILS, *shape))), axis=0)
    return scale[None] * jax.random.normal(normal, shape) / jnp.sqrt(spread)


def add_to(cells: Cells, anchors: Array, place: Array, weight: Array) -> Cells:
    """The cells with a client more.

    Args:
      cells: so far.
      anchors: [M, r].
      place: [r].
      weight: [].
    """
    nearest = jnp.argmin(jnp.sum(jnp.square(anchors - place[None]), axis=-1))
    return Cells(
        sums=cells.sums.at[nearest].add(weight * place),
        squares=cells.squares.at[nearest].add(weight * jnp.sum(jnp.square(place))),
        weights=cells.weights.at[nearest].add(weight),
    )


def grouped(
    key: Key, cells: Cells, used: Array, *, scale: Array, chance: Array, starts: int
) -> Array:
    """The centroids of the groups, [C, r].

    By expectation and maximisation for a mixture of normal distributions of one variance, in which
    groups may be of unlike sizes, and of one that is broad: no centroid is spent on a client that
    is like no other, nor on parting a large group in two. From the most likely of several starts.

    Args:
      key: of the starts.
      cells: M of them.
      used: [C] bool, the first of them True: which centroids are sought.
      scale: [r], the standard deviation of clients' places along each axis; axes of zero are left
        out.
      chance: the variance along each axis that a client's place has of itself; a group's is no
        smaller.
      starts: how many.

    Returns:
      Centroids; of those that are not sought, and of all where the cells are empty, no use.
    """
    weights = cells.weights / jnp.maximum(jnp.sum(cells.weights), 1e-30)
    held = jnp.maximum(cells.weights, 1e-30)
    points = cells.sums / held[:, None]
    within = cells.squares / held - jnp.sum(jnp.square(points), axis=-1)  # of a cell's clients
    rank = jnp.maximum(jnp.sum(scale > 0), 1)
    broad = _BROAD * jnp.where(scale > 0, scale, 1.0)
    elsewhere = -0.5 * jnp.sum(jnp.square(points / broad[None]), axis=-1)
    elsewhere -= jnp.sum(jnp.where(scale > 0, jnp.log(broad), 0.0))  # [M]

    def distances(centroids: Array) -> Array:
        """Mean squared ones of a cell's clients, [M, C]."""
        away = jnp.sum(jnp.square(points[:, None] - centroids[None]), axis=-1)
        return away + jnp.maximum(within, 0.0)[:, None]

    def seeds(key: Key) -> Array:
        """Cells far from one another, by weight."""
        keys = jax.random.split(key, used.shape[0])

        def more(index: Array, chosen: Array) -> Array:
            before = jnp.arange(used.shape[0]) < index
            away = jnp.sum(jnp.square(points[:, None] - chosen[None]), axis=-1)
            nearest = jnp.min(jnp.where(before[None], away, jnp.inf), axis=1)
            nearest = jnp.where(index == 0, 1.0, nearest)
            picked = jax.random.categorical(keys[index], jnp.log(weights * nearest))
            return chosen.at[index].set(points[picked])

        none = jnp.zeros((used.shape[0], points.shape[1]))
        return jax.lax.fori_loop(0, used.shape[0], more, none)

    def densities(mixture: _Mixture) -> Array:
        """Logarithms of shares times densities, [M, C + 1], the broad one last."""
        of_groups = -0.5 * distances(mixture.centroids) / mixture.variance
        of_groups -= 0.5 * rank * jnp.log(mixture.variance)
        both = jnp.concatenate([of_groups, elsewhere[:, None]], axis=1)
        return both + jnp.log(mixture.shares)[None]

    def step(_: Array, mixture: _Mixture) -> _Mixture:
        own = weights[:, None] * jax.nn.softmax(densities(mixture), axis=1)
        shares = jnp.sum(own, axis=0)
        own, groups = own[:, :-1], shares[:-1]
        means = jnp.einsum("mc,mr->cr", own, points) / jnp.maximum(groups, 1e-30)[:, None]
        centroids = jnp.where(groups[:, None] > 1e-9, means, mixture.centroids)
        scatter = jnp.sum(own * distances(centroids)) / jnp.maximum(rank * jnp.sum(groups), 1e-30)
        return _Mixture(centroids, jnp.maximum(scatter, chance), shares)

    def settled(key: Key) -> tuple[Array, Array]:
        shares = jnp.append(used / jnp.sum(used), 1e-2)
        start = _Mixture(seeds(key), jnp.maximum(2 * chance, 1e-30), shares / jnp.sum(shares))
        mixture = jax.lax.fori_loop(0, _STEPS, step, start)
        likely = jax.nn.logsumexp(densities(mixture), axis=1)
        return mixture.centroids, jnp.sum(jnp.where(weights > 0, weights * likely, 0.0))

    centroids, likely = jax.vmap(settled)(jax.random.split(key, starts))
    return centroids[jnp.argmax(likely)]


class _Mixture(NamedTuple):
    """``centroids`` [C, r], the ``variance`` of all along each axis, ``shares`` [C + 1]."""

    centroids: Array
    variance: Array
    shares: Array
