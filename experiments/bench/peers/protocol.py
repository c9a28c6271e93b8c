"""What a worker of the benchmark says and hears: lines of JSON over its standard streams.

A worker is a script started as ``<python> script.py --task-file X.npz --model mlp --cores 2``. It
pins itself to that many cores, gets ready, takes one round on the first cohort, and prints
``{"ready": true, "versions": {...}, "first_round_s": s, "train_loss": l}``. Then it answers each
line with one line and sleeps in between::

    {"op": "round", "cohort": 3}  ->  {"seconds": s, "cpu_seconds": c, "train_loss": l}
    {"op": "evaluate"}            ->  {"seconds": s, "cpu_seconds": c, "accuracy": mean of clients'}
    {"op": "stop"}                ->  ends

``train_loss`` is the mean over clients and steps of the loss before each step. Where a toolkit does
not report it, the worker finds it outside the time, and only if the order adds ``"check": true``.
What a toolkit has no way for is answered with ``{"unsupported": true}``. Only the standard library
and numpy are used here: every worker runs in an environment of its own.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Arguments", "Task", "Work", "cpu_seconds", "descendants", "pinned", "read", "serve"]


class Arguments(NamedTuple):
    """What a worker is told: the task's file, the model's name and how many cores it may use."""

    task_file: str
    model: str
    cores: int


class Task(NamedTuple):
    """The task's arrays for one model.

    Attributes:
      x: [K, N, 28, 28, 1] float32.
      y: [K, N] int32.
      cohorts: [R, S] int32.
      weights: the shared start, by ``<layer>/kernel`` and ``<layer>/bias``.
    """

    x: np.ndarray
    y: np.ndarray
    cohorts: np.ndarray
    weights: dict[str, np.ndarray]


class Work(NamedTuple):
    """What a toolkit does, each call returning when the work is done.

    Attributes:
      round: ``(client ids [S]) -> train loss``, or None, of one round; the model moves on.
      evaluate: ``() -> accuracies [K]`` of the global model on every client's own examples, or None
        if the toolkit has no way to do so.
      loss: ``(client ids [S]) -> train loss`` of a round to come, where ``round`` has none.
    """

    round: Callable[[np.ndarray], float | None]
    evaluate: Callable[[], np.ndarray] | None = None
    loss: Callable[[np.ndarray], float] | None = None


def pinned() -> Arguments:
    """The command line's settings, after this process was bound to its first cores."""
    parser = argparse.ArgumentParser(description="one worker of the speed benchmark")
    parser.add_argument("--task-file", required=True)
    parser.add_argument("--model", required=True, choices=("mlp", "cnn"))
    parser.add_argument("--cores", type=int, default=1)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    os.environ["OMP_NUM_THREADS"] = str(arguments.cores)
    return Arguments(**vars(arguments))


def serve(arguments: Arguments, start: Callable[[Task], Work], packages: tuple[str, ...]) -> None:
    """Gets ready and answers until told to stop.

    Args:
      arguments: from ``pinned``.
      start: ``(task) -> work``; what it takes is part of the first round's time.
      packages: whose versions to report.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a toolkit prints must not be taken for an answer
    task = read(arguments)
    work, starting = _timed(start, task)
    first = _answer(work, task, {"op": "round", "cohort": 0, "check": True})
    ready = {
        "ready": True,
        "versions": {name: metadata.version(name) for name in packages},
        "first_round_s": starting["seconds"] + first["seconds"],
        "train_loss": first["train_loss"],
    }
    print(json.dumps(ready), file=answers)
    for line in sys.stdin:
        order = json.loads(line)
        if order["op"] == "stop":
            break
        print(json.dumps(_answer(work, task, order)), file=answers)


def _answer(work: Work, task: Task, order: dict[str, Any]) -> dict[str, Any]:
    if order["op"] == "round":
        cohort = task.cohorts[order["cohort"]]
        ahead = work.loss(cohort) if work.loss is not None and order.get("check") else None
        loss, cost = _timed(work.round, cohort)
        return {**cost, "train_loss": ahead if loss is None else loss}
    if order["op"] == "evaluate" and work.evaluate is not None:
        accuracies, cost = _timed(work.evaluate)
        return {**cost, "accuracy": float(np.mean(accuracies)), "clients": len(accuracies)}
    return {"unsupported": True}


def _timed(function: Callable[..., Any], *inputs: Any) -> tuple[Any, dict[str, float]]:
    cpu, begun = cpu_seconds(os.getpid()), time.perf_counter()
    result = function(*inputs)
    seconds = time.perf_counter() - begun
    return result, {"seconds": seconds, "cpu_seconds": cpu_seconds(os.getpid()) - cpu}


def read(arguments: Arguments) -> Task:
    """The task's arrays, from its file."""
    with np.load(arguments.task_file) as archive:
        prefix = f"{arguments.model}/"
        weights = {
            name.removeprefix(prefix): archive[name]
            for name in archive.files
            if name.startswith(prefix)
        }
        return Task(archive["x"], archive["y"], archive["cohorts"], weights)


def descendants(pid: int) -> list[int]:
    """A process and everything it started that still runs, itself first."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, []))
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its descendants so far, to a clock tick (10 ms)."""
    ticks = sum(
        sum(int(field) for field in fields[11:15])  # user, system, and those of children waited for
        for process in descendants(pid)
        if (fields := _stat(process))
    )
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name, which may hold spaces; none of one gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
