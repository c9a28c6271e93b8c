"""Every client's own model on its own data."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching
from floral.metrics.base import Metric
from floral.simulate.clients import own_batches, splits_of_holdings
from floral.simulate.evaluation.personalize import ModelOf
from floral.simulate.shard import on_each_device
from floral.simulate.state import parts_of_state
from floral.typing import PyTree

__all__ = ["make_evaluate"]


def make_evaluate(
    algorithm: FederatedAlgorithm,
    metrics: Mapping[str, Metric],
    model_of: ModelOf,
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
      model_of: what a client predicts with.
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
        server, row = model_of(state, data, trained, place, client)
        batching = Batching(batch_size, shuffle=False)
        batches = own_batches(held, place, client, state.key, batching, max_size=max_size)

        def sums_of(index: Any) -> dict[str, PyTree]:
            batch = batches.step(index)
            outputs = algorithm.predict(server, row, batch)
            return {name: metric.from_outputs(outputs, batch) for name, metric in metrics.items()}

        def add(index, total):
            new = sums_of(index)
            return {name: m.merge(total[name], new[name]) for name, m in metrics.items()}

        live = jnp.sum(jnp.any(batches.mask, axis=1), dtype=jnp.int32)
        sums = jax.lax.fori_loop(1, live, add, sums_of(0))
        report: dict[str, Any] = {name: m.compute(sums[name]) for name, m in metrics.items()}
        report["examples"] = jnp.sum(batches.mask, dtype=jnp.int32)
        if algorithm.mixture is not None:
            report["mixture"] = algorithm.mixture(server, row)
        return report

    def evaluate_share(state, data, ids, trained, held):
        num_clients = data.offsets["train"].shape[0] - 1
        places = jnp.arange(ids.shape[0])

        def turn(place):
            return one(state, data, trained, held, place, ids[place])

        def turn_if_any(place):
            """An empty place, whose report nobody reads, costs nothing."""
            struct = jax.eval_shape(turn, place)
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), struct)
            return jax.lax.cond(ids[place] < num_clients, turn, lambda _: nothing, place)

        together = min(chunk, ids.shape[0])
        if together == 1:
            return jax.lax.map(turn_if_any, places)
        reports = jax.lax.map(jax.vmap(turn), places.reshape(-1, together))
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
