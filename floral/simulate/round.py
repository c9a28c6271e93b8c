"""One round as one pure function: sample, gather, train, reduce, aggregate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from floral import tree
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching
from floral.messages import Context
from floral.random import stream
from floral.simulate.clients import DeviceData, client_context, gather_one
from floral.simulate.sampling import Sampler
from floral.simulate.state import SimulationState, gather_rows, scatter_rows
from floral.simulate.walk import Sent, padded, walk_cohort
from floral.typing import PyTree
from floral.uplink.base import Uplink

__all__ = ["make_round"]


def make_round(
    algorithm: FederatedAlgorithm,
    uplink: Uplink,
    sampler: Sampler,
    batching: Batching,
    *,
    max_size: int,
    chunk: int,
) -> Callable[[SimulationState, DeviceData], tuple[SimulationState, dict[str, PyTree]]]:
    """The function of one round.

    A client's key, order of examples and context depend on the round and on its own id alone, so
    neither the walk nor the rest of the cohort can change what it computes.

    Args:
      algorithm: what clients and server do.
      uplink: what happens to updates on their way.
      sampler: who takes part.
      batching: how a client's examples become batches.
      max_size: training examples of the largest client.
      chunk: clients side by side.

    Returns:
      ``(state, data) -> (state, metrics)``, metrics the summed ``loss_sum``, ``examples`` and
      ``cohort`` (clients that took part).
    """

    def round_function(state, data):
        num_clients = data.splits["train"].offsets.shape[0] - 1
        sample_key = stream(state.key, "cohort", state.round)
        ids, active = sampler.sample(sample_key, data.training)
        extra = padded(ids.shape[0], chunk) - ids.shape[0]
        ids = jnp.concatenate([jnp.where(active, ids, num_clients), jnp.full(extra, num_clients)])
        active = ids < num_clients
        cohort_size = jnp.sum(active).astype(jnp.float32)
        client_key = stream(state.key, "client", state.round)
        order_key = stream(state.key, "order", state.round)

        def turn(client):
            key = jax.random.fold_in(client_key, client)
            known = jnp.minimum(client, num_clients - 1)
            row = gather_rows(state.table, known)
            context = client_context(data, known, state.round, state.key, cohort_size)
            batches = gather_one(data, "train", client, order_key, batching, max_size=max_size)
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
            present = client < num_clients
            weight = jax.tree.map(lambda w: jnp.where(present, w, 0.0), upload.weight)
            return Sent(update, weight, {"client": own, "uplink": uplink_row}, metrics)

        reduced, reduce_state, rows, metrics = walk_cohort(
            turn,
            ids,
            chunk,
            uplink.reduce,
            state.uplink["reduce"],
            stream(state.key, "reduce", state.round),
        )
        update, server_state = uplink.server.update(
            reduced.update,
            state.uplink["server"],
            key=stream(state.key, "uplink", state.round),
        )
        sizes = gather_rows(jnp.diff(data.splits["train"].offsets), ids)
        context = Context(
            round=state.round,
            public_key=stream(state.key, "public", state.round),
            num_examples=jnp.sum(jnp.where(active, sizes, 0)).astype(jnp.float32),
            cohort_size=cohort_size,
            traits=(),
        )
        next_state = state._replace(
            round=state.round + 1,
            server=algorithm.aggregate(state.server, reduced._replace(update=update), context),
            table=scatter_rows(state.table, ids, rows),
            uplink={"reduce": reduce_state, "server": server_state},
        )
        counted = tree.select(active, metrics, tree.zeros_like(metrics))
        sums = jax.tree.map(lambda values: jnp.sum(values, axis=0), counted)
        return next_state, {**sums, "cohort": jnp.sum(active)}

    return round_function
