"""From a checked config to the parts of an experiment: strings and files end here."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from floral.adaptors import AdaptedModel, Plan, adapted, make_plan
from floral.adaptors.suggest import suggested_rules
from floral.algorithms import FederatedAlgorithm
from floral.config import areas as places
from floral.config.areas import SCHEMA
from floral.config.early_stopping import check_patience
from floral.config.measures import (
    check_one_number,
    loss_of,
    metrics_of,
    smaller_is_better,
)
from floral.config.schema.arguments import Call
from floral.config.schema.signature import takes_wiring
from floral.config.sections import Checkpointing, Evaluation, LocalTraining, Restarts, Stopping
from floral.data import FederatedDataset
from floral.display import as_html
from floral.errors import ConfigError
from floral.mixtures import Mixing, softmax
from floral.models import Model, augmented
from floral.processes.agreement import check_devices
from floral.simulate import Execution, Simulator, make_simulator, sample_batch
from floral.simulate.checks.fit import start_of_model
from floral.simulate.machine.probe import Timings, untimed

__all__ = ["Experiment", "build", "build_dataset"]


class Experiment(NamedTuple):
    """The parts of one method's experiment, ready to run.

    Attributes:
      config: the method's whole config.
      dataset: the population.
      model: the network.
      plan: its adaptors; None if the config adapts nothing.
      adapted: the model with its adaptors; None likewise.
      algorithm: the method.
      simulator: the method over the population, to be compiled at its first round.
      evaluation: when clients are evaluated.
      checkpointing: when the state is saved.
      rounds: how many rounds are trained.
      restarts: how many starts are tried before; None for one alone.
      stopping: when the run ends before its last round; None for never.
      smaller_is_better: the metrics whose largest values are the worst.
    """

    config: Mapping[str, Any]
    dataset: FederatedDataset
    model: Model
    plan: Plan | None
    adapted: AdaptedModel | None
    algorithm: FederatedAlgorithm
    simulator: Simulator
    evaluation: Evaluation
    checkpointing: Checkpointing
    rounds: int
    restarts: Restarts | None
    smaller_is_better: frozenset[str] = frozenset({"loss"})
    stopping: Stopping | None = None

    def __repr__(self) -> str:
        kind = self.config["algorithm"]["kind"]
        return f"Experiment({kind}: {self.rounds} rounds, {self.dataset!r}, {self.simulator!r})"

    def _repr_html_(self) -> str:
        return as_html(
            f"{self.config['algorithm']['kind']}: {self.rounds} rounds\n"
            f"{self.dataset.describe()}\n{self.simulator!r}"
        )


def build_dataset(config: Mapping[str, Any]) -> FederatedDataset:
    """The population of a method's config.

    Raises:
      DataError: for data that cannot be read or trained on.
      ConfigError: for settings that a factory refuses.
    """
    return SCHEMA.construct(places.DATA, config["data"])


def build(
    config: Mapping[str, Any],
    *,
    like: "Experiment | None" = None,
    chunk: int | None = None,
    donate: bool = False,
    timings: Timings = untimed,
) -> Experiment:
    """Every part of a method's experiment; shapes are traced, nothing is trained or compiled.

    Args:
      config: one method's whole config, as ``methods`` gives it.
      like: another experiment; where its data are this one's too, they are shared.
      chunk: clients side by side, as decided when the run began; None decides now.
      donate: whether a round may take the memory of the state that it is given.
      timings: what the rounds of a timed walk take; without them the walk is that of auto.

    Raises:
      FloralError: naming the part that does not fit.
    """
    check_devices()
    shared = like if like is not None and _shares_data(like.config, config) else None
    dataset = build_dataset(config) if shared is None else shared.dataset
    loss = loss_of(config["loss"], dataset)
    local: LocalTraining = SCHEMA.construct(places.LOCAL, config["local"])
    model = _model(config, dataset)
    if local.augment is not None:
        model = augmented(model, local.augment)
    batch = sample_batch(dataset)
    params, stats = start_of_model(model, batch)
    plan = adapted_model = None
    if config["adaptors"]:
        rules = [
            SCHEMA.construct(places.ADAPTOR, mapping, where=f"adaptors.{index}")
            for index, mapping in enumerate(config["adaptors"])
        ]
        plan = make_plan(rules, params)
        adapted_model = adapted(model, plan, batch, params=params, stats=stats)
    wiring = {
        "model": model,
        "adapted": adapted_model,
        "loss": loss,
        "local": local.solver,
        "mixing": _mixing(config),
        "params": params,
        "sample": batch,
        "total_examples": int(dataset.splits["train"].sizes[dataset.seen].sum()),
    }
    algorithm = _algorithm(config, wiring)
    evaluation: Evaluation = SCHEMA.construct(places.EVALUATE, config["evaluate"] or {})
    metrics = metrics_of(config, loss, dataset)
    execution: Execution = SCHEMA.construct(places.EXECUTION, config["execution"] or {})
    if chunk is not None:
        execution = execution._replace(walk="chunk", chunk=chunk, memory=None)
    simulator = make_simulator(
        algorithm,
        model,
        dataset,
        metrics=metrics,
        cohort=SCHEMA.construct(places.COHORT, config["cohort"] or {"kind": "full"}),
        batching=local.batching,
        uplink=SCHEMA.construct(places.UPLINK, config["uplink"] or {}),
        execution=execution,
        personalization=evaluation.personalization,
        evaluation_batch=evaluation.batch_size,
        data=None if shared is None else shared.simulator.data,
        donate=donate,
        timings=timings,
    )
    check_one_number(metrics, model.apply, params, stats, batch)
    return Experiment(
        config=config,
        dataset=dataset,
        model=model,
        plan=plan,
        adapted=adapted_model,
        algorithm=algorithm,
        simulator=simulator,
        evaluation=evaluation,
        checkpointing=SCHEMA.construct(places.CHECKPOINT, config["checkpoint"] or {}),
        rounds=config["rounds"],
        restarts=_restarts(config, dataset),
        smaller_is_better=smaller_is_better(config, evaluation.smaller_is_better),
        stopping=_stopping(config, dataset, every=evaluation.every),
    )


def _shares_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both are of the same data, in the same place."""
    return all(one[area] == other[area] for area in ("data", "execution"))


def _model(config: Mapping[str, Any], dataset: FederatedDataset) -> Model:
    (call,) = SCHEMA.bind(places.MODEL, config["model"])
    targets = dataset.splits["train"].examples["y"].shape[1:]
    outputs = dataset.num_classes or int(targets[-1] if targets else 1)
    return call(outputs) if takes_wiring(call.factory) else call()


def _restarts(config: Mapping[str, Any], dataset: FederatedDataset) -> Restarts | None:
    if config["restarts"] is None:
        return None
    asked: Restarts = SCHEMA.construct(places.RESTARTS, config["restarts"])
    if asked.rounds > config["rounds"]:
        raise ConfigError(
            f"restarts.rounds: expected at most the run's {config['rounds']}, got {asked.rounds}"
        )
    _check_validation(dataset, "restarts: starts are chosen")
    return asked


def _stopping(
    config: Mapping[str, Any], dataset: FederatedDataset, *, every: int
) -> Stopping | None:
    if config["stop"] is None:
        return None
    _check_validation(dataset, "stop: a run is stopped")
    asked: Stopping = SCHEMA.construct(places.STOP, config["stop"])
    check_patience(asked, every=every, rounds=config["rounds"])
    return asked


def _check_validation(dataset: FederatedDataset, decided: str) -> None:
    validation = dataset.splits.get("validation")
    if validation is None or not validation.sizes[dataset.seen].any():
        raise ConfigError(
            f"{decided} by validation examples, and clients that train have none: set "
            "data.split.validation"
        )


def _mixing(config: Mapping[str, Any]) -> Mixing:
    if config["mixing"] is None:
        return softmax()
    return SCHEMA.construct(places.MIXING, config["mixing"])


def _algorithm(config: Mapping[str, Any], wiring: Mapping[str, Any]) -> FederatedAlgorithm:
    (call,) = SCHEMA.bind(places.ALGORITHM, config["algorithm"])
    return call(*(_wire(call, name, kind, wiring) for name, kind in _positional(call)))


def _positional(call: Call) -> list[tuple[str, Any]]:
    """The names and annotations of what a factory takes positionally."""
    signature = inspect.signature(call.factory, eval_str=True)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        (name, parameter.annotation)
        for name, parameter in signature.parameters.items()
        if parameter.kind in kinds
    ]


def _wire(call: Call, name: str, annotation: Any, wiring: Mapping[str, Any]) -> Any:
    if annotation is AdaptedModel:
        name = "adapted"
    if name not in wiring:
        raise ConfigError(
            f"{call.where}: {call.factory.__name__} asks for {name!r}, which a config does not "
            f"have; it has {', '.join(wiring)}"
        )
    if wiring[name] is None:
        raise ConfigError(
            f"adaptors: {call.factory.__name__} needs at least one; rules that fit this model: "
            f"{suggested_rules(wiring['params'])}"
        )
    return wiring[name]
