r"""Excess risk against samples a cluster: a shared base with adaptors, and a model a cluster.

    python experiments/floral/sharing.py

Synthetic linear regressions of ten outputs on ten inputs: eight clusters whose matrices differ by
rank one, four clients each, noise of variance one. *shared* trains a base and an adaptor of rank
one a cluster, *independent* an adaptor of full shape a cluster over a frozen base, which is a model
a cluster. Clients know their cluster, so that nothing but what is shared differs. Every round is
one step of gradient descent on all data, 1,000 of them.

The excess risk of a model (W, b) is in closed form ``(‖W - W_c‖² + ‖b - b_c‖²) / outputs``. By
theory the independent one is that of least squares, ``(d + 1) / (n - d - 2)`` for n samples a
cluster, and for many samples the ratio is that of free numbers: ``d m + m`` of the base and
``d + m - 1`` of each adaptor over ``C (d m + m)``.
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

CLUSTERS, CLIENTS, WIDTH = 8, 32, 10
SAMPLES = (20, 40, 80, 160)  # a cluster
SETTINGS = {
    "clusters": CLUSTERS,
    "clients": CLIENTS,
    "width": WIDTH,
    "samples": SAMPLES,
    "noise": 1.0,
    "rounds": 1000,
    "rate": 0.5,
    "precondition_epsilon": 1e-3,
}
KINDS = {
    "shared": (("base", "bank"), fl.adaptors.low_rank(rank=1)),
    "independent": (("bank",), fl.adaptors.additive()),
}


def excess(task: Any, kind: str, seed: int, examples: int) -> float:
    """The excess risk of a cluster's model, mean over clusters."""
    train, kernel = KINDS[kind]
    model = fl.models.linear(WIDTH)
    rules = [fl.adaptors.Rule(".*/kernel", kernel)]
    if kind == "independent":
        rules.append(fl.adaptors.Rule(".*/bias", fl.adaptors.additive()))
    algorithm = fl.algorithms.floral(
        fl.adaptors.adapt(model, rules, fl.simulate.sample_batch(task.dataset)),
        fl.losses.squared_error,
        fl.algorithms.local_solver(optax.sgd, learning_rate=SETTINGS["rate"]),
        fl.mixtures.known(),
        num_adaptors=CLUSTERS,
        train=train,
        precondition_epsilon=SETTINGS["precondition_epsilon"] if kind == "shared" else None,
    )
    simulator = fl.simulate.make_simulator(
        algorithm,
        model,
        task.dataset,
        metrics={},
        batching=fl.data.batching(batch_size=examples, shuffle=False),
    )
    state, _ = simulator.rounds(simulator.init(jax.random.key(seed)), SETTINGS["rounds"])
    errors = []
    for cluster in range(CLUSTERS):  # client c is of cluster c
        found = simulator.export(state, cluster)["params"]["Dense_0"]
        away = np.square(found["kernel"] - task.parameters["kernel"][cluster]).sum()
        errors.append((away + np.square(found["bias"] - task.parameters["bias"]).sum()) / WIDTH)
    return float(np.mean(errors))


def measure(seed: int) -> dict[str, Any]:
    """By samples a cluster the excess risk of both."""
    found = {}
    for samples in SAMPLES:
        examples = samples * CLUSTERS // CLIENTS
        task = fl.data.synthetic_linear(
            clients=CLIENTS,
            clusters=CLUSTERS,
            train=examples,
            outputs=WIDTH,
            noise=SETTINGS["noise"],
            seed=seed,
        )
        found[str(samples)] = {kind: excess(task, kind, seed, examples) for kind in KINDS}
    return found


def report(found: Mapping[int, Mapping[str, Any]]) -> str:
    """A row a number of samples: both risks, that of theory, and the ratio seed by seed."""
    rows = []
    for samples in SAMPLES:
        cells = [one[str(samples)] for one in found.values()]
        theory = (WIDTH + 1) / (samples - WIDTH - 2)
        rows.append(
            [
                str(samples),
                *(text([cell[kind] for cell in cells]) for kind in KINDS),
                f"{theory:.3f}",
                text([cell["shared"] / cell["independent"] for cell in cells]),
            ]
        )
    base = WIDTH * WIDTH + WIDTH
    limit = (base + CLUSTERS * (2 * WIDTH - 1)) / (CLUSTERS * base)
    rows.append(["many", "–", "–", "–", f"{limit:.3f} by theory"])
    head = ["samples a cluster", *KINDS, "independent by theory", "shared over independent"]
    return markdown(head, rows)


def text(values: list[float]) -> str:
    """Mean ± standard deviation over seeds."""
    one = over_seeds(values) if len(values) > 1 else None
    return f"{values[0]:.3f}" if one is None else f"{one.mean:.3f} ± {one.sd:.3f}"


if __name__ == "__main__":
    bed.run("sharing", __doc__, measure, SETTINGS, report)
