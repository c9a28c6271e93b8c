"""Kills runs a hundred times, goes on with each, and compares them with runs that no one killed.

    python experiments/bench/kills.py --json kills.json    # an hour on two busy cores

Ten runs, ten seeds, three methods in turn: FLoRAL with its clients' rows on the host, Ditto with
rows on the devices, FedAvg. A run is killed ten times (``kill -9``) and gone on with each time. The
moments are drawn from a seed: after a random time, or some ten milliseconds after a random number
of rows of ``metrics.jsonl``, evaluations, or checkpoints have begun to be written. A run that is
done before its tenth kill is begun anew. At the end every file of the results, ``metrics.jsonl``
and each table of clients, must have the bytes of the uninterrupted run's.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from floral.config.reading.yaml_file import dump
from floral.records.environment import checkout_commit
from floral.text_table import markdown

_ROUNDS = 96
_METHODS: dict[str, dict[str, Any]] = {
    "floral": {
        "adaptors": [{"match": ".*/kernel", "kind": "low_rank", "rank": 1}],
        "algorithm": {"kind": "floral", "num_adaptors": 2},
        "execution": {"rows": "host"},
    },
    "ditto": {"algorithm": {"kind": "ditto"}},
    "fedavg": {"algorithm": {"kind": "fedavg"}},
}
_MOMENTS = ("after a time", "at a line", "at an evaluation", "at a checkpoint")
_VERSIONS = ("jax", "orbax-checkpoint", "numpy", "pyarrow")
_SECONDS = 300  # a run that takes longer hangs


def config(method: str, seed: int) -> dict[str, Any]:
    """96 rounds of ten clients, evaluated every third and saved every fourth."""
    source = {"kind": "synthetic_mlp", "clients": 10, "train": 12, "validation": 4, "test": 4}
    return {
        "seed": seed,
        "rounds": _ROUNDS,
        "data": {"source": source, "unseen": 2},
        "model": {"kind": "mlp", "hidden": [8]},
        "local": {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9, "batch_size": 4},
        "cohort": {"kind": "fixed", "size": 4},
        "evaluate": {"every": 3, "personalize_steps": 2, "diagnose_clients": 0},
        "checkpoint": {"every": 4, "keep": 2},
        **_METHODS[method],
    }


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """A command of floral's, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "floral", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> None:
    """Waits for a command that must succeed."""
    _, said = process.communicate(timeout=_SECONDS)
    if process.returncode:
        raise SystemExit(f"{process.args} ended with {process.returncode}:\n{said}")


def seen(folder: Path) -> dict[str, int]:
    """How far a run has come, by the kind of a moment, from its files alone."""
    metrics, tables, checkpoints = (
        folder / name for name in ("metrics.jsonl", "clients", "checkpoints")
    )
    return {
        "at a line": metrics.stat().st_size if metrics.is_file() else 0,
        "at an evaluation": len(os.listdir(tables)) if tables.is_dir() else 0,
        # Both those that are being written and those that are whole: each appears under two names.
        "at a checkpoint": hash(frozenset(os.listdir(checkpoints))) if checkpoints.is_dir() else 0,
    }


def killed(
    process: subprocess.Popen[str], folder: Path, moment: str, count: int, delay: float
) -> bool:
    """Kills a command at a moment; False if it was done before.

    Args:
      process: the command.
      folder: the run folder that it writes to.
      moment: one of ``_MOMENTS``.
      count: how many changes of that kind to wait for; none after a time.
      delay: seconds from there.
    """
    before, deadline = None, time.monotonic() + _SECONDS
    while moment != _MOMENTS[0] and count and process.poll() is None:
        now = _or_none(lambda: seen(folder)[moment])
        if before is not None and now is not None and now != before:
            count -= 1
        before = now if now is not None else before
        if time.monotonic() > deadline:
            raise SystemExit(f"{process.args} shows no sign of life")
        time.sleep(2e-4)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return True
    if process.returncode:
        raise SystemExit(f"{process.args} ended with {process.returncode}:\n{said}")
    return False


def _or_none(look: Callable[[], int]) -> int | None:
    """What is seen; None where a file is just being renamed."""
    try:
        return look()
    except FileNotFoundError:
        return None


def state(folder: Path) -> str:
    """Where a kill has caught a run, by what it left behind."""
    if not (folder / "config.yaml").is_file():
        return "before there was a run folder"
    if any((folder / "clients").glob("*.tmp")):
        return "amid a table of clients"
    if any((folder / "checkpoints").glob("*tmp*")) or any((folder / "checkpoints/rows").glob(".*")):
        return "amid a checkpoint"
    saved = [int(e.name) for e in (folder / "checkpoints").glob("*") if e.name.isdecimal()]
    if not saved:
        return "before the first checkpoint"
    lines = (folder / "metrics.jsonl").read_bytes()
    if not lines.endswith(b"\n") or lines.count(b"\n") > max(saved):
        return "between lines and their checkpoint"
    tables = [int(path.stem.removeprefix("round_")) for path in (folder / "clients").glob("r*")]
    if max(tables, default=0) > max(saved):
        return "between an evaluation and its checkpoint"
    return "at its end" if max(saved) == _ROUNDS else "elsewhere after a checkpoint"


def differing(folder: Path, whole: Path) -> tuple[int, list[str]]:
    """How many files of results were compared, and which differ or are missing on a side."""
    found, expected = (
        {
            str(path.relative_to(place)): path.read_bytes()
            for path in [place / "metrics.jsonl", *sorted((place / "clients").iterdir())]
        }
        for place in (folder, whole)
    )
    names = found.keys() | expected.keys()
    return len(names), sorted(n for n in names if found.get(n) != expected.get(n))


def tried(index: int, kills: int, moments: random.Random, out: Path) -> dict[str, Any]:
    """One run, killed so many times, beside the same run that no one killed."""
    method = [*_METHODS][index % len(_METHODS)]
    file = out / f"{method}_{index}.yaml"
    file.write_text(dump(config(method, index)), encoding="utf-8")
    finished(started("run", file, "--out", out, "--name", f"whole_{index}"))
    left, attempt, resumes, states = kills, 0, 0, Counter[str]()
    drawn = Counter[str]()
    compared, different = 0, []
    while True:
        folder = out / f"killed_{index}_{attempt}"
        begun = (folder / "config.yaml").is_file()
        resumes += begun
        if not begun:  # also of a folder that has no config yet
            shutil.rmtree(folder, ignore_errors=True)
        process = (
            started("resume", folder)
            if begun
            else started("run", file, "--out", out, "--name", folder.name)
        )
        if left:
            moment = moments.choice(_MOMENTS)
            count = moments.randint(1, 8)
            delay = moments.uniform(0, 6) if moment == _MOMENTS[0] else moments.uniform(0, 0.05)
            if killed(process, folder, moment, count, delay):
                left -= 1
                drawn[moment] += 1
                states[state(folder)] += 1
                continue
        else:
            finished(process)
        files, wrong = differing(folder, out / f"whole_{index}")
        compared += files
        different += [f"{folder.name}/{name}" for name in wrong]
        attempt += 1
        if not left:
            return {
                "method": method,
                "seed": index,
                "kills": kills,
                "resumes": resumes,
                "finished": attempt,
                "drawn": dict(drawn),
                "caught": dict(states),
                "files": compared,
                "different": different,
            }


def table(kept: Mapping[str, Any]) -> str:
    """A Markdown table of runs, and where kills caught them."""
    head = ["method", "seed", "kills", "resumes", "finished", "files", "with other bytes"]
    rows = [
        [
            run["method"],
            *(str(run[name]) for name in ("seed", "kills", "resumes", "finished", "files")),
            str(len(run["different"])),
        ]
        for run in kept["runs"]
    ]
    caught = sum((Counter(run["caught"]) for run in kept["runs"]), Counter[str]())
    places = [[name, str(times)] for name, times in caught.most_common()]
    told = (
        f"{kept['kills']} kills, {kept['resumes']} resumes, the others begun anew; "
        f"{kept['equal']} of {kept['files']} files have the bytes of the uninterrupted run's."
    )
    return f"{markdown(head, rows)}\n\n{markdown(['caught', 'kills'], places)}\n\n{told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    moments = random.Random(arguments.seed)
    runs = []
    with tempfile.TemporaryDirectory(prefix="floral-kills-") as place:
        for index in range(arguments.runs):
            runs.append(tried(index, arguments.kills, moments, Path(place)))
            print(json.dumps(runs[-1]), flush=True)
    kept = {
        "made": {
            "commit": checkout_commit(),
            "versions": {package: version(package) for package in _VERSIONS},
            "command": f"kills.py --runs {arguments.runs} --kills {arguments.kills} "
            f"--seed {arguments.seed}",
        },
        "seconds": time.perf_counter() - begun,
        "kills": sum(run["kills"] for run in runs),
        "resumes": sum(run["resumes"] for run in runs),
        "files": sum(run["files"] for run in runs),
        "equal": sum(run["files"] - len(run["different"]) for run in runs),
        "runs": runs,
    }
    print(f"\n{table(kept)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if kept["equal"] < kept["files"]:
        raise SystemExit("some files differ")


if __name__ == "__main__":
    main()
