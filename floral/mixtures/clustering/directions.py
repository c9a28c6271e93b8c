"""Directions in which clients' means differ by more than their own examples' spread explains.

A linear discriminant analysis with clients for classes, from sums over clients alone, and how many
of its directions are no chance.

Source: Fisher's linear discriminant analysis, in Rao's form for many classes (1948).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from floral.typing import Array

__all__ = ["Directions", "Survey", "directions_of", "no_survey", "standing_out", "survey_of"]

_RIDGE = 1e-4  # of the mean variance
_MARGIN = 1.3  # a finite number of clients blurs an edge by some per cent


class Survey(NamedTuple):
    """Sums over clients, of sketches of d numbers.

    Attributes:
      products: [d, d], two symmetric matrices in one: on and above the diagonal the sum of the
        clients' scatters, below it that of ``n m mᵀ`` over clients of mean m.
      squares: [d], the diagonal of the latter.
      freedom: float32, the sum of their degrees of freedom, n - 1 of a client with n examples.
      total: [d], the sum of ``n m``.
      examples, clients: float32, how many there were; clients as often as they took part.
    """

    products: Array
    squares: Array
    freedom: Array
    total: Array
    examples: Array
    clients: Array


class Directions(NamedTuple):
    """What a survey comes to.

    Attributes:
      center: [d], the mean of all examples.
      along: [d, r], in which clients' means differ most; examples of one client have variance one
        along each.
      spread: [d], of all directions, the variance of clients' means over what their own examples
        explain of it, largest first.
      scale: [r], the standard deviation of clients' means along each.
    """

    center: Array
    along: Array
    spread: Array
    scale: Array


def no_survey(size: int) -> Survey:
    """Of nobody, for sketches of so many numbers."""
    line, none = jnp.zeros((size,)), jnp.zeros(())
    return Survey(jnp.zeros((size, size)), line, none, line, none, none)


def survey_of(mean: Array, scatter: Array, count: Array) -> Survey:
    """Of one client: [d], [d, d] and n of its examples, float32."""
    outer = count * jnp.outer(mean, mean)
    return Survey(
        products=jnp.triu(scatter) + jnp.tril(outer, -1),
        squares=jnp.diagonal(outer),
        freedom=jnp.maximum(count - 1, 0.0),
        total=count * mean,
        examples=count,
        clients=jnp.ones(()),
    )


def directions_of(survey: Survey, rank: int) -> Directions:
    """The first ``rank`` directions, r, of those that a survey shows."""
    size = survey.total.shape[0]
    center = survey.total / jnp.maximum(survey.examples, 1.0)
    below = jnp.tril(survey.products, -1)
    outer = below + below.T + jnp.diag(survey.squares)
    among = outer - survey.examples * jnp.outer(center, center)
    among = among / jnp.maximum(survey.clients - 1, 1.0)
    scatter = jnp.triu(survey.products) + jnp.triu(survey.products, 1).T
    within = scatter / jnp.maximum(survey.freedom, 1.0)
    ridge = _RIDGE * jnp.trace(within) / size + jnp.finfo(jnp.float32).tiny
    factor = jnp.linalg.cholesky(within + ridge * jnp.eye(size))
    half = solve_triangular(factor, among, lower=True)
    whitened = solve_triangular(factor, half.T, lower=True)
    values, vectors = jnp.linalg.eigh((whitened + whitened.T) / 2)
    spread, vectors = values[::-1], vectors[:, ::-1]
    along = solve_triangular(factor, vectors[:, :rank], trans="T", lower=True)
    size_of_client = survey.examples / jnp.maximum(survey.clients, 1.0)
    scale = jnp.sqrt(jnp.maximum(spread[:rank], 0.0) / jnp.maximum(size_of_client, 1.0))
    return Directions(center, along, spread, scale)


def standing_out(spread: Array) -> Array:
    """How many of the largest spreads are no chance, int32.

    Where clients' means differ by chance alone, spreads follow Marchenko and Pastur's law, whose
    edge is ``mean (1 + sqrt(variance) / mean)²``, by their own moments: so it need not be known how
    many different clients took part. The most are taken of which the last lies beyond the edge of
    all that are smaller, half of them at most.
    """
    size = spread.shape[0]
    left = size - 1.0 - jnp.arange(size - 1)  # how many are smaller than each but the last
    mean, square = (
        jnp.cumsum(power[::-1])[::-1][1:] / left for power in (spread, jnp.square(spread))
    )
    deviation = jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0.0))
    edge = mean * jnp.square(1 + deviation / jnp.maximum(mean, 1e-30))
    rank = jnp.sum(spread > 1e-2 * jnp.mean(spread))  # no larger than how many clients took part
    order = jnp.arange(1, size)
    beyond = (spread[:-1] > _MARGIN * edge) & (order <= rank // 2)
    return jnp.max(jnp.where(beyond, order, 0)).astype(jnp.int32)
