"""Rounds on the accelerator at hand, by clients side by side, beside what was predicted on paper.

    python experiments/bench/accelerator.py --json h100.json             # on one H100, ten minutes
    python experiments/bench/accelerator.py --models mlp --chunks 1 64   # fewer points

The work is ``cost_model.py``'s: three steps of SGD, each on 20 of a client's 60 examples, with
FedAvg, FLoRAL (C = 4, rho = 1 %, all trained) and FLoRAL whose clients train their mixture alone;
float32 as JAX multiplies it by default, on H100s in TF32, or with ``--precision fp32`` in full.
Each model and method has a process of its own, which goes from one client at a time to the whole
cohort side by side and stops before a round that would need more than the device has. A round's
time is the median of ``--rounds`` after two, each waited for; ``fused`` is a round's share of as
many in one call, measured for the walk that ``auto`` takes. The population lives on the device.

Columns: milliseconds a round, its clients a second, the operations of products a second, the
model's seconds at its middle shares and measured over predicted, the compiler's count of the round
for this device, and the most that was held at once up to there (``peak_bytes_in_use``). The walk
that ``auto`` takes is marked with a star.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COHORTS = {"mlp": 1000, "cnn": 1000, "resnet18": 128}
METHODS = ("fedavg", "floral", "mixture only")
CHUNKS = [1, 4, 16, 64, 256, 1000]
SHARES = [(0.2, 0.4), (0.4, 0.6), (0.6, 0.8)]  # of peak and of bandwidth, as cost_model.py has them


def measure(model_name: str, method: str, given: argparse.Namespace) -> None:
    """Every walk of one model and method, in this process; prints a JSON line for each."""
    import jax

    precision = {"tf32": "tensorfloat32", "fp32": "highest"}[given.precision]
    jax.config.update("jax_default_matmul_precision", precision)
    import cost_model

    import floral as fl

    (work,) = (w for w in cost_model.workloads(model_name) if w.method == method)
    cohort = given.cohort or COHORTS[model_name]
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    auto = simulator_of(model_name, method, cohort, fl.simulate.execution(devices=1)).chunk
    for chunk in sorted({min(c, cohort) for c in [*given.chunks, auto]}):
        execution = fl.simulate.execution(walk="chunk", chunk=chunk, devices=1)
        simulator = simulator_of(model_name, method, cohort, execution)
        begun = time.perf_counter()
        needed = simulator.memory().device
        compiled = time.perf_counter() - begun
        if limit is not None and needed > limit:
            print(f"{chunk} clients side by side need {needed:,} bytes", file=sys.stderr)
            break
        peak = cost_model.PEAK[given.precision]
        cells = [cost_model.predict(work, cohort, 1, pair, peak, chunk) for pair in SHARES]
        point = {
            "device": device.device_kind,
            "jax": jax.__version__,
            "precision": given.precision,
            "model": model_name,
            "method": method,
            "cohort": cohort,
            "chunk": chunk,
            "auto": chunk == auto,
            "compiled": compiled,
            "predicted": [cell.unfed for cell in cells],
            "bound": cells[1].bound,
            "operations": work.operations * cohort,
            "needed": needed,
            **timed(simulator, given.rounds, fused=chunk == auto),
        }
        point["peak"] = (device.memory_stats() or {}).get("peak_bytes_in_use")
        print(json.dumps(point), flush=True)


def simulator_of(model_name: str, method: str, cohort: int, execution: Any) -> Any:
    """The simulator of a cohort that is the whole population, with random images."""
    import algorithms
    import cost_model
    import jax
    import numpy as np

    import floral as fl

    model, shape, _ = cost_model.MODELS[model_name]
    count = cohort * cost_model.SAMPLES
    rng = np.random.default_rng(0)
    examples = {
        "x": rng.standard_normal((count, *shape), np.float32),
        "y": rng.integers(10, size=count).astype(np.int32),
    }
    offsets = cost_model.SAMPLES * np.arange(cohort + 1)
    dataset = fl.data.from_flat({"train": examples}, {"train": offsets}, num_classes=10)
    algorithm = algorithms.fedavg(model)
    if method != "fedavg":
        train = {"floral": ("base", "bank", "mixture"), "mixture only": ("mixture",)}[method]
        adapted = algorithms.adapt(model, dataset, budget=cost_model.BUDGET)
        algorithm = algorithms.floral(adapted, num_adaptors=cost_model.ADAPTORS, train=train)
    return fl.simulate.make_simulator(
        algorithm,
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        batching=fl.data.batching(batch_size=cost_model.BATCH),
        execution=execution,
        donate=jax.default_backend() != "cpu",
    )


def timed(simulator: Any, rounds: int, *, fused: bool) -> dict[str, float | None]:
    """Seconds of a round that is waited for and of one among many in one call; the loss."""
    import jax

    state = jax.block_until_ready(simulator.init(jax.random.key(0)))
    seconds, together = [], []
    for _ in range(rounds + 2):
        begun = time.perf_counter()
        state, sums = jax.block_until_ready(simulator.round(state))
        seconds.append(time.perf_counter() - begun)
    loss = float(sums["loss_sum"]) / float(sums["examples"])  # to see that walks agree
    for _ in range(2 if fused else 0):
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(simulator.rounds(state, rounds))
        together.append((time.perf_counter() - begun) / rounds)
    return {
        "first": seconds[0],
        "seconds": statistics.median(seconds[2:]),
        "fused": together[-1] if together else None,
        "loss": loss,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table, one row a walk."""
    head = ["model", "method", "cohort", "side by side", "round, ms", "fused, ms", "clients/s"]
    head += ["TFLOP/s", "predicted, ms", "ratio", "bound on paper", "counted, GB", "held, GB"]
    lines = [f"| {' | '.join(head)} |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for row in rows:
        low, middle, high = (1e3 * seconds for seconds in row["predicted"])
        milliseconds = 1e3 * row["seconds"]
        cells = [
            f"{row['chunk']}{' *' if row['auto'] else ''}",
            f"{milliseconds:.4g}",
            "" if row["fused"] is None else f"{1e3 * row['fused']:.4g}",
            f"{row['cohort'] / row['seconds']:,.0f}",
            f"{row['operations'] / row['seconds'] / 1e12:.3g}",
            f"{middle:.3g} ({high:.3g} to {low:.3g})",
            f"{milliseconds / middle:.2f}",
            row["bound"],
            f"{row['needed'] / 1e9:.2f}",
            "–" if row["peak"] is None else f"{row['peak'] / 1e9:.2f}",
        ]
        lines.append(
            f"| {row['model']} | {row['method']} | {row['cohort']} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(COHORTS), choices=tuple(COHORTS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument(
        "--chunks", nargs="+", type=int, default=CHUNKS, help="clients side by side"
    )
    parser.add_argument("--cohort", type=int, help="clients a round, for all models")
    parser.add_argument("--rounds", type=int, default=5, help="timed")
    parser.add_argument("--precision", default="tf32", choices=("tf32", "fp32"))
    parser.add_argument("--json", type=Path, help="also write the rows there, as they come")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    pairs = list(itertools.product(given.models, given.methods))
    if given.here:
        measure(*pairs[0], given)
        return
    rows: list[dict[str, Any]] = []
    for model_name, method in pairs:
        command = [sys.executable, __file__, *sys.argv[1:], "--here"]
        command += ["--models", model_name, "--methods", method]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                rows.append(json.loads(line))
                print(rows[-1], file=sys.stderr, flush=True)
                if given.json:
                    given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        if process.returncode:
            raise RuntimeError(f"{model_name}, {method}: ended with {process.returncode}")
    print(table(rows))


if __name__ == "__main__":
    main()
