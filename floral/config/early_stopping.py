"""Early stopping: a run ends once its validation score has not improved for some evaluations.

It is decided from the scores that the run recorded, so that a resumed run decides the same.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from floral.config.sections import Stopping
from floral.errors import ConfigError

__all__ = ["check_patience", "has_stopped", "stopped_line"]


def check_patience(stopping: Stopping, *, every: int, rounds: int) -> None:
    """Raises ConfigError if the run ends before the patience can run out.

    Args:
      stopping: when the run is to stop.
      every: rounds between two evaluations.
      rounds: of the run.

    Example:
      >>> check_patience(Stopping(patience=3), every=5, rounds=16)
    """
    if stopping.patience * every < rounds:
        return
    most = (rounds - 1) // every
    lower = f"stop.patience to at most {most}" if most else f"evaluate.every below {rounds}"
    raise ConfigError(
        f"stop.patience: {stopping.patience} x {every} rounds (evaluate.every) must be fewer than "
        f"the {rounds} rounds of the run, or it is never stopped early; set {lower}, or leave out "
        "stop"
    )


def has_stopped(scores: Sequence[float | None], stopping: Stopping | None) -> bool:
    """Whether the last evaluation is the one to stop after.

    Args:
      scores: of every evaluation so far, larger is better. None, of an evaluation without
        validation data, does not count; one that is not finite is no improvement.
      stopping: when; None is never.

    Example:
      >>> has_stopped([0.5, 0.6, 0.6, 0.59], Stopping(patience=2))
      True
      >>> has_stopped([0.5, 0.6, 0.6, 0.61], Stopping(patience=2))
      False
    """
    if stopping is None:
        return False
    best, waited = -math.inf, 0
    for value in scores:
        if value is None:
            continue
        if math.isfinite(value) and value > best + stopping.min_delta:
            best, waited = value, 0
        else:
            waited += 1
    return waited >= stopping.patience


def stopped_line(stopped: Mapping[str, Any]) -> str:
    """What a run that was stopped says at its end.

    Args:
      stopped: of its summary: ``round``, ``of`` and ``patience``.
    """
    evaluations = "evaluation" if stopped["patience"] == 1 else "evaluations"
    return (
        f"stopped after round {stopped['round']} of {stopped['of']}: the validation score did not "
        f"improve in {stopped['patience']} {evaluations} (stop.patience)"
    )
