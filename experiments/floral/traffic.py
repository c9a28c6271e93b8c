"""Bytes of a base and four adaptors against four whole models, on a CNN: by formula and counted.

    python experiments/floral/traffic.py

FLoRAL holds and sends its base and C adaptors, an adaptor ``r (d_in + d_out)`` numbers a matrix of
``d_in x d_out``, ``r k (d_in + d_out)`` a convolution with kernels of ``k x k`` whose axes the two
factors share, and as many as the leaf has where it is an offset; the Ensemble and known groups of
whole models hold and send C models. Counted is what the simulator says that a client uploads in a
round, weights of the averages included (a number for the base, C for the bank). Nothing is trained,
and nothing is random but the initial values: the network is FLoRAL's for CIFAR-10.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import bed
import jax
import numpy as np
import optax

import floral as fl
from floral.text_table import markdown

COUNT = 4
RANKS = (1, 2, 4)
SETTINGS = {"count": COUNT, "ranks": RANKS, "model": "cnn", "image": (32, 32, 3), "classes": 10}
LARGEST = 1.2
"""FLoRAL's traffic over FedAvg's, at a small rank: the most that is asked."""


def measure(seed: int) -> dict[str, Any]:
    """By rank, numbers by formula and bytes that are counted."""
    images = np.zeros((8, 32, 32, 3), np.float32)
    client = {split: {"x": images, "y": np.arange(8) % 10} for split in ("train", "test")}
    dataset = fl.data.from_clients([client, client], num_classes=10)
    model, sample = fl.models.cnn(10), fl.simulate.sample_batch(dataset)
    params = jax.eval_shape(model.init, jax.random.key(0), sample)[0]
    leaves = {path: leaf.shape for path, leaf in fl.tree.paths(params).items()}
    local = fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
    loss, mixing = fl.losses.cross_entropy, fl.mixtures.softmax()

    def sent(algorithm: Any) -> int:
        return fl.simulate.make_simulator(algorithm, model, dataset, metrics={}).costs.upload_bytes

    base = sum(map(prod, leaves.values()))
    found: dict[str, Any] = {
        "model": base,
        "fedavg": sent(fl.algorithms.fedavg(model, loss, local)),
        "ensemble": sent(fl.algorithms.ensemble(model, loss, local, mixing, sample)),
    }
    for rank in RANKS:
        rules = [
            fl.adaptors.Rule(r".*/Conv_\d+/kernel", fl.adaptors.conv(rank=rank)),
            fl.adaptors.Rule(r".*/Dense_\d+/kernel", fl.adaptors.low_rank(rank=rank)),
            fl.adaptors.Rule(".*/bias", fl.adaptors.additive()),
        ]
        adapted = fl.adaptors.adapt(model, rules, sample)
        floral = fl.algorithms.floral(adapted, loss, local, mixing, num_adaptors=COUNT)
        adaptor = sum(numbers(shape, rank) for shape in leaves.values())
        found[f"rank {rank}"] = {"formula": base + COUNT * adaptor, "counted": sent(floral)}
    return found


def numbers(shape: tuple[int, ...], rank: int) -> int:
    """Of one adaptor at a leaf, by the formula."""
    if len(shape) == 1:
        return shape[0]
    side, (into, out) = shape[0] if len(shape) > 2 else 1, shape[-2:]
    return min(rank, side * into, side * out) * side * (into + out)


def report(found: Mapping[int, Mapping[str, Any]]) -> str:
    """A row a rank."""
    (one,) = found.values()
    whole = COUNT * one["model"]
    rows = []
    for rank in RANKS:
        cell = one[f"rank {rank}"]
        rows.append(
            [
                str(rank),
                f"{4 * cell['formula']:,}",
                f"{cell['counted']:,}",
                f"{cell['formula'] / whole:.3f}",
                f"{cell['counted'] / one['ensemble']:.3f}",
                f"{cell['counted'] / one['fedavg']:.3f}",
            ]
        )
    head = [
        "rank",
        "bytes by formula",
        "counted",
        "of four models",
        "counted",
        "of FedAvg, counted",
    ]
    return markdown(head, rows)


if __name__ == "__main__":
    bed.run("traffic", __doc__, measure, SETTINGS, report, seeds=[0])
