"""What a client pays for personalization: FLoRAL's round against FedAvg's, same data, same walk.

    taskset -c 0 python experiments/bench/local_step.py     # about a minute; a Markdown table

One process; methods take turns, round by round, and every figure is a median of ratios to the
FedAvg round beside it, so that other load touches all alike. 100 clients, 60 examples each in
batches of 20, one epoch, 784-200-10 MLP, C = 4, rank by a budget of 1 %, one client after another.
Memory is the compiler's count of a round's temporaries, beside the data and the state.

Measured on one core: floral 1.15 (10th to 90th percentile 1.14 to 1.17), preconditioned 1.18, bank
and mixture 0.56, mixture alone 0.47; memory 1.02, 1.02, 0.15, 0.11. Twenty clients side by side, as
``--walk auto`` has those that train no weights of the base, the last two take 0.52 and 0.43.
``--adaptors 10 --budget 0.1``: 2.14, 3.37, 1.51, 0.93; of the first two the operations ask for 2.04
and 2.73. FedAvg's round is near the floor of its products, of which a frozen base leaves half.
"""

import argparse
import json
import time
from functools import partial

import algorithms
import jax
import numpy as np

import floral as fl


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
            metrics={},
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
    seconds: dict[str, list[float]] = {name: [] for name in simulators}
    for _ in range(arguments.repeats):
        for name, simulator in simulators.items():
            start = time.perf_counter()
            states[name] = jax.block_until_ready(simulator.round(states[name])[0])
            seconds[name].append(time.perf_counter() - start)

    base = np.array(seconds["fedavg"])
    figures = {}
    for name, times in seconds.items():
        ratios = np.array(times) / base
        figures[name] = {
            "time": float(np.median(ratios)),
            "time_p10": float(np.quantile(ratios, 0.1)),
            "time_p90": float(np.quantile(ratios, 0.9)),
            "memory": memory[name] / memory["fedavg"],
            "milliseconds": 1e3 * float(np.median(times)),
        }
    print("| method | time of a round / FedAvg's | 10th to 90th percentile | memory / FedAvg's |")
    print("| --- | ---: | ---: | ---: |")
    for name, row in figures.items():
        spread = f"{row['time_p10']:.2f} to {row['time_p90']:.2f}"
        print(f"| {name} | {row['time']:.2f} | {spread} | {row['memory']:.2f} |")
    print(f"\nFedAvg's round: {figures['fedavg']['milliseconds']:.0f} ms, {jax.devices()[0]}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
