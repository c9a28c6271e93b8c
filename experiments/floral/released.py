r"""The released code's rule on the paper's synthetic linear task: this toolkit beside plain NumPy.

    python experiments/floral/released.py

Ten clients in two known groups, matrices that differ by rank one, seven examples each
(``configs/floral/as_released/synthetic_linear.yaml``). Client k of group c trains, batch by batch,

    x W + b + \sum_j π_j (x a_j b_j + d_j),   π_c = 1, π_j = 0.01 for the others,

on the mean squared error, gradients of factors divided by (‖other factor‖² + ε). The server moves W
and b to their means, and a_c, b_c, d_c towards their means over the clients of group c: all the
way, or a tenth of it, which is what the authors' server does. `reference` is that rule in float64
and in this file alone: it shares data and start with the toolkit, and no code. Printed is the mean
squared error on test data, clients alike, of both by round and rate.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from floral.config.build import Experiment, build
from floral.config.reading.resolve import methods, read
from floral.data import FederatedDataset
from floral.text_table import markdown

__all__ = ["built", "reference", "toolkit"]

CONFIG = Path(__file__).parents[2] / "configs/floral/as_released/synthetic_linear.yaml"
ROWS = {"known_clusters": 0.1, "known_clusters_whole": 1.0}  # the rate of the bank
RATE, BATCH, FLOOR, RIDGE = 0.1, 4, 0.01, 1e-5


def built(row: str, seed: int) -> Experiment:
    """A row of the config."""
    return build(methods(read(CONFIG, [f"seed={seed}"]))[row])


def reference(
    dataset: FederatedDataset, start: Sequence[np.ndarray], bank_rate: float, rounds: Sequence[int]
) -> list[float]:
    """Test errors after these rounds, by the released rule.

    Args:
      dataset: regressions, whose trait ``cluster`` says who is of which group.
      start: W [d, m], b [m], a [C, d], b [C, m] and d [C, m].
      bank_rate: how far the server moves the last three.
      rounds: increasing.
    """
    groups = np.asarray(dataset.traits["cluster"])
    clients = [dataset.client(k) for k in range(len(groups))]
    sizes = np.array([len(client["train"]["x"]) for client in clients], float)
    own = np.where(groups[:, None] == np.arange(groups.max() + 1), 1.0, 0.0)  # [K, C]
    weights = np.maximum(own, FLOOR)
    server, found = [np.asarray(part, float) for part in start], []
    for now in range(1, rounds[-1] + 1):
        ends = [local(server, weights[k], client["train"]) for k, client in enumerate(clients)]
        for place, part in enumerate(server):
            told = np.stack([end[place] for end in ends])  # [K, ...]
            if place < 2:
                server[place] = np.tensordot(sizes / sizes.sum(), told, 1)
            else:
                share = sizes[:, None] * own / (sizes @ own)  # p(k | c)
                mean = np.stack([share[:, c] @ told[:, c] for c in range(own.shape[1])])
                server[place] = part + bank_rate * (mean - part)
        if now in rounds:
            errors = [
                np.mean(np.square(outputs(server, weights[k], c["test"]["x"]) - c["test"]["y"]))
                for k, c in enumerate(clients)
            ]
            found.append(float(np.mean(errors)))
    return found


def outputs(parts: Sequence[np.ndarray], weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The model of these weights."""
    matrix, bias, first, second, offsets = parts
    return x @ matrix + bias + (weights * (x @ first.T)) @ second + weights @ offsets


def local(parts: Sequence[np.ndarray], weights: np.ndarray, train: dict) -> list[np.ndarray]:
    """A client's parts after one pass over its examples in order."""
    matrix, bias, first, second, offsets = (part.copy() for part in parts)
    for at in range(0, len(train["x"]), BATCH):
        x, y = (np.asarray(train[name][at : at + BATCH], float) for name in ("x", "y"))
        error = outputs((matrix, bias, first, second, offsets), weights, x) - y
        slope = 2 * error / error.size  # [n, m]
        of_first = weights[:, None] * (second @ slope.T @ x)  # [C, d]
        of_second = weights[:, None] * (first @ x.T @ slope)  # [C, m]
        of_first /= np.square(second).sum(1, keepdims=True) + RIDGE
        of_second /= np.square(first).sum(1, keepdims=True) + RIDGE
        matrix -= RATE * x.T @ slope
        bias -= RATE * slope.sum(0)
        first -= RATE * of_first
        second -= RATE * of_second
        offsets -= RATE * weights[:, None] * slope.sum(0)
    return [matrix, bias, first, second, offsets]


def toolkit(
    experiment: Experiment, seed: int, rounds: Sequence[int]
) -> tuple[list[np.ndarray], list[float]]:
    """Where the toolkit starts, as `reference` takes it, and its test errors after these rounds."""
    simulator = experiment.simulator
    state = simulator.init(jax.random.key(seed))
    dense, bank = state.server.base["params"]["Dense_0"], state.server.bank
    kernel = bank["params/Dense_0/kernel"]
    factors = (kernel["a"][:, 0], kernel["b"][:, 0], bank["params/Dense_0/bias"]["offset"])
    start = [np.asarray(part, float) for part in (dense["kernel"], dense["bias"], *factors)]
    found = []
    for mark in rounds:
        state, _ = simulator.rounds(state, mark - int(state.round))
        found.append(float(np.mean(simulator.evaluate(state, "test")["loss"])))
    return start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, nargs="+", default=[50, 100, 300, 1000, 3000])
    given = parser.parse_args()
    rows = []
    for row, rate in ROWS.items():
        experiment = built(row, given.seed)
        start, ours = toolkit(experiment, given.seed, given.rounds)
        plain = reference(experiment.dataset, start, rate, given.rounds)
        rows += [
            [f"{rate:g}", who, *(f"{value:.4g}" for value in values)]
            for who, values in (("toolkit", ours), ("NumPy", plain))
        ]
    print(markdown(["bank's rate", "by", *map(str, given.rounds)], rows, texts=2))


if __name__ == "__main__":
    main()
