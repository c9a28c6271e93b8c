"""What a client pays for personalization: FLoRAL's round against FedAvg's, same data, same walk.

    taskset -c 0 python experiments/bench/local_step.py     # about a minute; a Markdown table

One process; methods take turns, round by round, and every figure is a median of ratios to the
FedAvg round beside it, so that other load touches all alike. 100 clients, 60 examples each in
batches of 20, one epoch, 784-200-10 MLP, C = 4, rank by a budget of 1 %, one client after another.
Memory is the compiler's count of a round's temporaries, beside the data and the state; operations
are those of its products. ``evaluation`` is FedAvg's accuracy on the examples a round trains on.

What it came to stands in ``RESULTS.md``: one client after another, as ``--walk auto`` walks them,
and with ``--adaptors 10 --budget 0.1``. FedAvg's round is near the floor of its products, of which
a frozen base leaves half.
"""

import argparse
import json
import time
from functools import partial

import algorithms
import jax
import numpy as np

import floral as fl
from floral.text_table import markdown


def population(clients: int) -> fl.data.FederatedDataset:
    """Random images and labels of MNIST's shape: time does not depend on what is in them."""
    rng = np.random.default_rng(0)
    source = fl.data.arrays(
        rng.random((60 * clients, 28, 28, 1), np.float32), rng.integers(0, 10, 60 * clients)
    )
    return fl.data.federate(source, partition=fl.data.iid(clients=clients))


def methods(model, dataset, *, num_adaptors: int, budget: float) -> dict:
    adapted = algorithms.adapt(model, dataset, budget=budget)
    floral = partial(algorithms.floral, adapted, num_adaptors=num_adaptors)
    return {
        "fedavg": algorithms.fedavg(model),
        "floral": floral(),
        "floral, preconditioned": floral(precondition_epsilon=1e-3),
        "floral, bank and mixture": floral(train=("bank", "mixture")),
        "floral, mixture alone": floral(train=("mixture",)),
    }


def table(figures: dict[str, dict[str, float]]) -> str:
    """A Markdown table; everything as a multiple of FedAvg's round."""
    rows = []
    for name, row in figures.items():
        counted = [f"{row[what]:.2f}" if what in row else "–" for what in ("operations", "memory")]
        spread = f"{row['time_p10']:.2f} to {row['time_p90']:.2f}"
        rows.append([name, f"{row['time']:.2f}", spread, *counted])
    return markdown(["method", "time", "10th to 90th percentile", "operations", "memory"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--adaptors", type=int, default=4)
    parser.add_argument("--budget", type=float, default=0.01)
    parser.add_argument("--walk", default="scan", choices=("scan", "vmap", "auto"))
    parser.add_argument("--json", help="where to write the figures")
    arguments = parser.parse_args()

    dataset = population(arguments.clients)
    model = fl.models.mlp(10, hidden=(200,))
    simulators = {
        name: fl.simulate.make_simulator(
            algorithm,
            model,
            dataset,
            metrics={"accuracy": fl.metrics.accuracy()},
            batching=fl.data.batching(batch_size=20),
            execution=fl.simulate.execution(walk=arguments.walk),
        )
        for name, algorithm in methods(
            model, dataset, num_adaptors=arguments.adaptors, budget=arguments.budget
        ).items()
    }
    states = {name: s.init(jax.random.key(0)) for name, s in simulators.items()}
    memory = {
        name: s.lower(states[name]).compile().memory_analysis().temp_size_in_bytes
        for name, s in simulators.items()
    }
    for name, simulator in simulators.items():  # compile
        states[name] = jax.block_until_ready(simulator.round(states[name])[0])
    simulators["fedavg"].evaluate(states["fedavg"], "train")
    seconds: dict[str, list[float]] = {name: [] for name in (*simulators, "evaluation")}
    for _ in range(arguments.repeats):
        for name, simulator in simulators.items():
            start = time.perf_counter()
            states[name] = jax.block_until_ready(simulator.round(states[name])[0])
            seconds[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        simulators["fedavg"].evaluate(states["fedavg"], "train")
        seconds["evaluation"].append(time.perf_counter() - start)

    base = np.array(seconds["fedavg"])
    operations = {name: s.costs.operations for name, s in simulators.items()}
    figures = {}
    for name, times in seconds.items():
        ratios = np.array(times) / base
        figures[name] = {
            "time": float(np.median(ratios)),
            "time_p10": float(np.quantile(ratios, 0.1)),
            "time_p90": float(np.quantile(ratios, 0.9)),
            "milliseconds": 1e3 * float(np.median(times)),
        }
        if name in simulators:
            figures[name] |= {
                "operations": operations[name] / operations["fedavg"],
                "memory": memory[name] / memory["fedavg"],
            }
    print(table(figures))
    print(f"\nFedAvg's round: {figures['fedavg']['milliseconds']:.0f} ms, {jax.devices()[0]}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
