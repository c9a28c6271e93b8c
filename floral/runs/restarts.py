"""The start that a run is trained from, where several are tried; interrupted trials go on."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from floral.config.build import Experiment
from floral.processes.agreement import broadcast_from_first
from floral.records import record
from floral.records.state import start_state
from floral.simulate import SimulationState, best_start
from floral.typing import PyTree

__all__ = ["chosen_start", "tried"]


def chosen_start(
    experiment: Experiment, folder: Path, source: PyTree, say: Callable[[str], None]
) -> int:
    """The start that a new run is trained from: 0 where but one is asked for.

    Args:
      experiment: what is run.
      folder: the run folder; trials that it knows are not taken again.
      source: another run's server, which every start has; None without one.
      say: told in a line of every trial, and of the choice.

    Returns:
      Its number, which ``restarts.json`` has beside the losses and seconds of all trials.

    Raises:
      SpecError: if no trial ends with a finite loss.
    """
    asked = experiment.restarts
    if asked is None:
        return 0
    path = _path(folder)
    known = broadcast_from_first(lambda: tried(folder)) or {}
    losses, seconds = known.get("losses", []), known.get("seconds", [])
    clock = time.perf_counter()

    def tell(so_far: list[float]) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds.append(now - clock)
        clock = now
        record.write_json(path, {"rounds": asked.rounds, "losses": so_far, "seconds": seconds})
        say(
            f"start {len(so_far)} of {asked.starts}: validation loss {so_far[-1]:.4g} after "
            f"{asked.rounds} rounds"
        )

    best, losses = best_start(
        experiment.simulator,
        [partial(start_state, experiment, source, start=index) for index in range(asked.starts)],
        rounds=asked.rounds,
        loss=partial(_validation_loss, experiment),
        losses=[float("nan") if loss is None else loss for loss in losses],
        tell=tell,
    )
    record.write_json(
        path, {"rounds": asked.rounds, "losses": losses, "seconds": seconds, "chosen": best}
    )
    say(f"goes on from start {best + 1}")
    return best


def tried(folder: Path) -> dict[str, Any] | None:
    """The ``rounds``, ``losses`` and ``seconds`` of the trials of a run folder, and which start was
    ``chosen`` once all were taken; None where there were none."""
    path = _path(folder)
    return record.read_json(path) if path.is_file() else None


def _path(folder: Path) -> Path:
    return folder / "restarts.json"


def _validation_loss(experiment: Experiment, state: SimulationState) -> float:
    """The mean over clients that train of their own models' loss."""
    report = experiment.simulator.evaluate(state, "validation", experiment.dataset.seen)
    return float(np.mean(report["loss"][report["examples"] > 0]))
