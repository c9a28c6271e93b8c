"""Whether model, loss, metrics and data fit: traced before anything is compiled."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from floral import check
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching, FederatedDataset, as_batches
from floral.data import batching as make_batching
from floral.errors import SpecError
from floral.messages import Context
from floral.metrics import Metric, from_per_example
from floral.models.frameworks.given import check_model
from floral.simulate.checks.traced import (
    Seen,
    at_sizes,
    shapes,
    sizes_apart,
    struct_of,
    traced,
    with_rows,
)
from floral.simulate.checks.trainable import check_params, check_stats
from floral.simulate.clients import DeviceData
from floral.simulate.evaluation.personalize import Personalization
from floral.simulate.machine.execution import Execution
from floral.simulate.machine.execution import execution as make_execution
from floral.simulate.sampling import Sampler
from floral.typing import Batch, Key, PyTree
from floral.uplink import Reducer, Uplink

__all__ = [
    "as_metrics",
    "check_loss",
    "check_metrics",
    "check_outputs",
    "check_parts",
    "outputs_of_clients",
    "outputs_of_model",
    "start_of_model",
]

_RESERVED = ("client", "examples", "mixture")  # columns of every evaluation


def check_parts(
    algorithm: Any,
    dataset: Any,
    cohort: Any,
    batching: Any,
    uplink: Any,
    execution: Any,
    personalization: Any,
    data: Any,
) -> None:
    """Raises SpecError unless each part of a simulator is of its type, or None for a default."""
    check.instance_of(
        FederatedAlgorithm, "fl.algorithms.fedavg(model, loss, local)", algorithm=algorithm
    )
    check.boolean(**{"algorithm.global_model": algorithm.global_model})
    check.instance_of(
        FederatedDataset,
        "fl.data.federate(source, partition=...) or fl.data.from_clients(clients)",
        dataset=dataset,
    )
    if isinstance(uplink, Reducer):
        raise SpecError("uplink: got a Reducer; pass fl.uplink.uplink(reduce=...) of it")
    for kind, made_by, part in (
        (Sampler, "fl.simulate.fixed(size=10)", {"cohort": cohort}),
        (Batching, "fl.data.batching(batch_size=32)", {"batching": batching}),
        (Uplink, "fl.uplink.uplink()", {"uplink": uplink}),
        (Execution, "fl.simulate.execution()", {"execution": execution}),
        (Personalization, "fl.simulate.personalization()", {"personalization": personalization}),
        (DeviceData, "another simulator's data", {"data": data}),
    ):
        check.instance_of(kind, made_by, **{n: v for n, v in part.items() if v is not None})
    for how in (batching, personalization and personalization.batching):
        if how is not None:
            make_batching(**how._asdict())  # one that was not made by its factory
    if execution is not None:
        make_execution(**execution._asdict())


def start_of_model(model: Any, batch: Batch) -> tuple[PyTree, PyTree]:
    """Structs of a model's params and statistics.

    Args:
      model: any model.
      batch: a batch of the data, of any size.

    Raises:
      SpecError: unless it is a ``Model`` whose init gives ``(params, stats)``.
    """
    check_model(model)

    def init(key: Key, batch: Batch) -> Any:
        made = model.init(key, batch)
        if isinstance(made, tuple) and len(made) == 2:
            check_params(made[0])  # here, before JAX refuses what is no array, without its path
            check_stats(made[1])
        return made

    made = struct_of("model.init", "(key, batch)", init, jax.random.key(0), batch)
    if not isinstance(made, tuple) or len(made) != 2:
        raise SpecError(
            "model.init must give a pair (params, stats), with () for no statistics, got "
            f"{check.described(made)}"
        )
    return made


def outputs_of_model(model: Any, batch: Batch) -> list[Seen]:
    """What a model gives in training, at two sizes of a batch.

    Args:
      model: any model.
      batch: a batch of the data, of any size.

    Raises:
      SpecError: unless its apply gives ``(outputs, stats)``, outputs with one row an example and
        statistics of the shapes that it was given, and as ``start_of_model``.
    """
    params, stats = start_of_model(model, batch)
    key = jax.random.key(0)

    def apply(params, stats, batch):
        return model.apply(params, stats, batch, key=key, train=True)

    sizes = sizes_apart((params, stats, batch))
    sized = with_rows(batch, sizes[0])
    pair = struct_of("model.apply", "(params, stats, batch)", apply, params, stats, sized)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise SpecError(
            "model.apply must give a pair (outputs, stats), the stats as they were given where "
            f"there are none to keep, got {check.described(pair)}"
        )
    outputs, after = pair
    if shapes(after) != shapes(stats):
        raise SpecError(
            "model.apply must give statistics of the shapes and dtypes that it was given, expected "
            f"{shapes(stats)}, got {shapes(after)}"
        )
    return at_sizes("model", outputs, sized, sizes)


def outputs_of_clients(
    algorithm: FederatedAlgorithm, server: PyTree, context: Context, seen: list[Seen]
) -> list[Seen]:
    """What a client's own model predicts, at the same two sizes.

    Args:
      algorithm: whose ``predict`` is traced.
      server: structs of the server's state.
      context: structs of one client's context.
      seen: as ``outputs_of_model`` gives it.
    """
    batch = seen[0].batch

    def predict(key, server, context, batch):
        row = algorithm.client_init(key, server, context.traits)
        if not jax.tree.leaves(row):
            batches = as_batches(jax.tree.map(lambda leaf: leaf[None], batch))
            row = algorithm.personalize(key, server, row, batches, context)
        return algorithm.predict(server, row, batch)

    outputs = jax.eval_shape(predict, jax.random.key(0), server, context, batch)
    return at_sizes("algorithm.predict", outputs, batch, [one.rows for one in seen])


def check_outputs(seen: list[Seen], num_classes: int | None) -> None:
    """Raises SpecError for outputs of several numbers that are fewer than the classes.

    One output an example may be a loss's own idea of classes (a logit of two, a rank of many).
    """
    shape = getattr(seen[0].outputs, "shape", ())
    if num_classes is not None and len(shape) > 1 and 1 < shape[-1] < num_classes:
        raise SpecError(
            f"model: it has {shape[-1]} outputs, the data have {num_classes} classes; give it "
            f"{num_classes} outputs, or the data num_classes=None if these are no logits"
        )


def check_loss(loss: Callable[..., Any], seen: list[Seen]) -> None:
    """Raises SpecError unless the loss gives one float an example.

    Args:
      loss: ``(outputs, batch) -> [B]``.
      seen: outputs and batches of two sizes.
    """
    for outputs, batch, rows in seen:
        value = traced("loss", loss, outputs, batch, rows)
        check.per_example(value, rows, what="loss", floats=True)


def as_metrics(metrics: Any) -> dict[str, Metric]:
    """Metrics by name; a plain function is the mean over examples of what it gives.

    Raises:
      SpecError: for what is neither, a factory that was not called, and names of other columns.
    """
    if not isinstance(metrics, Mapping):
        raise SpecError(
            "metrics must be a mapping of names, as {'accuracy': fl.metrics.accuracy()}, got "
            f"{check.described(metrics)}"
        )
    return {name: _as_metric(name, given) for name, given in metrics.items()}


def check_metrics(metrics: Mapping[str, Metric], seen: list[Seen]) -> None:
    """Raises SpecError unless each metric's sums are of one shape and dtype for every batch.

    Args:
      metrics: by name.
      seen: outputs and batches of two sizes.
    """
    for name, metric in metrics.items():
        what = f"metrics.{name}"
        first, second = (
            traced(what, metric.from_outputs, outputs, batch, rows) for outputs, batch, rows in seen
        )
        if shapes(first) != shapes(second):
            sizes = [tuple(leaf.shape) for leaf in jax.tree.leaves(first)]
            raise SpecError(
                f"{what}: its sums must not depend on the size B of a batch, got "
                f"{', '.join(check.shown(size, (seen[0].rows,)) for size in sizes)}; use "
                "fl.metrics.from_per_example for one number an example"
            )
        merged = struct_of(f"{what}.merge", "(sums, sums)", metric.merge, first, first)
        if shapes(merged) != shapes(first):
            raise SpecError(
                f"{what}: merge must keep the shapes and dtypes of the sums, expected "
                f"{shapes(first)}, got {shapes(merged)}"
            )
        struct_of(f"{what}.compute", "(sums)", metric.compute, first)


def _as_metric(name: Any, given: Any) -> Metric:
    if not isinstance(name, str) or not name:
        raise SpecError(f"metrics: expected names, got {check.brief(name)}")
    if name in _RESERVED:
        raise SpecError(
            f"metrics.{name}: every evaluation has a column of this name; choose another"
        )
    if isinstance(given, Metric):
        return given
    expected = (
        f"metrics.{name} must be a Metric, as fl.metrics.accuracy(), or a function of (outputs, "
        f"batch) that gives one number an example, got {check.described(given)}"
    )
    if not callable(given):
        raise SpecError(expected)
    if not check.takes(2, given):
        raise SpecError(f"{expected}; call it: {getattr(given, '__name__', name)}()")
    function: Any = given
    return from_per_example(function)
