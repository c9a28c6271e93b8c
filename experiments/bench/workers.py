"""Starts the benchmark's workers, lets them take turns, and says what a round took each.

    python experiments/bench/workers.py --models mlp --peers torch_loop jax_by_hand

A worker is a name, a Python and a script that speaks ``peers/protocol.py``. All are started and
warmed up one after another; then they take turns, a b c a b c ..., so that slow changes of the
machine touch all alike. Those that wait are stopped, with all their processes (SIGSTOP), and take
no processor time. What else ran during a measurement is read from /proc/stat, less the worker's own
share; a sample beside which more than a tenth of a core was busy is kept, but cannot be quoted.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import environments
import numpy as np
import task
from peers.protocol import cpu_seconds, descendants

__all__ = ["OTHER_LOAD", "PEERS", "Running", "Worker", "measure", "peer", "summary"]

HERE = Path(__file__).parent
PEERS = ("jax_by_hand", "torch_loop", "fedjax", "pfl", "fluke", "flower")
OTHER_LOAD = 0.1  # cores; above, a sample cannot be quoted


class Worker(NamedTuple):
    """What to start.

    Attributes:
      name: in tables.
      python: the interpreter of its environment.
      script: that speaks the protocol.
      args: more of its own, before the protocol's.
    """

    name: str
    python: Path
    script: Path
    args: tuple[str, ...] = ()


class WorkerError(RuntimeError):
    """A worker that ended or said something else than its protocol has."""


class Running:
    """A worker that was started, and is stopped (SIGSTOP) unless it is being asked something."""

    def __init__(self, worker: Worker, task_file: Path, *, model: str, cores: int, log: Path):
        self.name = worker.name
        command = [worker.python, worker.script, *worker.args]
        command += ["--task-file", task_file, "--model", model, "--cores", cores]
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            self.ready = self._hear()
        except BaseException:
            self._kill()
            raise
        self._signal(signal.SIGSTOP)

    def ask(self, **order: Any) -> dict[str, Any]:
        """The answer to an order, with ``other_load``: cores that others kept busy meanwhile."""
        self._signal(signal.SIGCONT)
        own, busy, begun = cpu_seconds(self.process.pid), _busy_seconds(), time.perf_counter()
        self._say(order)
        answer = self._hear()
        elapsed = time.perf_counter() - begun
        others = _busy_seconds() - busy - (cpu_seconds(self.process.pid) - own)
        self._signal(signal.SIGSTOP)
        return {**answer, "other_load": max(0.0, others) / elapsed, "elapsed": elapsed}

    def close(self) -> None:
        """Ends it and everything it started."""
        family = descendants(self.process.pid)
        self._signal(signal.SIGCONT)
        try:
            self._say({"op": "stop"})
            self.process.wait(timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            pass  # it is killed below
        self._kill(family)

    def _kill(self, family: Sequence[int] = ()) -> None:
        for pid in family or descendants(self.process.pid):
            if pid != self.process.pid:
                _send(pid, signal.SIGKILL)
        self.process.kill()  # does nothing if it has ended and was waited for
        self.process.wait()

    def _say(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            end = "\n".join(self.log.read_text().splitlines()[-8:])
            raise WorkerError(f"worker {self.name!r} ended; its log {self.log} closes with:\n{end}")
        return json.loads(line)

    def _signal(self, number: int) -> None:
        for pid in descendants(self.process.pid):
            _send(pid, number)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself


def _busy_seconds() -> float:
    """Processor time the whole machine has spent so far, other than idle."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = ticks
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def peer(name: str, folder: Path = task.CACHE) -> Worker:
    """A peer's worker in its environment, which is made if need be."""
    script = HERE / "peers" / environments.SCRIPTS[name]
    return Worker(name, environments.python(name, folder), script)


def measure(
    workers: Sequence[Worker],
    *,
    model: str,
    cores: int,
    repeats: int = 5,
    rounds: int = 1,
    evaluate: bool = False,
    folder: Path = task.CACHE,
) -> dict[str, dict[str, Any]]:
    """What each worker answered: ``ready``, ``losses`` and samples of ``round`` and ``evaluate``.

    Args:
      workers: who takes turns, in this order.
      model: ``mlp`` or ``cnn``.
      cores: for each worker.
      repeats: samples of each; three rounds come before, whose losses are checked.
      rounds: in a sample; with several, ``seconds`` and ``cpu_seconds`` are means of a round.
      evaluate: whether to measure an evaluation of every client too.
      folder: where the task, the environments and the logs are kept.
    """
    task_file, running, results = task.write(folder), [], {}
    try:
        for worker in workers:
            log = folder / "logs" / f"{worker.name}-{model}-{cores}.log"
            one = Running(worker, task_file, model=model, cores=cores, log=log)
            running.append(one)
            warm = [one.ask(op="round", cohort=cohort, check=True) for cohort in (1, 2)]
            losses = [one.ready["train_loss"], *(answer["train_loss"] for answer in warm)]
            results[one.name] = {"ready": one.ready, "losses": losses, "round": [], "evaluate": []}
            if evaluate:
                one.ask(op="evaluate")
        for repeat in range(repeats):
            for one in running:
                cohorts = range(3 + repeat * rounds, 3 + (repeat + 1) * rounds)
                answers = [one.ask(op="round", cohort=cohort) for cohort in cohorts]
                results[one.name]["round"].append(_joined(answers))
                if evaluate:
                    results[one.name]["evaluate"].append(one.ask(op="evaluate"))
    finally:
        for one in running:
            one.close()
    return results


def _joined(answers: list[dict[str, Any]]) -> dict[str, float]:
    """One sample of several rounds in a row."""
    elapsed = np.array([answer["elapsed"] for answer in answers])
    load = np.array([answer["other_load"] for answer in answers])
    return {
        "seconds": float(np.mean([answer["seconds"] for answer in answers])),
        "cpu_seconds": float(np.mean([answer["cpu_seconds"] for answer in answers])),
        "other_load": float((load * elapsed).sum() / elapsed.sum()),
    }


def summary(samples: Iterable[dict[str, Any]]) -> dict[str, float] | None:
    """Median and spread of samples that can be quoted, or of all if none can; None for none at all.

    Returns:
      ``median``, ``lowest`` and ``highest`` seconds, ``cpu`` the median of the processor seconds,
      ``quotable`` and ``samples``, how many there were.
    """
    taken = [sample for sample in samples if not sample.get("unsupported")]
    quiet = [sample for sample in taken if sample["other_load"] <= OTHER_LOAD]
    if not taken:
        return None
    seconds = np.array([sample["seconds"] for sample in quiet or taken])
    return {
        "median": float(np.median(seconds)),
        "lowest": float(seconds.min()),
        "highest": float(seconds.max()),
        "cpu": float(np.median([sample["cpu_seconds"] for sample in quiet or taken])),
        "quotable": len(quiet),
        "samples": len(taken),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="the peers of the speed benchmark, side by side")
    parser.add_argument("--models", nargs="+", default=["mlp"], choices=tuple(task.MODELS))
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1, help="in a sample")
    parser.add_argument("--evaluate", action="store_true", help="every client's accuracy, too")
    parser.add_argument("--folder", type=Path, default=task.CACHE)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers are ended first
    workers = [peer(name, given.folder) for name in given.peers]
    print(
        "| model, cores | peer | round, ms | lowest to highest | cpu, ms | evaluation, ms |", end=""
    )
    print(" first, s | quotable | losses of 3 rounds |\n|" + " --- |" * 9)
    for model in given.models:
        for cores in given.cores:
            results = measure(
                workers,
                model=model,
                cores=cores,
                repeats=given.repeats,
                rounds=given.rounds,
                evaluate=given.evaluate,
                folder=given.folder,
            )
            for name, result in results.items():
                print(f"| {model}, {cores} | {name} | {_row(result)} |", flush=True)


def _row(result: dict[str, Any]) -> str:
    took, evaluated = summary(result["round"]), summary(result["evaluate"])
    assert took is not None
    cells = [
        f"{1e3 * took['median']:.1f}",
        f"{1e3 * took['lowest']:.1f} to {1e3 * took['highest']:.1f}",
        f"{1e3 * took['cpu']:.0f}",
        "–" if evaluated is None else f"{1e3 * evaluated['median']:.0f}",
        f"{result['ready']['first_round_s']:.2f}",
        f"{took['quotable']} of {took['samples']}",
        " ".join(f"{loss:.5f}" for loss in result["losses"]),
    ]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
