"""One round as one pure function: sample, gather, train, reduce, aggregate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from floral import tree
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batches, Batching, locate, schedule
from floral.messages import Context
from floral.random import stream
from floral.simulate.clients import (
    DeviceData,
    Holdings,
    client_context,
    holdings,
    splits_of_holdings,
)
from floral.simulate.sampling import Sampler
from floral.simulate.shard import deal, on_each_device, share_of, summed
from floral.simulate.state import SimulationState, gather_rows, parts_of_state, scatter_rows
from floral.simulate.walk import ClientResult, CohortResult, walk_clients
from floral.typing import Array, Key, PyTree
from floral.uplink.base import Uplink

__all__ = ["Cohort", "make_draw", "make_round"]


class Cohort(NamedTuple):
    """Who takes part in a round, in the order in which the devices walk them.

    Attributes:
      ids: [K] int32; N marks an empty place.
      held: their training examples; None where these are looked up in the data.
    """

    ids: Array
    held: Holdings | None


def make_draw(
    sampler: Sampler, *, devices: int, chunk: int
) -> Callable[[Key, Array, DeviceData], Array]:
    """The function that draws a round's cohort and deals it to the devices.

    Returns:
      ``(key of the run, round, data) -> ids [devices * share]``, N for an empty place.
    """

    def draw(key, round_index, data):
        num_clients = data.offsets["train"].shape[0] - 1
        ids, active = sampler.sample(stream(key, "cohort", round_index), round_index, data.training)
        share = share_of(ids.shape[0], devices, chunk)
        empty = jnp.full(share * devices - ids.shape[0], num_clients)
        ids = jnp.concatenate([jnp.where(active, ids, num_clients), empty]).astype(jnp.int32)
        _, sizes = locate(data.offsets["train"], ids)
        return ids[deal(sizes, devices, share, chunk)]

    return draw


def make_round(
    algorithm: FederatedAlgorithm,
    uplink: Uplink,
    draw: Callable[[Key, Array, DeviceData], Array] | None,
    batching: Batching,
    mesh: Mesh,
    *,
    max_size: int,
    chunk: int,
    by_place: bool = False,
) -> Callable[..., tuple[SimulationState, dict[str, PyTree]]]:
    """The function of one round.

    A client's key, order of examples and context depend on the round and on its own id alone, so
    neither the walk nor the rest of the cohort can change what it computes.

    Args:
      algorithm: what clients and server do.
      uplink: what happens to updates on their way.
      draw: who takes part; from ``make_draw``. None where every round is given its cohort.
      batching: how a client's examples become batches.
      mesh: the devices that share the cohort.
      max_size: training examples of the largest client.
      chunk: clients side by side on a device.
      by_place: whether the state's table is the rows of the cohort alone [K, ...], place by place,
        those before the round and those after it; otherwise it is everyone's [N, ...].

    Returns:
      ``(state, data, cohort=None) -> (state, metrics)``. A cohort is given where its examples or
      rows come from the host; otherwise it is drawn and looked up in the data. Metrics are what
      clients report, summed over them (``loss_sum``, ``examples``, ...); under ``uplink`` what the
      reducer reports, if anything; and

      - ``cohort``: int32, clients that took part;
      - ``non_finite``: int32, how many of them reported a number (``loss_sum``, ...) or a weight
        that is infinite or NaN; at least 1 where the reduced update is not finite, so that a client
        whose update alone went wrong, in its last step, is not missed;
      - ``first_non_finite``: int32, the lowest id of these clients; -1 if none is known;
      - ``dropped``: int32, with ``uplink(non_finite="drop")`` alone: how many were left out, for
        their metrics, weight or update (after the client transforms). ``loss_sum`` and the like
        are then sums over the others.

      Every client's update is looked at only where it can be dropped: on a CPU that second reader
      of each update makes a round of three local steps take 1.2 times as long.
    """
    drops = uplink.non_finite == "drop"

    def walk_share(state, data, cohort, cohort_size):
        """What one device does: its clients' turns, summed over all devices."""
        ids, held = cohort
        # For all clients at once: random numbers cost more by their calls than by their count.
        rows, mask = schedule(
            ids,
            held.starts,
            held.sizes,
            stream(state.key, "order", state.round),
            batching,
            max_size=max_size,
        )
        num_clients = data.offsets["train"].shape[0] - 1
        client_key = stream(state.key, "client", state.round)

        def turn(place):
            client = ids[place]
            present = client < num_clients
            known = jnp.minimum(client, num_clients - 1)
            key = jax.random.fold_in(client_key, client)
            row = gather_rows(state.table, place if by_place else known)
            context = client_context(data, known, state.round, state.key, cohort_size)
            batches = Batches(held.examples, rows[place], mask[place])
            upload, own, metrics = algorithm.client_update(
                stream(key, "update"),
                algorithm.download(state.server, context),
                row["client"],
                batches,
                context,
            )
            update, uplink_row = uplink.client.update(
                upload.update, row["uplink"], key=stream(key, "uplink")
            )
            looked_at = (update, upload.sums) if drops else ()
            finite = tree.all_finite((metrics, upload.weight, looked_at))
            counted = (upload.weight, upload.sums, metrics)
            next_row = {"client": own, "uplink": uplink_row}
            counts = present
            if drops:
                counts &= finite
                update = tree.select(finite, update, tree.zeros_like(update))
                next_row = tree.select(finite, next_row, row)
            weight, sums, metrics = tree.select(counts, counted, tree.zeros_like(counted))
            return ClientResult(update, weight, sums, next_row, metrics, present & ~finite)

        places = jnp.arange(ids.shape[0])
        walked = walk_clients(turn, places, chunk, uplink.reduce.fold)
        alike = summed((walked.folded, walked.sums, walked.metrics), mesh)
        return walked._replace(folded=alike[0], sums=alike[1], metrics=alike[2])

    def round_function(state, data, cohort=None):
        if cohort is None:
            assert draw is not None
            cohort = Cohort(draw(state.key, state.round, data), None)
        ids, held = cohort
        fed = held is not None
        if not fed:
            held = holdings(data, "train", ids)
        active = ids < data.offsets["train"].shape[0] - 1
        cohort_size = jnp.sum(active).astype(jnp.float32)
        joined: Any = {
            "folded": False,
            "uploads": True,
            "rows": True,
            "sums": False,
            "metrics": False,
            "non_finite": True,
        }
        walk = on_each_device(
            walk_share,
            mesh,
            split=(
                parts_of_state(rows=by_place, rest=False),
                False,
                (True, splits_of_holdings(fed)),
                False,
            ),
            joined=CohortResult(**joined),
        )
        walked = walk(state, data, (ids, held), cohort_size)
        counts = active & ~walked.non_finite if drops else active
        reduce_state = state.uplink["reduce"]
        if uplink.reduce.fold is None:
            reduced, reduce_state = uplink.reduce.reduce(
                *walked.uploads,
                reduce_state,
                key=stream(state.key, "reduce", state.round),
                server=state.server,
            )
        else:
            reduced = uplink.reduce.fold.finish(walked.folded, state.server)
        update, server_state = uplink.server.update(
            reduced.update,
            state.uplink["server"],
            key=stream(state.key, "uplink", state.round),
        )
        context = Context(
            round=state.round,
            public_key=stream(state.key, "public", state.round),
            num_examples=jnp.sum(jnp.where(counts, held.sizes, 0)).astype(jnp.float32),
            cohort_size=jnp.sum(counts).astype(jnp.float32),
            traits=(),
        )
        arrived = reduced._replace(update=update, sums=walked.sums)
        next_state = state._replace(
            round=state.round + 1,
            server=algorithm.aggregate(state.server, arrived, context),
            table=walked.rows if by_place else scatter_rows(state.table, ids, walked.rows),
            uplink={"reduce": reduce_state, "server": server_state},
        )
        metrics = {**walked.metrics, "cohort": jnp.sum(active, dtype=jnp.int32)}
        metrics |= _non_finite(ids, walked.non_finite, (reduced.update, walked.sums))
        if drops:
            metrics["dropped"] = jnp.sum(walked.non_finite, dtype=jnp.int32)
        return next_state, metrics | (
            {"uplink": reduced.diagnostics} if reduced.diagnostics else {}
        )

    return round_function


def _non_finite(ids: Array, clients: Array, update: PyTree) -> dict[str, Array]:
    """How many clients [K] had values that are not finite, and the first of them."""
    nobody = jnp.iinfo(ids.dtype).max
    first = jnp.min(jnp.where(clients, ids, nobody))
    return {
        "non_finite": jnp.maximum(jnp.sum(clients, dtype=jnp.int32), ~tree.all_finite(update)),
        "first_non_finite": jnp.where(first == nobody, -1, first),
    }
