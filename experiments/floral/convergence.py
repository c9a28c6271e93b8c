"""Rounds to a target loss, with clusters and without: FLoRAL beside FedAvg.

    python experiments/floral/convergence.py

Synthetic linear regressions: 16 clients of two clusters that differ by a matrix of rank one, or of
one cluster. All methods have the same local solver and batches; FLoRAL has two adaptors of rank
one. Its mixtures follow their gradient (*gradient*), each adaptor's losses (*losses*), or are given
(*known*). Test loss is looked at after every round; with everybody's right model it would be the
noise, 0.01.

Targets: *FedAvg's best* is 1.05 times the lowest loss that FedAvg has in 200 rounds, and *near the
noise* twice the noise. Rounds are compared seed by seed, parameters and data included.
"""

from collections.abc import Mapping
from typing import Any

import bed
import jax
import numpy as np
import optax

import floral as fl
from floral.metrics import over_seeds
from floral.text_table import markdown

ROUNDS, NOISE = 200, 0.1
SETTINGS = {
    "rounds": ROUNDS,
    "data": {"clients": 16, "train": 20, "test": 50, "noise": NOISE},
    "rate": 0.1,
    "batch": 5,
}
BEDS = {"clustered": 2, "iid": 1}
MIXINGS = {
    "gradient": (fl.mixtures.softmax(), ("base", "bank", "mixture")),
    "losses": (fl.mixtures.exponential_weights(), ("base", "bank")),
    "known": (fl.mixtures.known(), ("base", "bank")),
}
TARGETS = ("FedAvg's best", "near the noise")


def losses(task: Any, method: str, seed: int) -> list[float]:
    """Mean test loss after each round."""
    model, local = fl.models.linear(3), fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
    if method == "fedavg":
        algorithm = fl.algorithms.fedavg(model, fl.losses.squared_error, local)
    else:
        mixing, train = MIXINGS[method]
        rules = [fl.adaptors.Rule(".*/kernel", fl.adaptors.low_rank(rank=1))]
        adapted = fl.adaptors.adapt(model, rules, fl.simulate.sample_batch(task.dataset))
        algorithm = fl.algorithms.floral(
            adapted, fl.losses.squared_error, local, mixing, num_adaptors=2, train=train
        )
    simulator = fl.simulate.make_simulator(
        algorithm,
        model,
        task.dataset,
        metrics={"loss": fl.metrics.from_per_example(fl.losses.squared_error)},
        batching=fl.data.batching(batch_size=SETTINGS["batch"]),
    )
    state, found = simulator.init(jax.random.key(seed)), []
    for _ in range(ROUNDS):
        state, _ = simulator.round(state)
        found.append(float(simulator.evaluate(state, "test")["loss"].mean()))
    return found


def measure(seed: int) -> dict[str, Any]:
    """By bed and target the round in which each method is there; None if it never is."""
    found: dict[str, Any] = {}
    for name, clusters in BEDS.items():
        task = fl.data.synthetic_linear(clusters=clusters, seed=seed, **SETTINGS["data"])
        curves = {method: losses(task, method, seed) for method in ("fedavg", *MIXINGS)}
        targets = dict(zip(TARGETS, (1.05 * min(curves["fedavg"]), 2 * NOISE**2), strict=True))
        found[name] = {
            "last": {method: curve[-1] for method, curve in curves.items()},
            **{
                target: {method: first(curve, value) for method, curve in curves.items()}
                for target, value in targets.items()
            },
        }
    return found


def first(curve: list[float], target: float) -> int | None:
    """The first round, from 1, at which the loss is no more than the target."""
    there = np.flatnonzero(np.array(curve) <= target)
    return int(there[0]) + 1 if there.size else None


def report(found: Mapping[int, Mapping[str, Any]]) -> str:
    """A row a method, bed and target: rounds, and rounds less FedAvg's in the same seed."""
    rows = []
    for name in BEDS:
        for target in TARGETS:
            for method in ("fedavg", *MIXINGS):
                rounds = {seed: one[name][target][method] for seed, one in found.items()}
                fedavg = {seed: one[name][target]["fedavg"] for seed, one in found.items()}
                there = {seed: taken for seed, taken in rounds.items() if taken is not None}
                less = [taken - fedavg[seed] for seed, taken in there.items() if fedavg[seed]]
                shown = [text(list(there.values())), f"{len(there)} of {len(found)}"]
                rows.append([name, target, method, *shown, text(less) if less else "–"])
    head = ["data", "target", "method", "rounds", "seeds that reach it", "less FedAvg's"]
    return markdown(head, rows, texts=3)


def text(values: list[float]) -> str:
    """Mean ± standard deviation."""
    if not values:
        return f"> {ROUNDS}"
    if len(values) == 1:
        return f"{values[0]:g}"
    one = over_seeds(values)
    return f"{one.mean:.1f} ± {one.sd:.1f}"


if __name__ == "__main__":
    bed.run("convergence", __doc__, measure, SETTINGS, report)
