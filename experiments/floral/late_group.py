"""A bank that grows while it trains, when a new group of clients appears.

    python experiments/floral/late_group.py

Digits on 50 clients in five groups that name their digits differently (`label_shift`). For 25
rounds the clients of four groups train a bank of four adaptors, their groups found by
discriminants; then the fifth group joins, for 25 rounds more. What becomes of old groups and new:

* *without it*: the old groups go on alone, as if no one had joined.
* *same bank*: the new clients train with the four adaptors that there are.
* *grown*: `simulate.grow` adds a fifth adaptor. Nobody says who is new: from then on mixtures
  follow what each adaptor loses on a client's examples, and new clients find that the old adaptors
  lose more than none at all.
* *grown, known*: the same, but newcomers are known and start on the new adaptor, and logits stay.
* *from the start*: five adaptors and all clients in all 50 rounds.

Test accuracy in per cent. What the old groups lose by the new one is seed by seed against *without
it*, whose clients take the same steps on the same data.
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

BEFORE, AFTER = 25, 25
SETTINGS = {
    "rounds": [BEFORE, AFTER],
    "data": {"clients": 50, "groups": 5, "shift": "label_shift", "test": 0.25},
    "model": {"kind": "mlp", "hidden": [100], "budget": 0.05},
    "local": {"rate": 0.1, "batch": 10, "epochs": 1},
    "precondition_epsilon": 1e-3,
}
NEW = 4  # the group that joins
WAYS = ("without it", "same bank", "grown", "grown, known", "from the start")
MIXINGS = {
    "groups": fl.mixtures.discriminants(survey_rounds=1, group_rounds=1),
    "losses": fl.mixtures.exponential_weights(),
    "kept": fl.mixtures.softmax(),
}


def simulator(dataset: Any, mixing: str, num_adaptors: int) -> Any:
    """FLoRAL on the digits."""
    model = fl.models.mlp(10, hidden=(100,))
    rules = [
        fl.adaptors.Rule(".*/kernel", fl.adaptors.low_rank(budget=0.05)),
        fl.adaptors.Rule(".*/bias", fl.adaptors.additive()),
    ]
    algorithm = fl.algorithms.floral(
        fl.adaptors.adapt(model, rules, fl.simulate.sample_batch(dataset)),
        fl.losses.cross_entropy,
        fl.algorithms.local_solver(optax.sgd, learning_rate=0.1),
        MIXINGS[mixing],
        num_adaptors=num_adaptors,
        train=("base", "bank"),
        precondition_epsilon=1e-3,
    )
    return fl.simulate.make_simulator(
        algorithm,
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        batching=fl.data.batching(batch_size=10),
    )


def measure(seed: int) -> dict[str, Any]:
    """By way the accuracy of old and new groups."""
    everyone = fl.data.federate(
        fl.data.digits(),
        partition=fl.data.iid(clients=50),
        shift=fl.data.label_shift(clusters=5),
        split={"test": 0.25},
        seed=seed,
    )
    new = np.flatnonzero(everyone.traits["cluster"] == NEW)
    old = np.setdiff1d(np.arange(50), new)
    few = everyone._replace(unseen=everyone.traits["cluster"] == NEW)
    first = simulator(few, "groups", 4)
    key = jax.random.key(seed)
    start, _ = first.rounds(first.init(key), BEFORE)

    def ended(sim: Any, state: Any, rounds: int) -> dict[str, Any]:
        state, _ = sim.rounds(state, rounds)
        found = {
            name: 100 * float(sim.evaluate(state, "test", ids)["accuracy"].mean())
            for name, ids in (("old", old), ("new", new))
        }
        weights = sim.evaluate(state, "test")["mixture"]
        return {
            **found,
            "groups": fl.mixtures.agreement(weights, everyone.traits["cluster"]),
        }

    by_losses, kept = simulator(everyone, "losses", 5), simulator(everyone, "kept", 5)
    joined = jax.random.fold_in(key, 1)
    same = simulator(everyone, "losses", 4)
    inference = same.init(key).server.inference
    alone = start._replace(server=start.server._replace(inference=inference))
    whole = simulator(everyone, "groups", 5)
    return {
        "without it": ended(first, start, AFTER),
        "same bank": ended(same, alone, AFTER),
        "grown": ended(by_losses, fl.simulate.grow(start, by_losses, joined), AFTER),
        "grown, known": ended(kept, fl.simulate.grow(start, kept, joined, newcomers=new), AFTER),
        "from the start": ended(whole, whole.init(key), BEFORE + AFTER),
    }


def report(found: Mapping[int, Mapping[str, Any]]) -> str:
    """A row a way."""
    rows = []
    for way in WAYS:
        cells = [one[way] for one in found.values()]
        less = [one[way]["old"] - one["without it"]["old"] for one in found.values()]
        rows.append(
            [
                way,
                *(text([cell[who] for cell in cells]) for who in ("old", "new")),
                "–" if way == "without it" else text(less, "+"),
                text([100 * cell["groups"] for cell in cells]),
            ]
        )
    head = ["", "old groups", "new group", "old, less without it", "clients in their group"]
    return markdown(head, rows)


def text(values: list[float], sign: str = "") -> str:
    """Mean ± standard deviation over seeds."""
    one = over_seeds(values) if len(values) > 1 else None
    return f"{values[0]:{sign}.1f}" if one is None else f"{one.mean:{sign}.1f} ± {one.sd:.1f}"


if __name__ == "__main__":
    bed.run("late_group", __doc__, measure, SETTINGS, report)
