"""The simulator: an algorithm, a population and a walk, compiled.

This is the layer for a user who keeps his own loop::

    simulator = make_simulator(algorithm, model, dataset, metrics={"accuracy": accuracy()})
    state = simulator.init(jax.random.key(0))
    state, metrics = simulator.round(state)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floral import check, tree
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching, FederatedDataset
from floral.errors import SpecError
from floral.metrics import Metric
from floral.models import Model
from floral.random import stream
from floral.simulate.clients import DeviceData, client_context, on_device
from floral.simulate.costs import Costs, costs_of, turn_structs
from floral.simulate.evaluate import Personalization, kept_row, make_evaluate, new_row
from floral.simulate.round import make_round
from floral.simulate.sampling import Sampler, full
from floral.simulate.state import SimulationState
from floral.simulate.walk import Walk, chunk_size
from floral.typing import Array, Key, Params, PyTree
from floral.uplink import Uplink
from floral.uplink import uplink as make_uplink

__all__ = ["Simulator", "make_simulator", "sample_batch"]

_EVALUATED_TOGETHER = 16


class Simulator(NamedTuple):
    """A population of clients under one algorithm.

    Attributes:
      init: ``(key, params=None) -> SimulationState``; params replace the model's own start.
      round: ``(state) -> (state, metrics)``, compiled; metrics are sums and counts.
      evaluate: ``(state, split="test", clients=None) -> {"client": [n], metric: [n], ...}``, each
        client's own model on its own data; clients that keep nothing, and unseen ones,
        personalize first.
      client: ``(state, client id) -> client state``, personalized where need be.
      predict: ``(state, client id, x [B, ...]) -> outputs`` of that client's own model.
      export: ``(state, client id) -> params`` of that model as one plain params tree.
      lower: ``(state or its structs) -> jax.stages.Lowered`` of a round, to compile and inspect.
      costs: bytes and parameters for each client and round.
      chunk: clients side by side in a round.
      data: the population on the device, which another method's simulator may share.
    """

    init: Callable[..., SimulationState]
    round: Callable[[SimulationState], tuple[SimulationState, dict[str, Array]]]
    evaluate: Callable[..., dict[str, Any]]
    client: Callable[[SimulationState, int], PyTree]
    predict: Callable[[SimulationState, int, Any], Any]
    export: Callable[[SimulationState, int], Params]
    lower: Callable[[SimulationState], Any]
    costs: Costs
    chunk: int
    data: DeviceData


def sample_batch(dataset: FederatedDataset, *, size: int = 2) -> dict[str, Array]:
    """A batch of zeros with the shapes and dtypes of the training data; ``mask`` all True.

    Args:
      dataset: whose shapes.
      size: examples in the batch.
    """
    examples = dataset.splits["train"].examples
    batch = {
        name: jnp.zeros((size, *array.shape[1:]), array.dtype) for name, array in examples.items()
    }
    return {**batch, "mask": jnp.ones((size,), bool)}


def make_simulator(
    algorithm: FederatedAlgorithm,
    model: Model,
    dataset: FederatedDataset,
    *,
    metrics: Mapping[str, Metric],
    cohort: Sampler | None = None,
    batching: Batching | None = None,
    uplink: Uplink | None = None,
    walk: Walk | None = None,
    personalization: Personalization | None = None,
    evaluation_batch: int = 256,
    data: DeviceData | None = None,
) -> Simulator:
    """Compiles an algorithm over a population.

    Args:
      algorithm: what clients and server do.
      model: gives the starting params and statistics.
      dataset: the population; clients marked unseen are never sampled.
      metrics: what an evaluation reports, by name.
      cohort: who takes part in a round; everyone if None.
      batching: how a client's examples become batches; one epoch in batches of 32 if None.
      uplink: what happens to updates on their way; a weighted mean if None.
      walk: how clients are executed; automatic if None.
      personalization: what unseen and stateless clients do before they predict; 20 steps if None.
      evaluation_batch: examples a client predicts at once.
      data: the dataset on the device, where another simulator has put it already.

    Raises:
      SpecError: for parts that do not fit; shapes are traced here, before anything is compiled.
    """
    cohort = full() if cohort is None else cohort
    batching = Batching(batch_size=32) if batching is None else batching
    uplink = make_uplink() if uplink is None else uplink
    if personalization is None:
        personalization = Personalization(Batching(batching.batch_size, steps=20))
    check.positive_int(evaluation_batch=evaluation_batch)
    if dataset.unseen.all():
        raise SpecError("every client is marked unseen; at least one must train")
    if algorithm.check_traits is not None:
        algorithm.check_traits(dataset.traits)

    data = on_device(dataset) if data is None else data
    batch = sample_batch(dataset)
    max_sizes = {name: split.max_size for name, split in dataset.splits.items()}
    capacity = cohort.capacity(data.training.shape[0])
    server, server_struct = _server_init(algorithm, model, batch)
    zero = jnp.zeros((), jnp.int32)
    context = client_context(data, zero, zero, jax.random.key(0), jnp.ones(()))
    download, upload = turn_structs(algorithm, server_struct, context, batch, batching)

    @jax.jit
    def init(key: Key, params: Params | None = None) -> SimulationState:
        return _first_state(algorithm, uplink, server(key, params), data, upload.update, key)

    params_struct, _ = jax.eval_shape(model.init, jax.random.key(0), batch)
    state_struct = jax.eval_shape(init, jax.random.key(0))
    costs = costs_of(
        state_struct,
        download,
        upload,
        model_parameters=tree.num_parameters(params_struct),
    )
    chunk = chunk_size(
        Walk() if walk is None else walk,
        capacity,
        own_weights=costs.uploaded_parameters > costs.model_parameters / 2,
        backend=jax.default_backend(),
    )
    take_round = jax.jit(
        make_round(algorithm, uplink, cohort, batching, max_size=max_sizes["train"], chunk=chunk)
    )
    stateless = not jax.tree.leaves(state_struct.table["client"])
    anew = dataset.unseen | stateless
    find_row = new_row(algorithm, personalization, max_size=max_sizes["train"])
    row_of = {False: jax.jit(kept_row), True: jax.jit(find_row)}
    evaluators: dict[tuple[str, bool], Callable[..., Any]] = {}

    def evaluate_some(state: SimulationState, split: str, personalize: bool, ids: np.ndarray):
        if (split, personalize) not in evaluators:
            evaluators[split, personalize] = jax.jit(
                make_evaluate(
                    algorithm,
                    metrics,
                    find_row if personalize else kept_row,
                    split=split,
                    batch_size=min(evaluation_batch, max(1, max_sizes[split])),
                    max_size=max_sizes[split],
                    chunk=_EVALUATED_TOGETHER,
                )
            )
        report = evaluators[split, personalize](state, data, jnp.asarray(ids, jnp.int32))
        return {"client": ids, **jax.tree.map(np.asarray, report)}

    def evaluate(
        state: SimulationState, split: str = "test", clients: Sequence[int] | None = None
    ) -> dict[str, Any]:
        check.one_of(dataset.splits, split=split)
        ids = _known_ids(np.arange(dataset.num_clients) if clients is None else clients, dataset)
        groups = [(flag, ids[anew[ids] == flag]) for flag in (False, True)]
        reports = [evaluate_some(state, split, flag, some) for flag, some in groups if some.size]
        joined = jax.tree.map(lambda *columns: np.concatenate(columns), *reports)
        order = np.argsort(joined["client"], kind="stable")
        return jax.tree.map(lambda column: column[order], joined)

    def client(state: SimulationState, client_id: int) -> PyTree:
        (known,) = _known_ids([client_id], dataset)
        return row_of[bool(anew[known])](state, data, jnp.asarray(known, jnp.int32))

    def predict(state: SimulationState, client_id: int, x: Any) -> Any:
        inputs = jnp.asarray(x)
        given = {"x": inputs, "mask": jnp.ones((inputs.shape[0],), bool)}
        return algorithm.predict(state.server, client(state, client_id), given)

    def export(state: SimulationState, client_id: int) -> Params:
        if algorithm.export is None:
            raise SpecError(
                "this algorithm mixes outputs, not parameters: there is no single model to "
                "export; use predict"
            )
        return algorithm.export(state.server, client(state, client_id))

    return Simulator(
        init,
        lambda state: take_round(state, data),
        evaluate,
        client,
        predict,
        export,
        lambda state: take_round.lower(state, data),
        costs,
        chunk,
        data,
    )


def _server_init(algorithm: FederatedAlgorithm, model: Model, batch: dict[str, Array]):
    """The server's start from a key and perhaps given params, and its structs."""

    def server(key: Key, params: Params | None = None) -> Any:
        own, stats = model.init(stream(key, "model"), batch)
        if params is not None:
            check.same_structure(own, params, what="params")
        return algorithm.init(stream(key, "algorithm"), own if params is None else params, stats)

    return server, jax.eval_shape(server, jax.random.key(0))


def _first_state(
    algorithm: FederatedAlgorithm,
    uplink: Uplink,
    server: Any,
    data: DeviceData,
    update_struct: PyTree,
    key: Key,
) -> SimulationState:
    """The state before the first round; every client's row is drawn from its own key."""
    num_clients = data.splits["train"].offsets.shape[0] - 1
    clients_key = stream(key, "clients")

    def row(client, traits):
        return algorithm.client_init(jax.random.fold_in(clients_key, client), server, traits)

    update = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), update_struct)
    uplink_rows = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num_clients, *jnp.shape(leaf))),
        uplink.client.init(update),
    )
    return SimulationState(
        round=jnp.zeros((), jnp.int32),
        key=key,
        server=server,
        table={
            "client": jax.vmap(row)(jnp.arange(num_clients), data.traits),
            "uplink": uplink_rows,
        },
        uplink={"reduce": uplink.reduce.init(update), "server": uplink.server.init(update)},
    )


def _known_ids(clients: Any, dataset: FederatedDataset) -> np.ndarray:
    ids = np.asarray(clients)
    if ids.size == 0 or ids.min() < 0 or ids.max() >= dataset.num_clients:
        raise SpecError(f"clients must be ids from 0 to {dataset.num_clients - 1}, got {clients!r}")
    return ids
