"""Broken sensors, missing features, lost updates, overflow: whom faulty clients harm.

    python experiments/floral/faults.py

Digits on 40 clients in four groups that turn their images by quarter turns. Eight or twelve of the
clients, as many of each group, are faulty in training and in test data:

* *noise*: a broken sensor; its images are uniform noise, under the labels that they had.
* *missing*: the lower half of every image is zero.
* *crash*: in every round half of the faulty clients, drawn anew, are lost before they upload.
* *overflow*: one client's images are so large that its update is not finite; by default it is
  averaged, and the model is NaN. *dropped* is the same with ``uplink(non_finite="drop")``.

FedAvg, FLoRAL with discriminants, and both with every client's update clipped to a norm of one, the
only robust rule that the library has today (tried on the first two); a clip refuses discriminants'
sums, so that *clipped floral* is told its groups. Test accuracy in per cent, less that of the same
method and seed without faults, of healthy and faulty clients apart.
"""

from collections.abc import Mapping
from typing import Any

import bed
import jax
import jax.numpy as jnp
import numpy as np
import optax

import floral as fl
from floral.metrics import over_seeds
from floral.text_table import markdown

CLIENTS, ROUNDS = 40, 15
SETTINGS = {
    "rounds": ROUNDS,
    "data": {"clients": CLIENTS, "groups": 4, "shift": "rotate", "test": 0.25},
    "model": {"kind": "mlp", "hidden": [100], "budget": 0.05},
    "local": {"rate": 0.1, "batch": 10, "epochs": 1},
    "precondition_epsilon": 1e-3,
    "clip": 1.0,
}
METHODS = ("fedavg", "floral", "clipped fedavg", "clipped floral")
FAULTS = ("none", "noise", "missing", "crash", "overflow", "dropped")
CLIPPED = FAULTS[:3]  # what a clip is tried on
LARGE = 1e30


def faulty(seed: int, fault: str) -> np.ndarray:
    """[N] bool: 8 or 12 clients, or the first of them; client k is of group k mod 4."""
    who = np.arange(CLIENTS) // 4 % 4 == seed % 4
    return who & (np.cumsum(who) == 1) if fault in ("overflow", "dropped") else who


def dataset(seed: int, fault: str, *, validation: float = 0.0) -> Any:
    """The digits, with the fault in them, in all splits."""
    whole = fl.data.federate(
        fl.data.digits(),
        partition=fl.data.iid(clients=CLIENTS),
        shift=fl.data.rotate(clusters=4),
        split={"test": 0.25, **({"validation": validation} if validation else {})},
        seed=seed,
    )
    rng, who = np.random.default_rng(seed), faulty(seed, fault)
    splits = {}
    for name, split in whole.splits.items():
        x, of = np.array(split.examples["x"]), np.repeat(who, split.sizes)
        if fault == "noise":
            x[of] = rng.random(x[of].shape, np.float32)
        if fault == "missing":
            x[of, 14:] = 0.0
        if fault in ("overflow", "dropped"):
            x[of] = x[of] * LARGE
        splits[name] = split._replace(examples={**split.examples, "x": x})
    return whole._replace(splits=splits)


def crashes(seed: int) -> fl.simulate.Sampler:
    """Everyone, but for half of the faulty clients, drawn in each round."""
    who = jnp.asarray(faulty(seed, "crash"))

    def sample(key: Any, round_index: Any, clients: Any) -> tuple[Any, Any]:
        lost = who[clients] & jax.random.bernoulli(key, 0.5, clients.shape)
        return clients, ~lost

    return fl.simulate.Sampler(capacity=lambda population: population, sample=sample)


def bank(data: Any, mixing: fl.mixtures.Mixing, *, num_adaptors: int = 4) -> Any:
    """FLoRAL on the digits."""
    model = fl.models.mlp(10, hidden=(100,))
    rules = [
        fl.adaptors.Rule(".*/kernel", fl.adaptors.low_rank(budget=0.05)),
        fl.adaptors.Rule(".*/bias", fl.adaptors.additive()),
    ]
    return fl.algorithms.floral(
        fl.adaptors.adapt(model, rules, fl.simulate.sample_batch(data)),
        fl.losses.cross_entropy,
        fl.algorithms.local_solver(optax.sgd, learning_rate=0.1),
        mixing,
        num_adaptors=num_adaptors,
        train=("base", "bank"),
        precondition_epsilon=1e-3,
    )


def fedavg() -> Any:
    """One model for all."""
    model, local = fl.models.mlp(10, hidden=(100,)), fl.algorithms.local_solver
    return fl.algorithms.fedavg(model, fl.losses.cross_entropy, local(optax.sgd, learning_rate=0.1))


def groups(*, find_count: bool = False) -> fl.mixtures.Mixing:
    """Mixtures by groups of clients that are found in the first four rounds."""
    return fl.mixtures.discriminants(survey_rounds=2, group_rounds=2, find_count=find_count)


def trained(
    algorithm: Any,
    data: Any,
    seed: int,
    *,
    cohort: fl.simulate.Sampler | None = None,
    uplink: Any = None,
) -> tuple[Any, Any]:
    """The simulator, and its state after all rounds."""
    simulator = fl.simulate.make_simulator(
        algorithm,
        fl.models.mlp(10, hidden=(100,)),
        data,
        metrics={"accuracy": fl.metrics.accuracy()},
        batching=fl.data.batching(batch_size=10),
        cohort=cohort or fl.simulate.full(),
        uplink=uplink or fl.uplink.uplink(),
    )
    return simulator, simulator.rounds(simulator.init(jax.random.key(seed)), ROUNDS)[0]


def accuracy(data: Any, method: str, fault: str, seed: int) -> np.ndarray:
    """Of every client."""
    clipped = method.startswith("clipped")
    mixing = fl.mixtures.known() if clipped else groups()
    simulator, state = trained(
        fedavg() if method.endswith("fedavg") else bank(data, mixing),
        data,
        seed,
        cohort=crashes(seed) if fault == "crash" else None,
        uplink=fl.uplink.uplink(
            client=[fl.uplink.clip(max_norm=1.0)] if clipped else [],
            non_finite="drop" if fault == "dropped" else "keep",
        ),
    )
    return 100 * np.asarray(simulator.evaluate(state, "test")["accuracy"])


def measure(seed: int) -> dict[str, Any]:
    """By fault and method the accuracy of every client, and by fault who is faulty."""
    found: dict[str, Any] = {"faulty": {}, "accuracy": {}}
    for fault in FAULTS:
        data = dataset(seed, fault)
        found["faulty"][fault] = np.flatnonzero(faulty(seed, fault)).tolist()
        found["accuracy"][fault] = {
            method: accuracy(data, method, fault, seed).round(1).tolist()
            for method in METHODS
            if fault in CLIPPED or not method.startswith("clipped")
        }
    return found


def cost(one: Mapping[str, Any], fault: str, method: str, *, healthy: bool) -> float:
    """What a fault costs the healthy or the faulty clients of a seed, in points: 0 or negative."""
    who = np.isin(np.arange(CLIENTS), one["faulty"][fault], invert=healthy)
    with_it, without = (np.array(one["accuracy"][name][method]) for name in (fault, "none"))
    return float((with_it - without)[who].mean())


def report(found: Mapping[int, Mapping[str, Any]]) -> str:
    """A row a fault and kind of client; the first has accuracies, the others what faults cost."""
    ones = list(found.values())
    rows = [
        [
            "none",
            "all",
            *(text([np.mean(one["accuracy"]["none"][m]) for one in ones]) for m in METHODS),
        ]
    ]
    for fault in FAULTS[1:]:
        for who in ("healthy", "faulty"):
            cells = [
                text([cost(one, fault, method, healthy=who == "healthy") for one in ones], "+")
                if method in ones[0]["accuracy"][fault]
                else "–"
                for method in METHODS
            ]
            rows.append([fault, who, *cells])
    return markdown(["fault", "clients", *METHODS], rows, texts=2)


def text(values: list[float], sign: str = "") -> str:
    """Mean ± standard deviation over seeds."""
    one = over_seeds(values) if len(values) > 1 else None
    return f"{values[0]:{sign}.1f}" if one is None else f"{one.mean:{sign}.1f} ± {one.sd:.1f}"


if __name__ == "__main__":
    bed.run("faults", __doc__, measure, SETTINGS, report, seeds=range(3))
