"""What a run's evaluations come to: pure functions of what it recorded.

The last round is what a run ends with. The round that validated best may be chosen without looking
at test data. The mean over a last stretch of rounds is less noisy than one round, and looks at test
data no more than the last round does.

An evaluation before the first round, as round 0, is drawn and chosen by nothing: all numbers here
are the same with and without it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from floral import check
from floral.errors import ConfigError

__all__ = [
    "CHOICES",
    "best_validated",
    "last_bin",
    "last_round",
    "mismatch_decay",
    "score",
    "validation_scores",
]

_ROUNDING = 1e-6  # of shares that are made of float32 weights

Lines = Sequence[Mapping[str, Any]]
"""A run's ``metrics.jsonl``, in order: ``round`` in each, ``evaluation`` in some."""


def last_round(lines: Lines) -> dict[str, Any]:
    """The numbers of the last evaluation.

    Raises:
      ConfigError: if nothing was evaluated.
    """
    return dict(_evaluations(lines)[-1][1])


def best_validated(lines: Lines) -> dict[str, Any]:
    """The numbers of the round that validated best, the first of equals, as a run keeps it.

    A round whose validation loss is not finite is never best.

    Raises:
      ConfigError: if nothing was evaluated, nothing of it on validation data, or no round of it
        with a finite loss.
    """
    evaluations = _evaluations(lines)
    # As snapshots are scored: rounded less, the later of two near rounds might be best.
    scores = np.array([score(_with_nan(numbers)) for _, numbers in evaluations], np.float32)
    if all("validation" not in numbers for _, numbers in evaluations):
        raise ConfigError(
            "best: no number of validation data to choose a round by, got "
            f"{', '.join(evaluations[-1][1])}; take 'last', or give data.split a validation"
        )
    if np.isnan(scores).all():
        raise ConfigError("best: no evaluated round has a finite validation loss; take 'last'")
    return dict(evaluations[int(np.nanargmax(scores))][1])


def validation_scores(lines: Lines) -> list[float | None]:
    """The score of every evaluation after a round; None of one without validation data."""
    return [score(_with_nan(numbers)) for _, numbers in _after_rounds(lines)]


def last_bin(lines: Lines, *, bins: int = 50) -> dict[str, Any]:
    """The mean of each number over the evaluations nearest to the last of evenly spaced marks.

    As published tables of FLoRAL are made: the marks are ``period = (last - first) / bins`` rounds
    apart, and an evaluation belongs to the multiple of it that is nearest. Of 500 rounds that are
    all evaluated the last six make the bin, of 1,500 the last sixteen; of no more than ``bins``
    evaluations, evenly spaced, the last alone does.

    Args:
      lines: what the run recorded.
      bins: how many marks; 50 in the publication.

    Returns:
      Numbers as in each evaluation; None where one of them has none.

    Raises:
      ConfigError: if nothing was evaluated.

    Source: the authors' ``utils/plotting.py``, ``downsample_to_len``.
    """
    check.positive_int(bins=bins)
    evaluations = _evaluations(lines)
    first, last = evaluations[0][0], evaluations[-1][0]
    period = (last - first) / bins
    if period == 0:
        return dict(evaluations[-1][1])
    chosen = [n for taken, n in evaluations if round(taken / period) == round(last / period)]
    return _mean(chosen)


CHOICES: Mapping[str, Callable[[Lines], dict[str, Any]]] = {
    "last": last_round,
    "best": best_validated,
    "last_bin": last_bin,
}
"""By the name that a command line gives them."""


def mismatch_decay(lines: Lines) -> float | None:
    r"""The β of ``‖δ_t‖² ∝ t^-β`` that fits a run's aggregation mismatch, t in rounds.

    By least squares between logarithms, over the evaluations with a mismatch above 1e-6: below it
    is what float32 weights round. Once mixtures stay as they are β goes to zero with more rounds.

    Returns:
      β, above zero where the mismatch falls; None of fewer than three such evaluations.

    Source: Almansoori, Horváth, Takáč, "Collaborative and Efficient Personalization with Mixtures
    of Adaptors", theorem 4.5, which supposes it between zero and one.

    Example:
      >>> run = [
      ...     {"round": t, "evaluation": {"mixture": {"mismatch": t**-0.25}}} for t in (1, 2, 5)
      ... ]
      >>> round(mismatch_decay(run), 6)
      0.5
    """
    found = [
        (taken, numbers.get("mixture", {}).get("mismatch"))
        for taken, numbers in _after_rounds(lines)
    ]
    points = np.array([point for point in found if (point[1] or 0.0) > _ROUNDING], float)
    if len(points) < 3:
        return None
    rounds, mismatch = np.log(points).T
    return -float(np.polyfit(rounds, 2 * mismatch, 1)[0])


def _evaluations(lines: Lines) -> list[tuple[int, Mapping[str, Any]]]:
    found = _after_rounds(lines)
    if not found:
        raise ConfigError(f"the run recorded {len(lines)} rounds and not one evaluation")
    return found


def _after_rounds(lines: Lines) -> list[tuple[int, Mapping[str, Any]]]:
    evaluated = [(line["round"], line["evaluation"]) for line in lines if "evaluation" in line]
    return [(taken, numbers) for taken, numbers in evaluated if taken > 0]


def _with_nan(value: Any) -> Any:
    """The value as it was before JSON, which has null for what is no finite number."""
    if isinstance(value, Mapping):
        return {key: _with_nan(inner) for key, inner in value.items()}
    return float("nan") if value is None else value


def _mean(several: Sequence[Any]) -> Any:
    """Mappings of equal keys, number by number."""
    if isinstance(several[0], Mapping):
        return {key: _mean([each[key] for each in several]) for key in several[0]}
    return None if any(value is None for value in several) else float(np.mean(several))


def score(numbers: dict[str, Any]) -> float | None:
    """What the best round is chosen by, larger is better: validation accuracy, or minus the loss.

    Args:
      numbers: of an evaluation, by group.

    Returns:
      None without validation data: nothing else may choose. NaN, which is never best, where the
      validation loss is not finite, whatever the accuracy: the model of some client is broken.

    Example:
      >>> score({"validation": {"accuracy": {"mean": 0.5}, "loss": {"mean": float("inf")}}})
      nan
    """
    if "validation" not in numbers:
        return None
    validation = numbers["validation"]
    loss = validation["loss"]["mean"]
    if not math.isfinite(loss):
        return math.nan
    return validation["accuracy"]["mean"] if "accuracy" in validation else -loss
