"""Every client's own model on its own data.

A client that kept nothing, or was never seen in training, personalizes first, on its training
examples alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching
from floral.metrics.base import Metric
from floral.random import stream
from floral.simulate.clients import DeviceData, client_context, gather_one
from floral.simulate.state import SimulationState, gather_rows
from floral.simulate.walk import padded
from floral.typing import Array, Batch, PyTree

__all__ = ["Personalization", "kept_row", "make_evaluate", "new_row"]

RowOf = Callable[[SimulationState, DeviceData, Array], PyTree]
"""``(state, data, client id) -> row``, the client state that a client predicts with."""


class Personalization(NamedTuple):
    """What a client may do before it is evaluated.

    Attributes:
      batching: its steps on its training examples.
      limit: how many of its training examples it may use; None is all.
    """

    batching: Batching
    limit: int | None = None


def kept_row(state: SimulationState, data: DeviceData, client: Array) -> PyTree:
    """The row that a client of the training population keeps."""
    return gather_rows(state.table, client)["client"]


def new_row(
    algorithm: FederatedAlgorithm, personalization: Personalization, *, max_size: int
) -> RowOf:
    """The row that a stateless or unseen client finds: a new one, personalized.

    Args:
      algorithm: gives the start and the personalization.
      personalization: how much of it.
      max_size: training examples of the largest client.
    """

    def row_of(state, data, client):
        key = jax.random.fold_in(stream(state.key, "evaluate", state.round), client)
        context = client_context(data, client, state.round, state.key, jnp.ones(()))
        row = algorithm.client_init(stream(key, "init"), state.server, context.traits)
        batches = gather_one(
            data,
            "train",
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
    *,
    split: str,
    batch_size: int,
    max_size: int,
    chunk: int,
) -> Callable[[SimulationState, DeviceData, Array], dict[str, PyTree]]:
    """The function that evaluates clients.

    Args:
      algorithm: what a client's own model is.
      metrics: by name.
      row_of: what a client predicts with.
      split: the split that is predicted.
      batch_size: examples predicted at once.
      max_size: examples of the split's largest client.
      chunk: clients side by side.

    Returns:
      ``(state, data, ids [n]) -> {metric: [n], "examples": [n], "mixture": [n, C] or {prefix:
      [n, C]}}``.
    """

    def one(state, data, client):
        row = row_of(state, data, client)
        batching = Batching(batch_size, shuffle=False)
        batches = gather_one(data, split, client, state.key, batching, max_size=max_size)

        def sums_of(batch: Batch):
            outputs = algorithm.predict(state.server, row, batch)
            return {name: metric.from_outputs(outputs, batch) for name, metric in metrics.items()}

        def add(total, batch):
            new = sums_of(batch)
            return {name: m.merge(total[name], new[name]) for name, m in metrics.items()}, None

        first = jax.tree.map(lambda leaf: leaf[0], batches)
        others = jax.tree.map(lambda leaf: leaf[1:], batches)
        sums, _ = jax.lax.scan(add, sums_of(first), others)
        report: dict[str, Any] = {name: m.compute(sums[name]) for name, m in metrics.items()}
        report["examples"] = jnp.sum(batches["mask"], dtype=jnp.int32)
        if algorithm.mixture is not None:
            report["mixture"] = algorithm.mixture(state.server, row)
        return report

    def evaluate(state, data, ids):
        count = ids.shape[0]
        together = min(chunk, count)
        filler = jnp.broadcast_to(ids[-1:], (padded(count, together) - count,))
        chunks = jnp.concatenate([ids, filler]).reshape(-1, together)
        reports = jax.lax.map(jax.vmap(lambda client: one(state, data, client)), chunks)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], reports)

    return evaluate
