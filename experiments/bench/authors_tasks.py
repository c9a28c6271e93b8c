"""A round of the FLoRAL paper's small tasks: every client trains and is evaluated, each round.

    python experiments/bench/authors_tasks.py            # under a minute; a Markdown table

FLoRAL as in ``configs/floral/``: the linear task (10 clients, 2 steps of 4, 2 adaptors), the MLP
task (20 clients, 12 steps of 8, 4 adaptors), and images of MNIST's shape (20 clients, 7 steps of
32, MLP 784-200-10, 4 adaptors). Set up as the command line sets a run up. A figure is the median
over blocks of rounds, each round followed by an evaluation of every client's own model on its own
test data; ``rounds alone`` are of one compiled call.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from floral.text_table import markdown

ROOT = Path(__file__).parents[2]


def tasks() -> dict[str, Any]:
    """Simulators by name."""
    import numpy as np

    import floral as fl
    from floral.config.build import build
    from floral.config.reading.resolve import methods, read

    made: dict[str, Any] = {}
    for name in ("linear", "mlp"):
        whole = read(ROOT / f"configs/floral/synthetic_{name}.yaml", ["compare=null"])
        (config,) = methods(whole).values()
        made[name] = build(config).simulator
    rng = np.random.default_rng(0)
    source = fl.data.arrays(
        rng.random((20 * 270, 28, 28, 1), np.float32), rng.integers(0, 10, 20 * 270)
    )
    dataset = fl.data.federate(source, partition=fl.data.iid(clients=20), split={"test": 46 / 270})
    model = fl.models.mlp(10, hidden=(200,))
    rules = [
        fl.adaptors.Rule(".*/kernel", fl.adaptors.low_rank(budget=0.01)),
        fl.adaptors.Rule(".*/bias", fl.adaptors.additive()),
    ]
    algorithm = fl.algorithms.floral(
        fl.adaptors.adapt(model, rules, fl.simulate.sample_batch(dataset)),
        fl.losses.cross_entropy,
        fl.algorithms.as_local(fl.algorithms.optimizers.sgd)(learning_rate=0.1),
        fl.mixtures.softmax(),
        num_adaptors=4,
    )
    made["images"] = fl.simulate.make_simulator(
        algorithm,
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        batching=fl.data.batching(batch_size=32),
        donate=True,
    )
    return made


def seconds_a_round(simulator: Any, *, blocks: int, rounds: int) -> dict[str, float]:
    """Medians over blocks: with an evaluation after every round, and of rounds alone."""
    import jax

    state = simulator.init(jax.random.key(0))
    state, _ = simulator.rounds(state, 2)
    simulator.evaluate(simulator.round(state)[0])
    state = simulator.init(jax.random.key(0))
    evaluated, alone = [], []
    for _ in range(blocks):
        begun = time.perf_counter()
        for _ in range(rounds):
            state, _ = simulator.round(state)
            simulator.evaluate(state)
        evaluated.append((time.perf_counter() - begun) / rounds)
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(simulator.rounds(state, rounds))
        alone.append((time.perf_counter() - begun) / rounds)
    return {"evaluated": statistics.median(evaluated), "alone": statistics.median(alone)}


def table(figures: dict[str, dict[str, float]]) -> str:
    """A Markdown table of milliseconds."""
    rows = [
        [name, *(f"{1e3 * figure[what]:.2f}" for what in ("evaluated", "alone"))]
        for name, figure in figures.items()
    ]
    return markdown(["task", "round and evaluation of all, ms", "rounds alone, ms"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="the paper's small tasks")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=20, help="in a block")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    from floral.processes.startup import prepare_jax, usable_cores

    prepare_jax(os.environ, cores=usable_cores())
    figures = {
        name: seconds_a_round(simulator, blocks=given.blocks, rounds=given.rounds)
        for name, simulator in tasks().items()
    }
    print(table(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
