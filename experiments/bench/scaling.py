"""How a round's time and memory grow: with the population, the cohort, the model, the devices.

    python experiments/bench/scaling.py                        # every sweep, about half an hour
    python experiments/bench/scaling.py --over population      # 10^3 to 10^6 clients, cohort 100
    python experiments/bench/scaling.py --over cohort          # 10^2 to 10^4 clients a round
    python experiments/bench/scaling.py --over adaptors rank   # C = 1 to 16; 0.5 % to 10 %
    python experiments/bench/scaling.py --over width batch     # an MLP's; 1 to 128 examples a step
    python experiments/bench/scaling.py --over model           # CNNs, ResNet-18, ViT
    python experiments/bench/scaling.py --over devices processes

Where nothing else is said: an MLP 784-200-10, local SGD in batches of 20 over clients with 20
images each, which are made when they are read (``fl.data.synthetic_population``): nothing of a
population is kept but offsets and clusters. Where neither population nor cohort nor model change,
clients have 60 images each, in memory. FedAvg, FLoRAL with C = 4 adaptors whose clients keep their
mixture, and FLoRAL whose clients keep nothing. Each point is measured in a process of its own
(``scaling_point.py``), points take turns, and figures are medians over the turns. A round's time
includes the wait for its cohort's images, which a thread makes while the round before it trains.

Columns: milliseconds a round and a client; the round's operations over what the devices' cores
could do at the rate of a large product (``floor.py``); the rise of the process's memory from before
the population exists to the peak (``VmHWM``) and to the end, with compilation on the first turn,
after which the cache on disk has the program; and what of it is expected: the arrays with one entry
a client (offsets, clusters, clients that train), on the host and on every device, the N x C floats
of the mixtures that clients keep, and two cohorts' images. What else there is (the program, its
compiler, the updates) does not depend on the population.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import floor
from scaling_point import POINT

METHODS = ("fedavg", "floral", "floral, stateless")
SCRIPT = Path(__file__).with_name("scaling_point.py")
LARGE = {"samples": 20, "clients": 100, "cohort": 4, "rounds": 3}
MEMORY = {"samples": 60, "in_memory": True}  # making images would take longer than training on them
SWEEPS: dict[str, tuple[str, list[Any], tuple[str, ...], dict[str, Any]]] = {
    "population": ("clients", [10**3, 10**4, 10**5, 10**6], METHODS, {}),
    # A cohort is of a population that is larger still.
    "cohort": ("cohort", [10**2, 10**3, 10**4], METHODS[:2], {"clients": 10**5}),
    "adaptors": ("adaptors", [1, 2, 4, 8, 16], METHODS[1:], MEMORY),
    "rank": ("rank", [0.005, 0.01, 0.02, 0.05, 0.1], METHODS[1:2], MEMORY),
    "width": ("width", [64, 200, 512, 1024, 2048], METHODS[:2], MEMORY),
    "batch": ("batch", [1, 8, 20, 64, 128], METHODS[:2], MEMORY | {"samples": 128}),
    "model": ("model", ["small cnn", "cnn", "resnet18", "vit tiny"], METHODS[:2], LARGE),
    "devices": ("devices", [1, 2], METHODS[:2], MEMORY),
    "processes": ("processes", [1, 2], METHODS[:2], MEMORY | {"devices": 1}),
}
"""Of each sweep: what changes, its values, the methods, and what differs from ``POINT``."""


def points(over: str, largest: int | None) -> list[dict[str, Any]]:
    """The points of a sweep, smallest first; numbers beyond ``largest`` are left out."""
    name, values, methods, base = SWEEPS[over]
    kept = [v for v in values if largest is None or isinstance(v, str) or v <= largest]
    return [
        {**POINT, **base, name: value, "method": method} for method in methods for value in kept
    ]


def in_turns(over: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every point of a sweep, measured in turns; the medians over the turns."""
    asked = points(over, arguments.largest)
    measured: list[list[dict[str, float]]] = [[] for _ in asked]
    for turn in range(arguments.repeats):
        for point, results in zip(asked, measured, strict=True):
            results.append(_apart(point))
            print(f"turn {turn + 1}: {point} {results[-1]}", file=sys.stderr)
    return [
        point | {name: statistics.median(r[name] for r in results) for name in results[0]}
        for point, results in zip(asked, measured, strict=True)
    ]


def _apart(point: dict[str, Any]) -> dict[str, float]:
    """One point in a process, or in several; processes of one device have a core each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    several = point["processes"] > 1
    cores = sorted(os.sched_getaffinity(0))
    running = []
    for index in range(point["processes"]):
        told = {
            "JAX_NUM_PROCESSES": str(point["processes"]),
            "JAX_PROCESS_ID": str(index),
            "JAX_COORDINATOR_ADDRESS": address,
        }
        own = {cores[index]} if point["devices"] == 1 else set(cores)
        running.append(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), json.dumps(point)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **(told if several else {})},
                preexec_fn=partial(os.sched_setaffinity, 0, own),
            )
        )
    ended = [process.communicate() for process in running]
    for process, (_, errors) in zip(running, ended, strict=True):
        if process.returncode:
            raise RuntimeError(f"{point} failed:\n{errors}")
    return json.loads(ended[0][0].splitlines()[-1])


def table(over: str, rows: list[dict[str, Any]], rate: float) -> str:
    """A Markdown table; times also as ratios to the method's first row."""
    name = SWEEPS[over][0]
    lines = [
        f"| method | {name} | round, ms | ratio | client, ms | × floor "
        "| peak, MB | end, MB | expected, MB |",
        "| --- |" + " ---: |" * 8,
    ]
    for row in rows:
        first = next(other for other in rows if other["method"] == row["method"])
        value = row[name]
        cells = [
            value if isinstance(value, str) else f"{value:,}",
            f"{1e3 * row['seconds']:.1f}",
            f"{row['seconds'] / first['seconds']:.2f}",
            f"{1e3 * row['seconds'] / row['cohort']:.3f}",
            f"{row['seconds'] * rate * row['devices'] / row['operations']:.2f}",
            *(f"{row[column] / 1e6:.0f}" for column in ("peak", "end", "expected")),
        ]
        lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--over", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--repeats", type=int, default=3, help="processes for each point")
    parser.add_argument("--largest", type=int, help="leave out points beyond this number")
    parser.add_argument("--json", type=Path, help="also write the rows there, sweep by sweep")
    arguments = parser.parse_args()
    rate = floor.product_rate()
    sweeps: dict[str, Any] = {}
    for over in arguments.over:
        sweeps[over] = in_turns(over, arguments)
        if arguments.json is not None:
            unfinished = arguments.json.with_suffix(".new")
            unfinished.write_text(json.dumps({"rate": rate, "sweeps": sweeps}, indent=1) + "\n")
            unfinished.replace(arguments.json)
        print(f"{over}\n\n{table(over, sweeps[over], rate)}\n", flush=True)


if __name__ == "__main__":
    main()
