"""Where a round's time goes: the operations of one compiled round, from JAX's own profiler.

    python experiments/bench/where.py --model mlp --cores 2     # half a minute; a Markdown table

The task is ``table.py``'s. A trace is taken of some rounds; of every operation the time spent in it
and in nothing that it calls is summed over all threads and divided by rounds and cores, so that the
column adds up to what a core was busy; ``else`` is what remains of a round: waiting, and what lies
between operations. Tracing itself slows a round: ``traced`` beside ``untraced`` says by how much.
An operation is told by what the program calls it and by the shape of its result.
"""

import argparse
import json
import os
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import scaling_point
import task

from floral.text_table import markdown

__all__ = ["operations_of", "shapes_of", "table", "where"]

SHOWN = 12  # operations in a table; the others are summed


def where(model_name: str, *, cores: int, rounds: int) -> dict[str, Any]:
    """The seconds of a round by operation.

    Returns:
      ``untraced`` and ``traced`` seconds of a round, and ``operations``: of each ``name``, ``what``
      (the shape of its result), ``calls`` in a round, and ``seconds`` of a round on each core.
    """
    from floral.processes.startup import prepare_jax

    os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
    prepare_jax(os.environ, cores=cores)
    import jax

    simulator = simulator_of(model_name)
    state = simulator.init(jax.random.key(0))
    shapes = shapes_of(simulator.lower(state).compile().as_text())
    for _ in range(3):
        state, _ = jax.block_until_ready(simulator.round(state))

    def seconds_a_round() -> float:
        nonlocal state
        begun = time.perf_counter()
        for _ in range(rounds):
            state, _ = jax.block_until_ready(simulator.round(state))
        return (time.perf_counter() - begun) / rounds

    untraced = seconds_a_round()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            traced = seconds_a_round()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(trace))
        spent = operations_of(profile, shapes)
    operations = [
        {
            "name": name,
            "what": shapes[name],
            "calls": count / rounds,
            "seconds": nanoseconds / 1e9 / rounds / cores,
        }
        for name, (nanoseconds, count) in spent.items()
    ]
    operations.sort(key=lambda row: -row["seconds"])
    return {"cores": cores, "untraced": untraced, "traced": traced, "operations": operations}


def simulator_of(model_name: str) -> Any:
    """The task's simulator of FedAvg."""
    import algorithms

    import floral as fl

    arrays = task.make()
    clients = [{"train": {"x": x, "y": y}} for x, y in zip(arrays["x"], arrays["y"], strict=True)]
    dataset = fl.data.from_clients(clients, num_classes=task.CLASSES)
    model = scaling_point.model_of(scaling_point.POINT | {"model": model_name})
    return fl.simulate.make_simulator(
        algorithms.fedavg(model),
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        cohort=fl.simulate.scheduled(arrays["cohorts"]),
        batching=fl.data.batching(batch_size=task.BATCH, shuffle=False),
        donate=True,
    )


def shapes_of(program: str) -> dict[str, str]:
    """The shape of every operation's result, by its name, from a compiled program's text."""
    found = re.findall(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(?[\w\[\],]+)", program, re.MULTILINE)
    return {name: shape.lstrip("(") for name, shape in found}


def operations_of(profile: Any, known: dict[str, str]) -> dict[str, tuple[float, int]]:
    """Nanoseconds and calls of every known operation, less those of the operations within it."""
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for plane in profile.planes:
        for line in plane.lines:
            events = [event for event in line.events if event.name in known]
            around: list[Any] = []
            for event in sorted(events, key=lambda event: (event.start_ns, -event.duration_ns)):
                while around and event.start_ns >= around[-1].start_ns + around[-1].duration_ns:
                    around.pop()
                if around:
                    spent[around[-1].name] -= event.duration_ns
                spent[event.name] += event.duration_ns
                calls[event.name] += 1
                around.append(event)
    return {name: (spent[name], calls[name]) for name in spent}


def table(found: dict[str, Any]) -> str:
    """A Markdown table of milliseconds a core, the largest first."""
    first, rest = found["operations"][:SHOWN], found["operations"][SHOWN:]
    rows = [
        [row["name"], f"`{row['what']}`", f"{row['calls']:.0f}", f"{1e3 * row['seconds']:.2f}"]
        for row in first
    ]
    others = sum(row["seconds"] for row in rest)
    left = found["traced"] - others - sum(row["seconds"] for row in first)
    rows += [[f"{len(rest)} others", "", "", f"{1e3 * others:.2f}"]]
    rows += [["else", "", "", f"{1e3 * left:.2f}"]]
    traced, untraced = (f"{1e3 * found[name]:.1f}" for name in ("traced", "untraced"))
    shown = markdown(["operation", "result", "calls a round", "ms a core"], rows, texts=2)
    return f"{shown}\n\nA round took {traced} ms traced, {untraced} untraced."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="mlp", choices=tuple(task.MODELS))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    found = where(given.model, cores=given.cores, rounds=given.rounds)
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
