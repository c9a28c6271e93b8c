r"""Mixtures from what clients' data are like: groups are found before adaptors can tell them apart.

Losses tell groups apart only once adaptors differ, and with few examples a client each adaptor soon
knows its own clients' by heart, whoever they are. What examples are like, and what they are called,
tells from the first round on. Each client sketches its examples (``sketch``); clients are the
classes of a linear discriminant analysis of the sketches, which finds the few directions in which
clients' means differ by more than their own examples' spread explains; among the means in these
directions k-means finds C groups. The server only ever sees sums over a cohort.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from floral import check
from floral.mixtures.base import LARGEST, Grouping, Mixing, zeros
from floral.mixtures.sketch import Steps, Tables, make_tables, moments
from floral.mixtures.weights import softmax
from floral.random import stream
from floral.typing import Array

__all__ = ["DiscriminantsState", "discriminants"]

_RIDGE = 1e-4  # of the mean variance
_KEPT = 0.9  # of the sums of k-means, from round to round
_MARGIN = 1.3  # a finite number of clients blurs an edge by some per cent


class DiscriminantsState(NamedTuple):
    """What the server knows of its clients' data; r is C - 1, at least one.

    Attributes:
      tables: that clients sketch with.
      within: [d, d], the sum of the clients' scatters.
      freedom: float32, the sum of their degrees of freedom, n - 1 of a client with n examples.
      outer: [d, d], the sum of ``n m mᵀ`` over clients of mean m.
      total: [d], the sum of ``n m``.
      examples, clients: float32, how many there were; clients as often as they took part.
      center: [d], the mean of all examples.
      directions: [d, r], in which clients' means differ most; examples of one client have variance
        one along each.
      spread: [d], of all directions, the variance of clients' means over what their own examples
        explain of it, largest first.
      groups: int32, one more than the directions whose spread is no chance; 0 till the survey ends.
      centroids: [R, C, r], of R starts; the best one R times once groups are found.
      sums, weights, cost: [R, C, r], [R, C] and [R] of k-means.
    """

    tables: Tables
    within: Array
    freedom: Array
    outer: Array
    total: Array
    examples: Array
    clients: Array
    center: Array
    directions: Array
    spread: Array
    groups: Array
    centroids: Array
    sums: Array
    weights: Array
    cost: Array
    key: Array


def discriminants(
    *,
    size: int = 128,
    survey_rounds: int = 20,
    group_rounds: int = 20,
    starts: int = 16,
    find_count: bool = False,
) -> Mixing:
    r"""Weights by the group that a client's examples look like they come from.

    In the first ``survey_rounds`` clients tell moments of their sketches, in the next
    ``group_rounds`` to which centroid of each of R starts of k-means they are nearest. Till then
    mixtures are uniform. Then a client with n examples whose mean lies at y has the logits
    ``-n |y - centroid_c|² / 2``: those of the posterior over groups if means differ by groups and
    by the chance of which n examples a client has. They are found once for a client that keeps
    them, where they are trained too that is where training starts.

    Clients need two examples each for their spread to be seen.

    Source: Fisher's linear discriminant analysis, in Rao's form for many classes (1948), here with
    clients for classes; sums over clients are all it needs, so that it can be asked under secure
    aggregation.

    Args:
      size: d, numbers in a sketch; the survey uploads 2 d² numbers a client.
      survey_rounds: rounds that tell moments; together they should meet several hundred clients, or
        all there are.
      group_rounds: rounds of k-means.
      starts: R.
      find_count: use no more adaptors than the data show groups; the others rest from then on.

    Raises:
      SpecError: for settings below one; when initialised, for data that have no sketch.
    """
    check.positive_int(
        size=size, survey_rounds=survey_rounds, group_rounds=group_rounds, starts=starts
    )
    known_at = survey_rounds + group_rounds

    def init(key, batch, num_adaptors):
        rank = max(1, num_adaptors - 1)
        square, none = jnp.zeros((size, size)), jnp.zeros(())
        return DiscriminantsState(
            tables=make_tables(stream(key, "tables"), batch, size),
            within=square,
            freedom=none,
            outer=square,
            total=jnp.zeros((size,)),
            examples=none,
            clients=none,
            center=jnp.zeros((size,)),
            directions=jnp.zeros((size, rank)),
            spread=jnp.zeros((size,)),
            groups=jnp.zeros((), jnp.int32),
            centroids=jnp.zeros((starts, num_adaptors, rank)),
            sums=jnp.zeros((starts, num_adaptors, rank)),
            weights=jnp.zeros((starts, num_adaptors)),
            cost=jnp.zeros((starts,)),
            key=jax.random.key_data(stream(key, "starts")),
        )

    def used(centroids, groups):
        """The adaptors that groups are sought for, [C] bool."""
        indices = jnp.arange(centroids.shape[1])
        return indices < groups if find_count else indices >= 0

    def sent(state):
        now = _Now(state.center, state.directions, state.centroids, state.groups)
        return now, state.tables

    def tell(now, tables, batches, *, count, round):
        count, none = jnp.asarray(count, jnp.float32), jnp.zeros(())
        square, line = jnp.zeros((size, size)), jnp.zeros((size,))
        of_starts = (now.centroids, now.centroids[..., 0], now.centroids[:, 0, 0])
        nothing = _Told(square, none, square, line, none, *map(jnp.zeros_like, of_starts))

        def surveyed():
            own = moments(tables, batches, count)
            return nothing._replace(
                within=own.scatter,
                freedom=jnp.maximum(count - 1, 0.0),
                outer=count * jnp.outer(own.mean, own.mean),
                total=count * own.mean,
                examples=count,
            )

        def grouped():
            place = _place(now, tables, batches, count)
            distance = jnp.sum(jnp.square(now.centroids - place[None, None]), axis=-1)  # [R, C]
            distance = jnp.where(used(now.centroids, now.groups)[None], distance, jnp.inf)
            chosen = jax.nn.one_hot(jnp.argmin(distance, axis=-1), distance.shape[1])
            weights = count * chosen
            return nothing._replace(
                sums=weights[..., None] * place[None, None],
                weights=weights,
                cost=count * jnp.min(distance, axis=-1),
            )

        def later():
            return jax.lax.cond(round < known_at, grouped, lambda: nothing)

        return jax.lax.cond(round < survey_rounds, surveyed, later)

    def learn(state, told, clients, round):
        told = jax.tree.map(lambda mean: clients * mean, told)

        def surveyed():
            new = state._replace(
                within=state.within + told.within,
                freedom=state.freedom + told.freedom,
                outer=state.outer + told.outer,
                total=state.total + told.total,
                examples=state.examples + told.examples,
                clients=state.clients + clients,
            )
            return jax.lax.cond(round == survey_rounds - 1, _directed, lambda same: same, new)

        def grouped():
            sums = _KEPT * state.sums + told.sums
            weights = _KEPT * state.weights + told.weights
            cost = _KEPT * state.cost + told.cost
            means = sums / jnp.maximum(weights, 1.0)[..., None]
            centroids = jnp.where(weights[..., None] >= 1.0, means, state.centroids)
            best = jnp.broadcast_to(centroids[jnp.argmin(cost)], centroids.shape)
            return state._replace(
                sums=sums,
                weights=weights,
                cost=cost,
                centroids=jnp.where(round == known_at - 1, best, centroids),
            )

        def later():
            return jax.lax.cond(round < known_at, grouped, lambda: state)

        return jax.lax.cond(round < survey_rounds, surveyed, later)

    def place(now, tables, logits, batches, *, count, active, round, always=False):
        def placed():
            own = _place(now, tables, batches, count)
            new = -count * jnp.sum(jnp.square(now.centroids[0] - own[None]), axis=-1) / 2
            return new - jnp.max(jnp.where(active, new, -LARGEST))

        anew = jnp.all(logits == 0) | always
        return jax.lax.cond((round >= known_at) & anew, placed, lambda: logits)

    def active(state, active, round):
        resting = ~used(state.centroids, state.groups) & (round >= known_at - 1)
        return active & ~resting

    grouping = Grouping(init, sent, tell, learn, place, active, lambda state: state.groups)
    return Mixing(init=zeros, weights=softmax().weights, grouping=grouping)


class _Now(NamedTuple):
    """What clients receive each round: the state's fields of the same names."""

    center: Array
    directions: Array
    centroids: Array
    groups: Array


class _Told(NamedTuple):
    """What a client adds to the state's fields of the same names."""

    within: Array
    freedom: Array
    outer: Array
    total: Array
    examples: Array
    sums: Array
    weights: Array
    cost: Array


def _place(now: _Now, tables: Tables, batches: Steps, count: Array) -> Array:
    """Where the mean of a client's examples lies, [r]."""
    own = moments(tables, batches, count, scatter=False)
    return (own.mean - now.center) @ now.directions


def _directed(state: DiscriminantsState) -> DiscriminantsState:
    """The directions from the survey's sums, and where k-means starts."""
    size, rank = state.directions.shape
    center = state.total / jnp.maximum(state.examples, 1.0)
    among = state.outer - state.examples * jnp.outer(center, center)
    among = among / jnp.maximum(state.clients - 1, 1.0)
    within = state.within / jnp.maximum(state.freedom, 1.0)
    ridge = _RIDGE * jnp.trace(within) / size + jnp.finfo(jnp.float32).tiny
    factor = jnp.linalg.cholesky(within + ridge * jnp.eye(size))
    half = solve_triangular(factor, among, lower=True)
    whitened = solve_triangular(factor, half.T, lower=True)
    values, vectors = jnp.linalg.eigh((whitened + whitened.T) / 2)
    spread, vectors = values[::-1], vectors[:, ::-1]
    directions = solve_triangular(factor, vectors[:, :rank], trans="T", lower=True)
    size_of_client = state.examples / jnp.maximum(state.clients, 1.0)
    scale = jnp.sqrt(jnp.maximum(spread[:rank], 0.0) / jnp.maximum(size_of_client, 1.0))
    key = jax.random.wrap_key_data(state.key)
    centroids = scale[None, None] * jax.random.normal(key, state.centroids.shape)
    return state._replace(
        center=center,
        directions=directions,
        spread=spread,
        groups=1 + _standing_out(spread),
        centroids=centroids,
    )


def _standing_out(spread: Array) -> Array:
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
