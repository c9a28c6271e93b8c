"""A simulator from its parts: an algorithm, a population and the devices."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from floral import check, tree
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching, FederatedDataset
from floral.errors import SpecError
from floral.metrics import Metric
from floral.models import Model
from floral.simulate.checks.fit import (
    as_metrics,
    check_loss,
    check_metrics,
    check_outputs,
    check_parts,
    outputs_of_clients,
    outputs_of_model,
    start_of_model,
)
from floral.simulate.checks.fit_uplink import check_sampler, check_uplink, room_of
from floral.simulate.checks.padding import check_padding
from floral.simulate.checks.reported import check_reported, reported_by_reducer
from floral.simulate.checks.trainable import check_aggregate, check_local_steps
from floral.simulate.clients import DeviceData, client_context, on_devices
from floral.simulate.evaluation.averaging import make_averaging_gap
from floral.simulate.evaluation.diagnosis import Diagnosis
from floral.simulate.evaluation.evaluator import Evaluator
from floral.simulate.evaluation.own_models import OwnModels
from floral.simulate.evaluation.personalize import Personalization, who_personalizes
from floral.simulate.evaluation.personalize import personalization as make_personalization
from floral.simulate.evaluation.reach import Reach
from floral.simulate.feed import Feed
from floral.simulate.machine.costs import costs_of, trace_turn
from floral.simulate.machine.cpu_kernels import with_fast_kernels
from floral.simulate.machine.execution import (
    Execution,
    chosen_devices,
    chunk_size,
    evaluated_together,
    stays_on_host,
)
from floral.simulate.machine.memory import Memory, largest_chunk, predicted
from floral.simulate.machine.probe import Timings, make_probe
from floral.simulate.sampling import Sampler, full
from floral.simulate.shard import make_mesh, replicated, share_of
from floral.simulate.simulator import Simulator
from floral.simulate.start import make_start, server_start
from floral.simulate.trainer import Trainer
from floral.typing import Array, Loss
from floral.uplink import Uplink
from floral.uplink import uplink as make_uplink

__all__ = ["make_simulator", "sample_batch"]


def sample_batch(dataset: FederatedDataset, *, size: int = 2) -> dict[str, Array]:
    """The first training examples; ``mask`` all True. Zeros only where there are none.

    Models are traced with it, and their parameters initialized: a model whose start depends on the
    values of its inputs, or that is undefined at zero, needs real ones.

    Args:
      dataset: the population.
      size: examples in the batch; they are repeated where there are fewer.
    """
    check.instance_of(FederatedDataset, "fl.data.from_clients(clients)", dataset=dataset)
    check.positive_int(size=size)
    size = int(size)
    examples = dataset.splits["train"].examples

    def first(array: Any) -> Array:
        rows = np.asarray(array[:size])
        if not len(rows):
            return jnp.zeros((size, *array.shape[1:]), array.dtype)
        return jnp.asarray(rows[np.arange(size) % len(rows)])

    batch = {name: first(array) for name, array in examples.items()}
    return {**batch, "mask": jnp.ones((size,), bool)}


def make_simulator(
    algorithm: FederatedAlgorithm,
    model: Model,
    dataset: FederatedDataset,
    *,
    metrics: Mapping[str, Metric | Loss],
    cohort: Sampler | None = None,
    batching: Batching | None = None,
    uplink: Uplink | None = None,
    execution: Execution | None = None,
    personalization: Personalization | None = None,
    evaluation_batch: int = 256,
    data: DeviceData | None = None,
    donate: bool = False,
    timings: Timings | None = None,
) -> Simulator:
    """Compiles an algorithm over a population.

    Args:
      algorithm: what clients and server do.
      model: gives the starting params and statistics.
      dataset: the population; clients marked unseen are never sampled.
      metrics: what an evaluation reports, by name; a plain function of (outputs, batch) that gives
        one number an example is reported as its mean.
      cohort: who takes part in a round; everyone if None.
      batching: how a client's examples become batches; one epoch in batches of 32 if None.
      uplink: what happens to updates on their way; a weighted mean if None.
      execution: how clients are executed; automatic if None.
      personalization: what unseen and stateless clients do before they predict; 20 steps if None.
      evaluation_batch: examples a client predicts at once.
      data: the dataset on the devices, where another simulator has put it already.
      donate: whether a round may take the memory of the state that it is given, which is then
        gone; saves a copy of the server and of every client's row.
      timings: what the rounds of a timed walk take; measured here if None. Where it gives none,
        the walk is that of auto.

    Raises:
      SpecError: for parts that do not fit; shapes are traced here, before anything is compiled.
    """
    check_parts(algorithm, dataset, cohort, batching, uplink, execution, personalization, data)
    named = as_metrics(metrics)
    cohort = full() if cohort is None else cohort
    batching = Batching(batch_size=32) if batching is None else batching
    uplink = make_uplink() if uplink is None else uplink
    fit = uplink.reduce.fit
    if fit is not None:
        uplink = uplink._replace(reduce=fit(algorithm.factored))
    execution = Execution() if execution is None else execution
    if personalization is None:
        personalization = make_personalization(batch_size=batching.batch_size)
    check.positive_int(evaluation_batch=evaluation_batch)
    check.boolean(donate=donate)
    if dataset.unseen.all():
        raise SpecError("every client is marked unseen; at least one must train")
    if algorithm.check_traits is not None:
        algorithm.check_traits(dataset.traits)

    mesh = make_mesh(chosen_devices(execution))
    on_host = stays_on_host(execution, dataset)
    data = on_devices(dataset, mesh, examples=not on_host) if data is None else data
    feed = Feed(dataset, mesh) if on_host else None
    batch = sample_batch(dataset)
    seen = outputs_of_model(model, batch)
    check_outputs(seen, dataset.num_classes)
    if algorithm.loss is not None:
        check_loss(algorithm.loss, seen)
    params_struct, stats_struct = start_of_model(model, batch)
    server = server_start(algorithm, model, batch)
    server_struct = jax.eval_shape(server, jax.random.key(0))
    zero = jnp.zeros((), jnp.int32)
    context = jax.eval_shape(
        lambda data: client_context(data, zero, zero, jax.random.key(0), jnp.ones(())), data
    )
    check_local_steps(algorithm, dataset, batching)
    check_metrics(named, outputs_of_clients(algorithm, server_struct, context, seen))
    given = {f"metrics.{name}": metric for name, metric in metrics.items()}
    if algorithm.loss is not None:
        given["loss"] = algorithm.loss
    four = sample_batch(dataset, size=4)
    check_padding(model, given, seen, four, (params_struct, stats_struct))
    steps = _mean_steps(dataset, batching)
    turn = trace_turn(algorithm, server_struct, context, batch, batching, steps=steps)
    check_aggregate(algorithm, server_struct, turn.upload, context)
    room = room_of(cohort, len(dataset.seen))
    check_sampler(cohort, population=len(dataset.seen), room=room)
    check_uplink(uplink, turn.upload, server_struct, room=room)
    check_reported(turn.metrics, reported_by_reducer(uplink, turn.upload, server_struct, room=room))
    start = make_start(algorithm, uplink, server, params_struct, turn.upload, execution, data, mesh)
    keeps_rows = start.new_table is not None
    costs = costs_of(start.struct, turn, model_parameters=tree.num_parameters(params_struct))
    convolves = turn.work.of_convolutions > 0
    backend = mesh.devices.flat[0].platform
    on_cpu = backend == "cpu"
    prepare = with_fast_kernels if on_cpu else _as_it_is
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)),
        start.struct,
    )

    @cache
    def trainer_of(chunk: int) -> Trainer:
        return Trainer(
            algorithm,
            uplink,
            cohort,
            batching,
            mesh,
            data,
            feed,
            start.struct,
            max_size=dataset.splits["train"].max_size,
            chunk=chunk,
            donate=donate,
            rows_on_host=keeps_rows,
            prepare=prepare,
        )

    def memory_of(trainer: Trainer) -> Memory:
        state, _, fetched = trainer.arguments(placed)
        return predicted(
            trainer.lower(placed).compile(),
            data,
            state,
            devices=len(mesh.local_devices),
            shared=on_cpu,
            cohort=fetched,
            host=start.in_memory,
        )

    share = share_of(room, mesh.size)
    memory = None if execution.memory is None else int(execution.memory * 2**30)

    def needed(chunk: int) -> int:
        return memory_of(trainer_of(chunk)).device

    by_rule = chunk_size(
        execution,
        share,
        own_weights=costs.uploaded_parameters > costs.model_parameters / 2,
        convolves=convolves,
        step_bytes=costs.product_bytes / max(1.0, steps),
        device=mesh.local_devices[0],
    )
    seconds: Mapping[int, float] = {}
    if execution.walk == "timed":
        probe = make_probe(
            trainer_of, needed, start.init, placed, share=share, memory=memory, mesh=mesh
        )
        seconds = probe.measure() if timings is None else timings(probe)
    if seconds:
        chunk = min(seconds, key=seconds.__getitem__)
    elif memory is None:
        chunk = by_rule
    else:
        chunk = largest_chunk(needed, share=by_rule if on_cpu else share, limit=memory)
    trainer = trainer_of(chunk)
    reach = Reach(
        algorithm,
        personalization,
        dataset,
        mesh,
        data,
        feed,
        start.struct,
        anew=who_personalizes(
            algorithm, personalization, dataset.unseen, start.struct, context, batch
        ),
        row_bytes=costs.client_state_bytes if keeps_rows else None,
        prepare=prepare,
    )
    evaluator = Evaluator(
        reach,
        named,
        batch_size=evaluation_batch,
        side_by_side=partial(evaluated_together, convolves=convolves, backend=backend),
        trained_together=chunk,
    )
    models = OwnModels(reach)
    return Simulator(
        start.init,
        trainer.round,
        trainer.rounds,
        evaluator.evaluate,
        Diagnosis(reach).diagnose,
        make_averaging_gap(reach, uplink, batching, chunk=chunk) if fit is None else None,
        models.client,
        models.predict,
        models.export,
        trainer.lower,
        lambda: memory_of(trainer),
        start.new_table,
        costs,
        room,
        chunk,
        mesh.size,
        data,
        seconds,
    )


def _mean_steps(dataset: FederatedDataset, batching: Batching) -> float:
    """Local steps of a training client in a round, on average."""
    if batching.steps is not None:
        return float(batching.steps)
    sizes = dataset.splits["train"].sizes[dataset.seen]
    return float(batching.epochs * np.mean(-(-sizes // batching.batch_size)))


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
