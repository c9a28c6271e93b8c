"""How much memory a round takes, beside what the compiler's count predicts of it.

    python experiments/bench/memory.py                       # all cases, some fifteen minutes
    python experiments/bench/memory.py --only mlp --json memory.json

Each case is measured in a process of its own. There the population is put where it stays, the round
is compiled, a state is made, and what all that has let go is given back to the system
(``malloc_trim``): what is resident then is the population, the state and the program. The peak
(``VmHWM``) is reset by writing 5 to ``/proc/self/clear_refs``, rounds are taken, and the rise is
the peak less what was resident. Predicted for it is ``simulator.memory().peak`` less population and
state: outputs that take no memory of the state's, temporaries, and two cohorts where the population
stays on the host. The rounds run the program that the prediction compiled; a case in which another
program takes a tenth as long to compile is refused.

XLA's CPU backend hands products to a library, YNNPACK, whose workspaces the compiler does not
count. Cases are measured without these fusions (``--xla_cpu_experimental_ynn_fusion_type=``, which
jaxlib 0.10 takes) and with them, the default. glibc keeps what is freed for what comes next, which
is its own affair: it is told to give blocks of 64 KiB and more back at once, and ``as it is`` is
the rise where it is not told. Images are 28x28x1, for ResNet-18 and ViT-Tiny 32x32x3; a client
takes one epoch of SGD over its images in batches of 20 (MLP, CNN) or 8. Every case predicts 50 MB
or more.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from process_memory import memory

LEAST = 50e6
YNN_OFF = "--xla_cpu_experimental_ynn_fusion_type="
WAYS: dict[str, dict[str, str]] = {
    "without": {"XLA_FLAGS": YNN_OFF, "MALLOC_MMAP_THRESHOLD_": "65536"},
    "with": {"MALLOC_MMAP_THRESHOLD_": "65536"},
    "as it is": {"XLA_FLAGS": YNN_OFF},
}
BASE = {
    "method": "fedavg",
    "adaptors": 0,
    "walk": "scan",
    "chunk": None,
    "devices": 1,
    "population": "device",
    "samples": 20,
}
CHUNK = {"walk": "chunk", "chunk": 10}
VMAP = {"walk": "vmap"}
HOST = {"population": "host"}
TWO = {"devices": 2}
FEW = {"samples": 8}
FLORAL_4, FLORAL_10 = ({"method": "floral", "adaptors": count} for count in (4, 10))


def cases() -> list[dict[str, Any]]:
    """What is measured: model, method, cohort, walk, devices, and where the population is."""
    asked: list[dict[str, Any]] = []
    for model, many in (
        ("mlp", 1000),
        ("cnn", 100),
    ):  # side by side convolutions take a second each
        named = {"model": model}
        asked += [
            named | {"cohort": 100} | VMAP,
            named | {"cohort": 100} | VMAP | TWO,
            named | {"cohort": 1000} | HOST,
            named | {"cohort": many} | CHUNK | HOST | TWO,
            named | FLORAL_4 | {"cohort": 100} | VMAP,
            named | FLORAL_4 | {"cohort": many} | CHUNK | HOST,
            named | FLORAL_10 | {"cohort": 100} | VMAP | TWO,
        ]
    asked += [
        {"model": "mlp", "cohort": 1000} | VMAP,
        {"model": "mlp", **FLORAL_10, "cohort": 1000} | VMAP | TWO,
    ]
    for model in ("resnet", "vit"):
        asked += [
            {"model": model, "cohort": 100} | FEW,
            {"model": model, "cohort": 20} | FEW | TWO,
            {"model": model, "cohort": 4} | FEW | CHUNK | {"chunk": 2},
            {"model": model, **FLORAL_4, "cohort": 20} | FEW | TWO,
        ]
    return [BASE | case for case in asked]


def measure(case: dict[str, Any], *, rounds: int) -> dict[str, float]:
    """One case, measured in this process, which has done nothing else."""
    from floral.processes.startup import prepare_jax

    os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # what is read from there is no smaller
    prepare_jax(os.environ, cores=case["devices"], alone=False)
    import jax

    compiled = compilations()
    simulator = build(case)
    predicted = simulator.memory()
    state = jax.block_until_ready(simulator.init(jax.random.key(0)))
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before, programs = memory("VmRSS"), len(compiled)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(rounds):
        state, sums = jax.block_until_ready(simulator.round(state))
    rise = memory("VmHWM") - before
    if int(sums["cohort"]) != case["cohort"]:
        raise RuntimeError(f"{int(sums['cohort'])} clients took part, not {case['cohort']}")
    if max(compiled[programs:], default=0.0) > max(compiled[:programs]) / 10:
        raise RuntimeError(f"{case}: a round compiled a program while it was measured")
    return {
        "resident": before,
        "rise": rise,
        "expected": predicted.peak - predicted.population - predicted.state,
        **predicted._asdict(),
    }


def compilations() -> list[float]:
    """Seconds of each compilation of this process, as they come."""
    import jax.monitoring

    seconds: list[float] = []

    def note(event: str, duration: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    return seconds


def build(case: dict[str, Any]) -> Any:
    """The simulator of a case, over as many clients as take part in a round."""
    import algorithms
    import numpy as np

    import floral as fl

    models = {
        "mlp": lambda: fl.models.mlp(10, hidden=(200,)),
        "cnn": lambda: fl.models.cnn(10),
        "resnet": lambda: fl.models.resnet(10),
        "vit": lambda: fl.models.vit(10),
    }
    model = models[case["model"]]()
    shape = (28, 28, 1) if case["model"] in ("mlp", "cnn") else (32, 32, 3)
    rng = np.random.default_rng(0)
    count = case["cohort"] * case["samples"]
    examples = {
        "x": rng.standard_normal((count, *shape), np.float32),
        "y": rng.integers(10, size=count).astype(np.int32),
    }
    offsets = case["samples"] * np.arange(case["cohort"] + 1)
    dataset = fl.data.from_flat({"train": examples}, {"train": offsets}, num_classes=10)
    if case["method"] == "fedavg":
        algorithm = algorithms.fedavg(model)
    else:
        adapted = algorithms.adapt(model, dataset, budget=0.01)
        algorithm = algorithms.floral(adapted, num_adaptors=case["adaptors"])
    return fl.simulate.make_simulator(
        algorithm,
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        batching=fl.data.batching(batch_size=min(20, case["samples"])),
        execution=fl.simulate.execution(
            walk=case["walk"],
            chunk=case["chunk"],
            devices=case["devices"],
            population=case["population"],
        ),
        donate=True,
    )


def apart(case: dict[str, Any], *, rounds: int, way: str) -> dict[str, float]:
    """What ``measure`` gives in a process with the settings of one of ``WAYS``."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {WAYS[way].get('XLA_FLAGS', '')}".strip()
    command = [sys.executable, __file__, "--case", json.dumps(case), "--rounds", str(rounds)]
    environment = os.environ | WAYS[way] | {"XLA_FLAGS": flags}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{case} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def rows(asked: list[dict[str, Any]], *, rounds: int) -> list[dict[str, Any]]:
    """Each case with what was expected and measured in every way."""
    found = []
    for case in asked:
        measured = {way: apart(case, rounds=rounds, way=way) for way in WAYS}
        for way, numbers in measured.items():
            if numbers["expected"] < LEAST:
                raise RuntimeError(f"{case}: {numbers['expected']} bytes are too few to measure")
            ratio = numbers["rise"] / numbers["expected"]
            print(f"{case} {way}: {numbers['rise']:,} bytes, {ratio:.2f}", file=sys.stderr)
        found.append(case | measured)
    return found


def table(measured: list[dict[str, Any]]) -> str:
    """A Markdown table: MB, and how far what was measured lies from what was predicted."""
    head = ["case", "cohort", "walk", "devices", "population", "predicted, MB", "measured, MB"]
    head += ["error", "error with YNNPACK", "error as it is"]
    lines = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in measured:
        name = row["model"] if row["method"] == "fedavg" else f"{row['model']}, C={row['adaptors']}"
        errors = [row[way]["rise"] / row[way]["expected"] - 1 for way in WAYS]
        cells = [
            name,
            str(row["cohort"]),
            row["walk"] if row["chunk"] is None else f"chunk {row['chunk']}",
            str(row["devices"]),
            row["population"],
            *(f"{row['without'][column] / 1e6:.0f}" for column in ("expected", "rise")),
            *(f"{100 * error:+.0f} %" for error in errors),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=("mlp", "cnn", "resnet", "vit"))
    parser.add_argument("--rounds", type=int, default=5, help="taken in each process")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(arguments.case, rounds=arguments.rounds)))
        return
    asked = [case for case in cases() if case["model"] in (arguments.only or [case["model"]])]
    measured = rows(asked, rounds=arguments.rounds)
    if arguments.json is not None:
        text = json.dumps({"rows": measured}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(table(measured))


if __name__ == "__main__":
    main()
