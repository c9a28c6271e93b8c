"""Every client's own model on its own data.

A client that kept nothing, or was never seen in training, personalizes first, on its training
examples alone; where there is nothing to find, as in FedAvg, they are not even read.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching, as_batches
from floral.messages import Context
from floral.metrics.base import Metric
from floral.random import stream
from floral.simulate.clients import (
    DeviceData,
    Holdings,
    client_context,
    own_batches,
    splits_of_holdings,
)
from floral.simulate.shard import on_each_device
from floral.simulate.state import SimulationState, gather_rows, parts_of_state
from floral.typing import Array, Batch, PyTree

__all__ = [
    "Personalization",
    "RowOf",
    "given_row",
    "kept_row",
    "make_evaluate",
    "new_row",
    "who_personalizes",
]

RowOf = Callable[[SimulationState, DeviceData, "Holdings | None", Array, Array], PyTree]
"""``(state, data, training examples, place, client id) -> row``, the client state that a client
predicts with; its examples are the training examples at that place."""


class Personalization(NamedTuple):
    """What a client may do before it is evaluated.

    Attributes:
      batching: its steps on its training examples.
      limit: how many of its training examples it may use; None is all.
    """

    batching: Batching
    limit: int | None = None


def who_personalizes(
    algorithm: FederatedAlgorithm,
    unseen: np.ndarray,
    state: SimulationState,
    context: Context,
    batch: Batch,
) -> np.ndarray:
    """Who personalizes before it predicts, [N] bool; the others predict with the row they keep.

    Args:
      algorithm: whose rows are traced; nothing is computed.
      unseen: [N] bool, who keeps a row that no training has touched.
      state: structs of a state.
      context: structs of one client's context.
      batch: one batch, of any number of examples.
    """
    kept = state.table["client"]
    if jax.tree.leaves(kept):
        return unseen

    def found(key, server, context):
        row = algorithm.client_init(key, server, context.traits)
        batches = as_batches(jax.tree.map(lambda leaf: leaf[None], batch))
        return algorithm.personalize(key, server, row, batches, context)

    row = jax.eval_shape(found, jax.random.key(0), state.server, context)
    return np.full_like(unseen, jax.tree.structure(row) != jax.tree.structure(kept))


def kept_row(
    state: SimulationState, data: DeviceData, held: Holdings | None, place: Array, client: Array
) -> PyTree:
    """The row that a client keeps; its examples are not needed."""
    return gather_rows(state.table, client)["client"]


def given_row(
    state: SimulationState, data: DeviceData, held: Holdings | None, place: Array, client: Array
) -> PyTree:
    """The same where rows live on the host: the table is that of the clients at hand, by place."""
    return gather_rows(state.table, place)["client"]


def new_row(
    algorithm: FederatedAlgorithm, personalization: Personalization, *, max_size: int
) -> RowOf:
    """The row that a client finds anew: a first one, personalized.

    Args:
      algorithm: gives the start and the personalization.
      personalization: how much of it.
      max_size: training examples of the largest client.
    """

    def row_of(state, data, held, place, client):
        key = jax.random.fold_in(stream(state.key, "evaluate", state.round), client)
        context = client_context(data, client, state.round, state.key, jnp.ones(()))
        row = algorithm.client_init(stream(key, "init"), state.server, context.traits)
        batches = own_batches(
            held,
            place,
            client,
            stream(key, "order"),
            personalization.batching,
            max_size=max_size,
            limit=personalization.limit,
        )
        return algorithm.personalize(
            stream(key, "personalize"), state.server, row, batches, context
        )

    return row_of


def make_evaluate(
    algorithm: FederatedAlgorithm,
    metrics: Mapping[str, Metric],
    row_of: RowOf,
    mesh: Mesh,
    *,
    batch_size: int,
    max_size: int,
    chunk: int,
    by_place: bool = False,
) -> Callable[..., dict[str, PyTree]]:
    """The function that evaluates clients.

    Args:
      algorithm: what a client's own model is.
      metrics: by name.
      row_of: what a client predicts with.
      mesh: the devices that share the clients.
      batch_size: examples predicted at once.
      max_size: examples of the split's largest client.
      chunk: clients side by side on a device.
      by_place: whether the state's table is the rows of these clients alone [n, ...].

    Returns:
      ``(state, data, ids [n], trained, held, fed) -> {metric: [n], "examples": [n], "mixture":
      [n, C] or {prefix: [n, C]}}``: ``held`` what the clients predict, ``trained`` what they
      personalize on (None where they do not), ``fed`` (static) whether examples are split over the
      devices too.
    """

    def one(state, data, trained, held, place, client):
        row = row_of(state, data, trained, place, client)
        batching = Batching(batch_size, shuffle=False)
        batches = own_batches(held, place, client, state.key, batching, max_size=max_size)

        def sums_of(index: Any) -> dict[str, PyTree]:
            batch = batches.step(index)
            outputs = algorithm.predict(state.server, row, batch)
            return {name: metric.from_outputs(outputs, batch) for name, metric in metrics.items()}

        def add(index, total):
            new = sums_of(index)
            return {name: m.merge(total[name], new[name]) for name, m in metrics.items()}

        live = jnp.sum(jnp.any(batches.mask, axis=1), dtype=jnp.int32)
        sums = jax.lax.fori_loop(1, live, add, sums_of(0))
        report: dict[str, Any] = {name: m.compute(sums[name]) for name, m in metrics.items()}
        report["examples"] = jnp.sum(batches.mask, dtype=jnp.int32)
        if algorithm.mixture is not None:
            report["mixture"] = algorithm.mixture(state.server, row)
        return report

    def evaluate_share(state, data, ids, trained, held):
        together = min(chunk, ids.shape[0])
        places = jnp.arange(ids.shape[0]).reshape(-1, together)
        turn = jax.vmap(lambda place: one(state, data, trained, held, place, ids[place]))
        reports = jax.lax.map(turn, places)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), reports)

    def evaluate(state, data, ids, trained, held, fed):
        lies = splits_of_holdings(fed)
        share = on_each_device(
            evaluate_share,
            mesh,
            split=(
                parts_of_state(rows=by_place, rest=False),
                False,
                True,
                None if trained is None else lies,
                lies,
            ),
            joined=True,
        )
        return share(state, data, ids, trained, held)

    return evaluate
