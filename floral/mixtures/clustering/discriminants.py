r"""Mixtures from what clients' data are like: groups are found before adaptors can tell them apart.

Losses tell groups apart only once adaptors differ, and with few examples a client each adaptor soon
knows its own clients' by heart, whoever they are. What examples are like, and what they are called,
tells from the first round on. Each client sketches its examples (``sketch``); a linear discriminant
analysis finds the few directions in which clients' means differ (``directions``); where the means
lie along them is told cell by cell, and C groups are found among the cells (``cells``). The
server only ever sees sums over a cohort.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral import check, tree
from floral.branch import cond_any
from floral.first_argument import first_by_place
from floral.mixtures.base import LARGEST, Clustering, Mixing, softmax_over, zeros
from floral.mixtures.clustering.cells import Cells, add_to, anchors_of, empty_cells, grouped
from floral.mixtures.clustering.directions import (
    Survey,
    directions_of,
    no_survey,
    standing_out,
    survey_of,
)
from floral.mixtures.clustering.sketch import Steps, Tables, make_tables, moments
from floral.random import stream
from floral.typing import Array

__all__ = ["DiscriminantsState", "discriminants"]


class DiscriminantsState(NamedTuple):
    """What the server knows of its clients' data; r is C - 1, at least one.

    Attributes:
      tables: that clients sketch with.
      key: the data of a random key, of anchors and of where the search for groups starts.
      survey: sums over clients.
      center: [d], the mean of all examples.
      directions: [d, r], in which clients' means differ most; examples of one client have variance
        one along each. Zero till the survey ends.
      spread: [d], of all directions, the variance of clients' means over what their own examples
        explain of it, largest first.
      scale: [r], the standard deviation of clients' means along the directions.
      groups: int32, one more than the directions whose spread is no chance; 0 till the survey ends.
      cells: where clients lie.
      centroids: [C, r]; zero till groups are found.
    """

    tables: Tables
    key: Array
    survey: Survey
    center: Array
    directions: Array
    spread: Array
    scale: Array
    groups: Array
    cells: Cells
    centroids: Array


@first_by_place
def discriminants(
    *,
    size: int = 128,
    survey_rounds: int = 20,
    group_rounds: int = 20,
    cells: int = 512,
    starts: int = 32,
    find_count: bool = False,
) -> Mixing:
    r"""Weights by the group that a client's examples look like they come from.

    In the first ``survey_rounds`` clients tell moments of their sketches, in the next
    ``group_rounds`` where they lie. Till then mixtures are uniform. Then a client with n examples
    whose mean lies at y has the logits ``-n |y - centroid_c|² / 2``: those of the posterior over
    groups if means differ by groups and by the chance of which n examples a client has. They are
    found once for a client that keeps them. Where the mixture is trained too, training starts from
    them: before groups are known logits have no gradient.

    Clients need two examples each for their spread to be seen.

    Source: ``directions`` and ``cells`` name those of the parts. Sums over clients are all that is
    needed, so that it can be asked under secure aggregation.

    Args:
      size: d, numbers in a sketch; the survey uploads d² + 2 d of them a client.
      survey_rounds: rounds that tell moments; together they should meet several hundred clients, or
        all there are.
      group_rounds: rounds that tell where clients lie; they should meet each group several times.
      cells: M, into which the space of directions is parted; uploads ``M (C + 1)`` numbers.
      starts: of the search for groups among them, on the server.
      find_count: use no more adaptors than the data show groups; the others rest from then on.

    Raises:
      SpecError: for settings below one; when initialised, for data that have no sketch.
    """
    rounds = {"survey_rounds": survey_rounds, "group_rounds": group_rounds}
    check.positive_int(size=size, cells=cells, starts=starts, **rounds)
    check.boolean(find_count=find_count)
    known_at = survey_rounds + group_rounds

    def init(key, batch, num_adaptors):
        rank = max(1, num_adaptors - 1)
        line = jnp.zeros((size,))
        return DiscriminantsState(
            tables=make_tables(stream(key, "tables"), batch, size),
            key=jax.random.key_data(stream(key, "starts")),
            survey=no_survey(size),
            center=line,
            directions=jnp.zeros((size, rank)),
            spread=line,
            scale=jnp.zeros((rank,)),
            groups=jnp.zeros((), jnp.int32),
            cells=empty_cells(cells, rank),
            centroids=jnp.zeros((num_adaptors, rank)),
        )

    def used(num_adaptors, groups):
        """The adaptors that groups are sought for, [C] bool."""
        indices = jnp.arange(num_adaptors)
        return indices < groups if find_count else indices >= 0

    def broadcast(state):
        now = _Now(state.center, state.directions, state.scale, state.centroids)
        return now, _Once(state.tables, state.key)

    def client_sums(now, once, batches, *, count, round):
        count = jnp.asarray(count, now.scale.dtype)  # float64 where JAX is asked for it
        nothing = _Told(no_survey(size), empty_cells(cells, now.scale.shape[0]))

        def surveyed():
            own = moments(once.tables, batches, count)
            return nothing._replace(survey=survey_of(own.mean, own.scatter, count))

        def located():
            anchors = anchors_of(_key(once.key, "anchors"), now.scale, cells)
            place = _place(now, once.tables, batches, count)
            return nothing._replace(cells=add_to(nothing.cells, anchors, place, count))

        def later():
            return jax.lax.cond(round < known_at, located, lambda: nothing)

        return jax.lax.cond(round < survey_rounds, surveyed, later)

    def update(state, mean, clients, round):
        told = jax.tree.map(lambda mean: clients * mean, mean)
        state = state._replace(
            survey=tree.add(state.survey, told.survey), cells=tree.add(state.cells, told.cells)
        )

        def directed():
            found = directions_of(state.survey, state.scale.shape[0])
            groups = 1 + standing_out(found.spread)
            # Of a bank that rests in part the directions beyond its groups are but noise.
            kept = used(state.scale.shape[0], jnp.maximum(groups - 1, 1))
            return state._replace(
                center=found.center,
                directions=jnp.where(kept[None], found.along, 0.0),
                spread=found.spread,
                scale=jnp.where(kept, found.scale, 0.0),
                groups=groups,
            )

        def known():
            sought = used(state.centroids.shape[0], state.groups)
            found = grouped(
                _key(state.key, "starts"),
                state.cells,
                sought,
                scale=state.scale,
                # Along a direction examples of one client have variance one, and their mean 1/n.
                chance=state.survey.clients / jnp.maximum(state.survey.examples, 1.0),
                starts=starts,
            )
            return state._replace(centroids=jnp.where(sought[:, None], found, 0.0))

        def later():
            return jax.lax.cond(round == known_at - 1, known, lambda: state)

        return jax.lax.cond(round == survey_rounds - 1, directed, later)

    def assign(now, once, logits, batches, *, count, active, round, always=False):
        def placed(now, tables, batches, count, active):
            own = _place(now, tables, batches, count)
            new = -count * jnp.sum(jnp.square(now.centroids - own[None]), axis=-1) / 2
            return new - jnp.max(jnp.where(active, new, -LARGEST))

        anew = (round >= known_at) & (jnp.all(logits == 0) | always)
        return cond_any(anew, placed, logits, now, once.tables, batches, count, active)

    def active(state, active, round):
        resting = ~used(state.centroids.shape[0], state.groups) & (round >= known_at - 1)
        return active & ~resting

    def weights(logits, *, active, round=0, train=False, key=None):
        # A logit that moved before its client was placed would keep the client from being placed.
        if train:
            logits = jnp.where(round >= known_at, logits, jax.lax.stop_gradient(logits))
        return softmax_over(logits, active)

    clustering = Clustering(
        init, broadcast, client_sums, update, assign, active, lambda state: state.groups
    )
    return Mixing(init=zeros, weights=weights, clustering=clustering)


class _Now(NamedTuple):
    """What clients receive each round: the state's fields of the same names."""

    center: Array
    directions: Array
    scale: Array
    centroids: Array


class _Once(NamedTuple):
    """What clients receive a single time: the state's fields of the same names."""

    tables: Tables
    key: Array


class _Told(NamedTuple):
    """What a client adds to the state's fields of the same names."""

    survey: Survey
    cells: Cells


def _key(data: Array, name: str) -> Array:
    return stream(jax.random.wrap_key_data(data), name)


def _place(now: _Now, tables: Tables, batches: Steps, count: Array) -> Array:
    """Where the mean of a client's examples lies, [r]."""
    own = moments(tables, batches, count, scatter=False)
    return (own.mean - now.center) @ now.directions
