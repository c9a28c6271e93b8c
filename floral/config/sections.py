"""The top level of a config, and the small functions that its places need beyond the library's.

The signature of ``experiment`` is the schema of a whole config.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NewType

from floral import check
from floral.adaptors import Adaptor, Rule
from floral.algorithms import FederatedAlgorithm, LocalSolver
from floral.algorithms.toolbox.schedules import Schedule
from floral.data import (
    Augment,
    Batching,
    FederatedDataset,
    Partitioner,
    Shift,
    Source,
    batching,
    federate,
)
from floral.metrics import Metric
from floral.mixtures import Mixing
from floral.models import Model
from floral.simulate import Execution, Personalization, Sampler, personalization
from floral.typing import FileOrName, Seed
from floral.uplink import Uplink

__all__ = [
    "Checkpointing",
    "Evaluation",
    "LocalTraining",
    "LossName",
    "Restarts",
    "Stopping",
    "auto_loss",
    "checkpointing",
    "evaluation",
    "experiment",
    "local_training",
    "no_adaptor",
    "population",
    "restarts",
    "rule",
    "stop",
]


LossName = NewType("LossName", str)


class LocalTraining(NamedTuple):
    """How clients train, and on which batches."""

    solver: LocalSolver
    batching: Batching
    augment: Augment | None = None


class Evaluation(NamedTuple):
    """When clients are evaluated, what they may do before, and what some are asked beside."""

    every: int
    batch_size: int
    personalization: Personalization
    clients: int | None = None
    diagnose_clients: int = 64
    diagnose_examples: int = 16
    global_model: bool = False
    smaller_is_better: tuple[str, ...] = ()
    at_start: bool = False


class Checkpointing(NamedTuple):
    """When the whole state is saved, and how many saved states are kept."""

    every: int
    keep: int


class Stopping(NamedTuple):
    """After how many evaluations without a better validation score a run ends."""

    patience: int
    min_delta: float = 0.0


class Restarts(NamedTuple):
    """How many starts are tried, and for how many rounds each."""

    starts: int
    rounds: int


def experiment(
    *,
    rounds: int,
    data: FederatedDataset,
    model: Model,
    algorithm: FederatedAlgorithm,
    local: LocalTraining,
    seed: Seed = 0,
    loss: LossName = LossName("auto"),
    metrics: Mapping[str, Metric] | None = None,
    adaptors: Sequence[Rule] = (),
    mixing: Mixing | None = None,
    uplink: Uplink | None = None,
    cohort: Sampler | None = None,
    evaluate: Evaluation | None = None,
    checkpoint: Checkpointing | None = None,
    execution: Execution | None = None,
    start_from: FileOrName | None = None,
    restarts: Restarts | None = None,
    stop: Stopping | None = None,
    compare: Mapping[str, Any] | None = None,
    only: Sequence[str] | str | None = None,
) -> Mapping[str, Any]:
    """One experiment: a population, a model, a method, and how long it is trained.

    Args:
      rounds: how many rounds are trained.
      data: where examples come from and how they are dealt to clients.
      model: the network all clients share.
      algorithm: the federated method.
      local: how clients train in a round.
      seed: of everything random but the data, which may have a seed of their own.
      loss: what training minimises; auto is cross_entropy where there are classes. One's own is
        package.module:name, a function of (outputs, batch) that gives one number an example.
      metrics: what evaluations also report, by name, each with a kind; one's own is a Metric, or a
        function of (outputs, batch) that gives one number an example. The loss, and the accuracy
        where there are classes, are always there, and alone choose the best round. A summary is
        over the clients for which a metric is defined; its of_examples weights them by their
        examples, which of rmse, macro_f1 or auc is not the metric of all examples together.
      adaptors: which leaves of the model are adapted and how; the first match decides.
      mixing: how logits become mixtures; softmax by default.
      uplink: what happens to updates on their way to the server.
      cohort: who takes part in a round; everyone by default.
      evaluate: when clients are evaluated.
      checkpoint: when the whole state is saved.
      execution: how clients are executed; never changes meaning.
      start_from: the name of another run of the same comparison, or a run folder, whose last base
        and bank this run starts from.
      restarts: several starts are tried, and the one that validates best is trained from; one alone
        if null.
      stop: ends the run before its last round, once its validation score does not improve; never
        if null.
      compare: further methods by name, each with what it changes in this config; a method that is
        null is left out.
      only: which methods are run, by name: a list, or one text with commas; all if null.
    """
    return dict(locals())


def auto_loss() -> None:
    """The cross_entropy where there are classes, the squared_error where targets are numbers."""


def population(
    *,
    source: Source,
    partition: Partitioner | None = None,
    shift: Shift | None = None,
    split: Mapping[str, float] | str | None = None,
    keep: float = 1.0,
    unseen: int | float = 0,
    standardize: bool = False,
    seed: Seed | None = None,
) -> FederatedDataset:
    """The clients and their data.

    Args:
      source: where examples come from.
      partition: how examples are dealt to clients; kind natural deals them by a field of the
        source, as a user's id, whose words or numbers then name the clients.
      shift: how clients' data differ beyond that.
      split: the shares of each client's examples for validation and test, or the field of the
        source that says which split each example is of.
      keep: the share of each client's training examples that is kept.
      unseen: how many clients, or which share of them, never train.
      standardize: whether each channel of the features gets mean 0 and standard deviation 1, both
        taken over the training examples that are kept of the clients that train.
      seed: of the data alone; the experiment's seed if null.
    """
    return federate(
        source,
        partition=partition,
        shift=shift,
        split=split,
        keep=keep,
        unseen=unseen,
        standardize=standardize,
        seed=0 if seed is None else seed,
    )


def no_adaptor() -> None:
    """Leaves the matching leaves alone on purpose."""
    return None


def rule(adaptor: Adaptor | None, *, match: str) -> Rule:
    """The rule that gives an adaptor to leaves.

    Args:
      match: a regular expression for the whole path of a leaf, as ".*/kernel".
    """
    return Rule(match, adaptor)


def local_training(
    solver: LocalSolver,
    *,
    batch_size: int = 32,
    epochs: int = 1,
    steps: int | None = None,
    shuffle: bool = True,
    augment: Augment | None = None,
    schedule: Schedule | None = None,
) -> LocalTraining:
    """Local training on a client's batches.

    Args:
      batch_size: examples a step.
      epochs: passes over a client's examples in a round.
      steps: steps of every client in a round, instead of epochs.
      shuffle: a fresh order each epoch; otherwise the stored order.
      augment: what training changes of a batch's inputs at each step; nothing if null.
      schedule: a factor of all local learning rates by round; 1 in every round if null.
    """
    batches = batching(batch_size=batch_size, epochs=epochs, steps=steps, shuffle=shuffle)
    return LocalTraining(solver.with_schedule(schedule), batches, augment)


def evaluation(
    *,
    every: int = 10,
    batch_size: int = 256,
    clients: int | None = None,
    personalize: Literal["own", "all"] = "own",
    personalize_steps: int = 20,
    personalize_batch: int = 32,
    personalize_examples: int | None = None,
    diagnose_clients: int = 64,
    diagnose_examples: int = 16,
    global_model: bool = False,
    smaller_is_better: Sequence[str] = (),
    at_start: bool = False,
) -> Evaluation:
    """When clients are evaluated, and what stateless and unseen ones do before.

    Args:
      every: rounds between evaluations; the last round is always evaluated.
      batch_size: examples predicted at once.
      clients: how many of those that train, and how many of the unseen, are evaluated: the same
        random ones each time; all if null.
      personalize: what a stateless or unseen client trains: what is its own, as its mixture, with
        the rest frozen; or then also all that clients train in rounds, by itself.
      personalize_steps: steps of that; 0 is none at all.
      personalize_batch: examples a step there.
      personalize_examples: how many training examples it may use; all if null, 0 is none at all.
      diagnose_clients: of how many of those that train FLoRAL also looks at gradients, at what
        each adaptor alone loses, and, no more than a cohort of them, at how far the average of
        their factors would be from that of products: the same random ones each time; none if 0.
      diagnose_examples: how many of its examples each of them shows for that, at most.
      global_model: also evaluate, on the test data of those that train (validation data where
        there are none), the one model that they would all have without a part of their own: the
        uniform mixture, or the server's model. It takes one more pass over these data.
      smaller_is_better: which metrics are good where they are small, so that the worst clients are
        those with the largest values; the loss, mae and rmse are always of these.
      at_start: also evaluate before the first round, as round 0, so that curves begin there. That
        evaluation chooses nothing: round 0 is never the best one, and early stopping does not
        count it.
    """
    check.boolean(global_model=global_model, at_start=at_start)
    check.positive_int(every=every, batch_size=batch_size, diagnose_examples=diagnose_examples)
    check.whole(diagnose_clients=diagnose_clients)
    if clients is not None:
        check.positive_int(clients=clients)
    check.whole(personalize_steps=personalize_steps)
    check.positive_int(personalize_batch=personalize_batch)
    if personalize_examples is not None:
        check.whole(personalize_examples=personalize_examples)
    before = personalization(
        trains=personalize,
        steps=personalize_steps,
        batch_size=personalize_batch,
        examples=personalize_examples,
    )
    return Evaluation(
        every,
        batch_size,
        before,
        clients,
        diagnose_clients,
        diagnose_examples,
        global_model,
        tuple(smaller_is_better),
        at_start,
    )


def checkpointing(*, every: int | None = None, keep: int = 1) -> Checkpointing:
    """When the whole state is saved.

    Args:
      every: rounds between checkpoints; null is after every evaluation, and the last round is
        always saved.
      keep: how many of the latest checkpoints are kept.
    """
    check.positive_int(keep=keep)
    if every is not None:
        check.positive_int(every=every)
    return Checkpointing(every or 0, keep)


def restarts(*, rounds: int, starts: int = 3) -> Restarts:
    """Several starts, each trained for some rounds; the run begins anew from one of them.

    From the one with the smallest mean loss of clients' own models on validation examples, which
    must be there (``data.split.validation``). Data and their split stay as they are. All trials
    together take ``starts * rounds`` rounds more than the run.

    Args:
      rounds: of each trial; at most those of the run.
      starts: how many, the first of which is that of a run without restarts.
    """
    check.positive_int(rounds=rounds, starts=starts)
    return Restarts(starts, rounds)


def stop(*, patience: int, min_delta: float = 0.0) -> Stopping:
    """Ends a run whose validation score, by which the best round is chosen, improves no more.

    Validation examples must be there (``data.split.validation``). The last round is that after
    which the run was stopped; the best is chosen as ever.

    Args:
      patience: so many evaluations in a row without improvement end the run; they must take
        fewer rounds than the run has.
      min_delta: a score must exceed the best by more than this to be an improvement; in accuracy
        as a share, or in the loss.
    """
    check.positive_int(patience=patience)
    check.non_negative(min_delta=min_delta)
    return Stopping(patience, min_delta)
