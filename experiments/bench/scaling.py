"""How a round's time and memory grow: with the population, the cohort, the adaptors, the rank.

    python experiments/bench/scaling.py --over population      # 10^3 to 10^6 clients, cohort 100
    python experiments/bench/scaling.py --over cohort          # 10^2 to 10^4 clients a round
    python experiments/bench/scaling.py --over adaptors        # C = 1 to 16
    python experiments/bench/scaling.py --over rank            # adaptors of 0.5 % to 10 %

An MLP 784-200-10, local SGD in batches of 20 over clients with 20 images each, which are made when
they are read (``fl.data.synthetic_population``): nothing of a population is kept but offsets and
clusters. FedAvg, FLoRAL with C = 4 adaptors whose clients keep their mixture, and FLoRAL whose
clients keep nothing. Each point is measured in a process of its own, points take turns, and figures
are medians over the turns. A round's time includes the wait for its cohort's images, which a thread
makes while the round before it trains.

Columns: milliseconds a round and a client; the rise of the process's memory from before the
population exists to the peak (``VmHWM``) and to the end, with compilation on the first turn, after
which the cache on disk has the program; and what of it is expected: the arrays with one entry a
client (offsets, clusters, clients that train), on the host and on every device, the N x C floats of
the mixtures that clients keep, and two cohorts' images. What else there is (the program, its
compiler, the updates) does not depend on the population.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

METHODS = ("fedavg", "floral", "floral, stateless")
POINT = {"method": "floral", "clients": 1000, "cohort": 100, "adaptors": 4, "rank": 0.01}
SWEEPS: dict[str, tuple[str, list[Any], tuple[str, ...]]] = {
    "population": ("clients", [10**3, 10**4, 10**5, 10**6], METHODS),
    "cohort": ("cohort", [10**2, 10**3, 10**4], METHODS[:2]),
    "adaptors": ("adaptors", [1, 2, 4, 8, 16], METHODS[1:]),
    "rank": ("rank", [0.005, 0.01, 0.02, 0.05, 0.1], METHODS[1:2]),
}


def points(over: str, largest: int | None) -> list[dict[str, Any]]:
    """The points of a sweep, smallest first; numbers beyond ``largest`` are left out."""
    name, values, methods = SWEEPS[over]
    # A cohort is of a population that is larger still.
    base = POINT | ({"clients": 10**5} if over == "cohort" else {})
    kept = [value for value in values if largest is None or value <= largest]
    return [base | {name: value, "method": method} for method in methods for value in kept]


def measure(point: dict[str, Any], *, rounds: int, samples: int) -> dict[str, float]:
    """One point, measured in this process, which has done nothing else."""
    from floral.startup import prepare_jax, usable_cores

    prepare_jax(os.environ, cores=usable_cores())
    import jax
    import optax

    import floral as fl

    jax.block_until_ready(jax.jit(lambda x: x + 1)(jax.numpy.zeros(1)))
    before = memory("VmRSS")
    dataset = fl.data.synthetic_population(
        clients=point["clients"], train=samples, test=0, clusters=4
    )
    model = fl.models.mlp(10, hidden=(200,))
    local = fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
    if point["method"] == "fedavg":
        algorithm = fl.algorithms.fedavg(model, fl.losses.cross_entropy, local)
    else:
        rules = [
            fl.adaptors.Rule(".*/kernel", fl.adaptors.low_rank(budget=point["rank"])),
            fl.adaptors.Rule(".*/bias", fl.adaptors.additive()),
        ]
        algorithm = fl.algorithms.floral(
            fl.adaptors.adapt(model, rules, fl.simulate.sample_batch(dataset)),
            fl.losses.cross_entropy,
            local,
            fl.mixtures.softmax(),
            num_adaptors=point["adaptors"],
            stateful=point["method"] == "floral",
        )
    simulator = fl.simulate.make_simulator(
        algorithm,
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        cohort=fl.simulate.fixed(size=point["cohort"]),
        batching=fl.data.batching(batch_size=20),
        donate=True,
    )
    state = simulator.init(jax.random.key(0))
    seconds = []
    for _ in range(rounds + 2):
        begun = time.perf_counter()
        state, sums = simulator.round(state)
        jax.block_until_ready((state, sums))
        seconds.append(time.perf_counter() - begun)
    if int(sums["cohort"]) != point["cohort"]:
        raise RuntimeError(f"{int(sums['cohort'])} clients took part, not {point['cohort']}")
    return {
        "seconds": statistics.median(seconds[2:]),  # the first two compile and fill the caches
        "peak": memory("VmHWM") - before,
        "end": memory("VmRSS") - before,
        "expected": expected(point, devices=simulator.devices, samples=samples),
        "devices": simulator.devices,
    }


def expected(point: dict[str, Any], *, devices: int, samples: int) -> int:
    """Bytes that a population, its clients' mixtures and two cohorts of images take.

    For each client: an offset of 8 bytes, a cluster of 4 and a mark of 1; on every device and once
    more for the draw an offset and an id of 4 bytes each, on every device a cluster.
    """
    of_client = 8 + 4 + 1 + 8 * (devices + 1) + 4 * devices
    if point["method"] == "floral":
        of_client += 4 * point["adaptors"] * devices
    cohorts = 2 * point["cohort"] * samples * (28 * 28 + 1) * 4
    return point["clients"] * of_client + cohorts


def memory(name: str) -> int:
    """Bytes of this process: ``VmRSS`` resident now, ``VmHWM`` at most so far."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}; this script needs Linux")


def in_turns(over: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every point of a sweep, measured in turns; the medians over the turns."""
    asked = points(over, arguments.largest)
    measured: list[list[dict[str, float]]] = [[] for _ in asked]
    for turn in range(arguments.repeats):
        for point, results in zip(asked, measured, strict=True):
            results.append(_apart(point, arguments))
            print(f"turn {turn + 1}: {point} {results[-1]}", file=sys.stderr)
    return [
        point | {name: statistics.median(r[name] for r in results) for name in results[0]}
        for point, results in zip(asked, measured, strict=True)
    ]


def _apart(point: dict[str, Any], arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--point", json.dumps(point)]
    command += ["--rounds", str(arguments.rounds), "--samples", str(arguments.samples)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{point} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def table(over: str, rows: list[dict[str, Any]]) -> str:
    """A Markdown table; times also as ratios to the method's first row."""
    name = SWEEPS[over][0]
    lines = [
        f"| method | {name} | round, ms | ratio | client, ms | peak, MB | end, MB | expected, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        first = next(other for other in rows if other["method"] == row["method"])
        cells = [
            f"{row[name]:,}",
            f"{1e3 * row['seconds']:.1f}",
            f"{row['seconds'] / first['seconds']:.2f}",
            f"{1e3 * row['seconds'] / row['cohort']:.3f}",
            *(f"{row[column] / 1e6:.0f}" for column in ("peak", "end", "expected")),
        ]
        lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--over", choices=SWEEPS, default="population")
    parser.add_argument("--rounds", type=int, default=20, help="timed in each process")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each point")
    parser.add_argument("--samples", type=int, default=20, help="images of each client")
    parser.add_argument("--largest", type=int, help="leave out points beyond this number")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point is not None:
        settings = {"rounds": arguments.rounds, "samples": arguments.samples}
        print(json.dumps(measure(arguments.point, **settings)))
        return
    rows = in_turns(arguments.over, arguments)
    if arguments.json is not None:
        text = json.dumps({"over": arguments.over, "rows": rows}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(table(arguments.over, rows))


if __name__ == "__main__":
    main()
