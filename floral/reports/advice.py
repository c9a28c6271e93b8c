"""What an expert would say of a run, in a sentence each, with what to try.

A piece of advice is given where

- a round was not finite, or no client has validation or test data;
- mixtures are uniform to within a twentieth of their largest entropy;
- an adaptor's share of all clients is below a tenth of an equal share;
- the clients' data show more groups than there are adaptors;
- clients that keep a part of their own took part in fewer than 5 rounds on average;
- the median client is tested on fewer than 5 examples;
- the last round validates worse than the best one, by more than 3 points of accuracy and 3 standard
  errors of it, or by a loss that is more than a tenth larger;
- the training loss of the last tenth of the rounds is more than 1.5 times that of the best tenth.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from floral.config.build import Experiment

__all__ = ["Facts", "advice_for", "advised", "facts_of", "missing_splits", "told_non_finite"]

UNIFORM = 0.95
FEW_ROUNDS = 5
FEW_EXAMPLES = 5
WORSE_POINTS = 0.03
WORSE_ERRORS = 3.0
WORSE_LOSS = 1.1
RISEN = 1.5


class Facts(NamedTuple):
    """What a run knows before it begins.

    Attributes:
      config: of the method.
      rounds_a_client: in how many rounds a client that trains takes part, on average.
      test_examples: of the median client that trains and has any; 0 if none has.
      validation_examples: of all clients that train.
      lacks_global: whether a global model was asked for that the method does not have.
    """

    config: Mapping[str, Any]
    rounds_a_client: float
    test_examples: float
    validation_examples: int
    lacks_global: bool = False


def facts_of(experiment: Experiment) -> Facts:
    """The facts of one method."""
    dataset = experiment.dataset
    cohort = min(experiment.simulator.cohort, len(dataset.seen))

    def sizes(split: str) -> np.ndarray:
        found = dataset.splits[split].sizes[dataset.seen] if split in dataset.splits else [0]
        return np.asarray(found)

    test = sizes("test")
    tested = test[test > 0]
    return Facts(
        experiment.config,
        experiment.rounds * cohort / len(dataset.seen),
        float(np.median(tested)) if tested.size else 0.0,
        int(sizes("validation").sum()),
        experiment.evaluation.global_model and not experiment.algorithm.global_model,
    )


def missing_splits(facts: Facts) -> list[str]:
    """Advice on results that cannot exist, known before anything is trained."""
    said = []
    if facts.test_examples == 0:
        said.append(
            "no client that trains has test data, so there is no test accuracy; give data.split a "
            "test share, as data.split.test=0.2"
        )
    if facts.validation_examples == 0:
        said.append(
            "no client that trains has validation data, so no round is best; give data.split a "
            "validation share, as data.split.validation=0.1"
        )
    return said


def advice_for(
    facts: Facts, summary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> list[str]:
    """All advice on a run that is done.

    Args:
      facts: what was known before.
      summary: what it came to.
      lines: its ``metrics.jsonl``.
    """
    checks: tuple[Callable[[], str | None], ...] = (
        lambda: _uniform(facts, summary),
        lambda: _unused(facts, summary),
        lambda: _more_groups(summary),
        lambda: _seldom(facts, summary),
        lambda: _handful(facts),
        lambda: _worse_than_best(facts, summary),
        lambda: _rising(lines),
    )
    return [
        *missing_splits(facts),
        *_no_global(facts),
        *(said for check in checks if (said := check()) is not None),
    ]


def advised(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All methods' advice, those with the same named together."""
    by_text: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        for text in summary.get("advice", ()):
            by_text.setdefault(text, []).append(name)
    everyone = [*summaries]
    return [
        f"{'all methods' if names == everyone and len(names) > 1 else ', '.join(names)}: {text}"
        for text, names in by_text.items()
    ]


def told_non_finite(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which methods diverged: the first round, what was not finite, and the first such client."""
    said = []
    for name, summary in summaries.items():
        if (found := summary.get("non_finite")) is None:
            continue
        client = f" (first by client {found['client']})" if "client" in found else ""
        if dropped := found.get("dropped_in_rounds"):
            said.append(
                f"{name}: clients whose values are not finite had no weight in {dropped} rounds, "
                f"from round {found['round']} on{client}; look at their data"
            )
            continue
        said.append(
            f"{name}: round {found['round']}: the {found['what']} is not finite{client}; look at "
            "its data, or try a smaller local.learning_rate or uplink.non_finite=drop"
        )
    return said


def _no_global(facts: Facts) -> list[str]:
    if not facts.lacks_global:
        return []
    return [
        "evaluate.global_model: this method has no model that all clients share, since each has a "
        "part of its own that is never averaged, or a mixture that is given"
    ]


def _uniform(facts: Facts, summary: Mapping[str, Any]) -> str | None:
    evenness = summary["last"].get("mixture", {}).get("uniformity")
    if evenness is None or not evenness > UNIFORM:
        return None
    mixing = facts.config.get("mixing") or {}
    better = "a larger algorithm.mixture_learning_rate or more rounds"
    if mixing.get("kind") != "discriminants":
        better = f"mixing.kind=discriminants, {better}"
    return (
        f"mixtures are still uniform ({evenness:.1%} of the largest entropy), so this is FedAvg "
        f"with more bytes; try {better}"
    )


def _unused(facts: Facts, summary: Mapping[str, Any]) -> str | None:
    mixture = summary["last"].get("mixture", {})
    unused = mixture.get("unused") or 0
    if unused < 1 or mixture.get("groups", 0) > 0:  # a bank that rests adaptors does so on purpose
        return None
    algorithm = facts.config["algorithm"]
    setting = "num_models" if "num_models" in algorithm else "num_adaptors"
    bank = algorithm.get(setting)
    fewer = "fewer" if bank is None else f"algorithm.{setting}={max(1, bank - round(unused))}"
    are = "is" if unused < 1.5 else "are"
    return (
        f"{unused:.0f} of {bank or 'the'} adaptors or models {are} used by almost no client; try "
        f"{fewer}, or restarts"
    )


def _more_groups(summary: Mapping[str, Any]) -> str | None:
    mixture = summary["last"].get("mixture", {})
    groups, bank = mixture.get("groups") or 0, mixture.get("bank") or 0
    if groups <= bank:
        return None
    return (
        f"the clients' data show {groups:.0f} groups, and there are {bank:.0f} adaptors or models "
        f"to serve them: set algorithm.num_adaptors or num_models to {groups:.0f}"
    )


def _seldom(facts: Facts, summary: Mapping[str, Any]) -> str | None:
    keeps = summary["costs"]["client_state_bytes"]
    frozen = summary["costs"]["upload_bytes"] == 0  # clients learn alone, as much as they are given
    if not keeps or frozen or facts.rounds_a_client >= FEW_ROUNDS:
        return None
    stateful = facts.config["algorithm"].get("stateful")
    other = ", or algorithm.stateful=false" if stateful else ""
    return (
        f"clients keep a part of their own, and take part in {facts.rounds_a_client:.1f} rounds "
        f"each; try more rounds or a larger cohort.size{other}"
    )


def _handful(facts: Facts) -> str | None:
    if not 0 < facts.test_examples < FEW_EXAMPLES:
        return None
    return (
        f"the median client is tested on {facts.test_examples:.0f} examples, so a client's number "
        "is one of a few: read the mean over all examples, or try a larger data.split.test"
    )


def _worse_than_best(facts: Facts, summary: Mapping[str, Any]) -> str | None:
    best, last = summary["best"], summary["last"].get("validation")
    if best is None or not last:
        return None
    kind = "accuracy" if "accuracy" in last else "loss"
    was, now = best["validation"][kind]["mean"], last[kind]["mean"]
    if was is None or now is None:  # not finite, which is said elsewhere
        return None
    if kind == "accuracy":
        error = math.sqrt(max(was * (1 - was), 0.0) / max(facts.validation_examples, 1))
        if was - now <= max(WORSE_POINTS, WORSE_ERRORS * error):
            return None
        fell = f"accuracy fell from {was:.1%} at round {best['round']} to {now:.1%}"
    else:
        if not 0 < was * WORSE_LOSS < now:
            return None
        fell = f"loss rose from {was:.3g} at round {best['round']} to {now:.3g}"
    return (
        f"validation {fell} at the last; try fewer rounds or a smaller local.learning_rate, or "
        "take the best round by load_run(folder, best=True)"
    )


def _rising(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """By tenths of the rounds, since cohorts differ."""
    losses = np.array(
        [line["train"].get("loss", np.nan) for line in lines if "train" in line], float
    )
    if len(losses) < 10 or not np.isfinite(losses).all():
        return None
    tenths = [part.mean() for part in np.array_split(losses, 10)]
    least = min(tenths)
    if least <= 0 or tenths[-1] <= RISEN * least:
        return None
    return (
        f"the training loss rose from {least:.3g} to {tenths[-1]:.3g}: training diverges; try a "
        "smaller local.learning_rate, or uplink.client clip_by_global_norm"
    )
