"""Whether a run's files tell of every round that a checkpoint or a summary has.

A run records first and saves then, so a round that is missing from its files was lost after it was
written: by hand, by a copy that was cut short, by a broken disk. Numbers of what is left would be
wrong in silence, and what is lost of the beginning cannot be made again.
"""

from pathlib import Path
from typing import Any

import numpy as np

from floral.errors import ConfigError
from floral.records import checkpoint, record

__all__ = [
    "check_intact",
    "finished_lines",
    "last_clients",
    "read_environment",
    "read_summary",
]

_ENVIRONMENT = ("config", "data", "chunk")
_REPORTED = ("rounds", "seed", "seconds")
_SUMMARY = (*_REPORTED, "last", "costs", "timing")


def read_environment(folder: Path) -> dict[str, Any]:
    """``environment.json`` of a method's folder that has begun.

    Raises:
      ConfigError: if it is missing, or lacks what a run goes on with.
    """
    path = folder / "environment.json"
    if not path.is_file():
        raise ConfigError(
            f"{path}: missing; it says with which config, data and walk the run began; "
            f"{_mend(folder)}"
        )
    return _with_keys(path, _ENVIRONMENT, _mend(folder))


def read_summary(folder: Path, *, short: bool = False) -> dict[str, Any]:
    """``summary.json`` of a method's folder that has finished.

    Args:
      folder: the method's own folder.
      short: whether ``rounds``, ``seed`` and ``seconds`` are enough, as runs of former versions
        have them too.

    Raises:
      ConfigError: if it is missing, or lacks what reports are made of.
    """
    mend = f"delete it, then floral resume {folder} makes it again"
    return _with_keys(folder / "summary.json", _REPORTED if short else _SUMMARY, mend)


def check_intact(folder: Path, taken: int) -> None:
    """Checks that a method's folder tells of every round, so that it can be gone on with.

    Args:
      folder: the method's own folder.
      taken: the rounds that are known to have been taken.

    Raises:
      ConfigError: naming the file and the first round that it lacks, and how to go on.
    """
    lines = _check_lines(folder, taken)
    _check_lines(folder, taken, name="timing.jsonl")
    for line in lines:
        if "evaluation" in line:
            _check_table(folder, line["round"], taken)


def _check_lines(folder: Path, taken: int, *, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The lines of rounds 1 to the last that was taken, each of which must be there, in order; and
    before them that of round 0, if it was evaluated.

    Raises:
      ConfigError: naming the first round that is missing, and how to go on.
    """
    lines = record.read_lines(folder / name)
    start = [line for line in lines[:1] if taken and line.get("round") == 0]
    lines = lines[len(start) :][:taken]
    for expected in range(1, taken + 1):
        line = lines[expected - 1] if expected <= len(lines) else None
        if line is None or line.get("round") != expected:
            raise ConfigError(_sentence(folder, folder / name, expected, taken))
    return [*start, *lines]


def finished_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of the rounds that a finished run's summary is of; none of those that a command
    which goes on with it may be writing meanwhile.

    Raises:
      ConfigError: naming the first round that is missing, and how to go on.
    """
    return _check_lines(folder, read_summary(folder, short=True)["rounds"])


def last_clients(folder: Path) -> dict[str, np.ndarray]:
    """The columns of the table of clients of a finished run's last evaluation.

    Raises:
      ConfigError: if it is missing or damaged.
    """
    lines = finished_lines(folder)
    taken = lines[-1]["round"]
    last = max((line["round"] for line in lines if "evaluation" in line), default=taken)
    return record.read_clients(_check_table(folder, last, taken))


def _check_table(folder: Path, evaluated: int, taken: int) -> Path:
    path = record.client_table(folder, evaluated)
    if not path.is_file():
        raise ConfigError(_sentence(folder, path, evaluated, taken))
    return path


def _sentence(folder: Path, path: Path, lost: int, taken: int) -> str:
    """What is missing, and the nearest checkpoint whose rounds are all told of."""
    saved = checkpoint.saved_rounds(folder / "checkpoints")
    later = [str(folder / "checkpoints" / str(at)) for at in saved if at >= lost]
    earlier = [at for at in saved if at < lost]
    again = ""
    if earlier and later:
        again = f", or delete {' and '.join(later)} to train again from round {earlier[-1] + 1}"
    return f"{path}: round {lost} of {taken} is missing; {_mend(folder, again)}"


def _mend(folder: Path, again: str = "") -> str:
    new = f"start a new run: floral run {folder / 'config.yaml'}"
    return f"put the file back from a copy{again}, or {new}"


def _with_keys(path: Path, keys: tuple[str, ...], mend: str) -> dict[str, Any]:
    found = record.read_json(path)
    missing = [key for key in keys if key not in found]
    if missing:
        raise ConfigError(f"{path}: damaged: it lacks {missing[0]!r}; {mend}")
    return found
