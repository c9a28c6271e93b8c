"""What finished runs came to: cells of a table, by task, method and seed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from provenance import made_by_run

from floral.reports import seeds

__all__ = ["Cells", "Seeds", "accuracies", "collect"]

Seeds = dict[int, dict[str, Any]]
"""By seed: accuracy, the seconds that the run took, with mixtures agreement, and what made it."""

Cells = dict[str, dict[str, Seeds]]
"""By task and method."""


def collect(
    folders: Iterable[Path], *, at: str = "last", number: str = "mean", command: str | None = None
) -> Cells:
    """What the finished methods of run folders came to, and, given what ran them, what made it.

    Raises:
      ConfigError: if two runs of a cell have the same seed, or differ in more than their seeds.
    """
    tasks = seeds.collect(folders, at=at, number=number, name=lambda config, _: task(config))
    return {
        name: {
            method: {seed: numbers(ended, command) for seed, ended in runs.items()}
            for method, runs in methods.items()
        }
        for name, methods in tasks.items()
    }


def numbers(ended: seeds.FinishedRun, command: str | None = None) -> dict[str, Any]:
    """What is kept of a run."""
    found = {} if ended.agreement is None else {"agreement": ended.agreement}
    made = {} if command is None else {"made": made_by_run(ended.place, command)}
    return {ended.quantity: ended.value, "seconds": ended.seconds, **found, **made}


def task(config: Mapping[str, Any]) -> str:
    """A name for what a config trains on."""
    data = config["data"]
    images = data["source"].get("variant", "digits")
    kept, sizes = data.get("keep", 1.0), data["shift"].get("sizes")
    name = f"{images}, {data['shift']['kind']}" + ("" if kept == 1.0 else f", {kept:.0%}")
    return name if sizes is None else f"{name}, groups as {':'.join(map(str, sizes))}"


def accuracies(runs: Seeds) -> dict[int, float]:
    """By seed, in per cent."""
    return {seed: 100 * run["accuracy"] for seed, run in runs.items()}
