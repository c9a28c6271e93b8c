"""Why broken clients cost FLoRAL's healthy ones more than FedAvg's: their place among the groups.

    python experiments/floral/faulty_groups.py

The digits, the clients and two faults of ``faults.py``, broken sensors (*noise*) and missing
features (*missing*), with 15 % of the training images kept for validation. A fault can harm healthy
clients in two ways. It can disturb the *bank*: updates of broken clients are averaged into the
adaptors of their group. Or it can disturb the *grouping*: broken clients, of whatever group, are
more like each other than like their group, so the data then show five groups for four adaptors.
Told apart by

* *four adaptors*: groups found by discriminants, as in ``faults.py``;
* *known groups*: four adaptors and an oracle's groups, so that the bank alone is disturbed;
* *absent*: known groups, and the broken clients never train: what the loss of their data costs;
* *five adaptors*: one for the broken clients;
* *counted*: six adaptors, of which as many train as the data show groups (``find_count``);
* *FedAvg*.

Printed is the test accuracy of healthy clients in per cent without a fault, what each fault costs
them in points, seed by seed, and which of them have their own group's adaptor with it. The number
of adaptors is chosen by what healthy clients have on validation data, on average over no fault and
both faults: nobody knows beforehand which of them it will be.
"""

import statistics
from collections.abc import Mapping
from typing import Any

import bed
import jax
import jax.numpy as jnp
import numpy as np
from faults import CLIENTS, SETTINGS, bank, dataset, faulty, fedavg, groups, text, trained

import floral as fl
from floral.text_table import markdown

__all__ = ["CHOICES", "FAULTS", "chosen", "cost"]

VALIDATION = 0.15
FAULTS = ("none", "noise", "missing")
CHOICES = ("four adaptors", "five adaptors", "counted")
"""Ways that need no oracle, to choose from."""


def absent(seed: int) -> fl.simulate.Sampler:
    """Everyone but the broken clients."""
    who = jnp.asarray(faulty(seed, "noise"))

    def sample(key: Any, round_index: Any, clients: Any) -> tuple[Any, Any]:
        return clients, ~who[clients]

    return fl.simulate.Sampler(capacity=lambda population: population, sample=sample)


def algorithm(data: Any, way: str) -> Any:
    """What a way trains."""
    if way == "FedAvg":
        return fedavg()
    if way in ("known groups", "absent"):
        return bank(data, fl.mixtures.known())
    count = {"four adaptors": 4, "five adaptors": 5, "counted": 6}[way]
    return bank(data, groups(find_count=way == "counted"), num_adaptors=count)


def healthy_after(data: Any, way: str, seed: int) -> dict[str, float]:
    """What healthy clients have after all rounds: accuracies, and the share of them that have an
    adaptor of their group alone."""
    cohort = absent(seed) if way == "absent" else None
    simulator, state = trained(algorithm(data, way), data, seed, cohort=cohort)
    healthy = ~faulty(seed, "noise")
    found = {}
    for split in ("validation", "test"):
        told = simulator.evaluate(state, split)
        found[split] = round(100 * float(np.mean(told["accuracy"][healthy])), 2)
    if way != "FedAvg":
        clusters = np.arange(CLIENTS)[healthy] % 4
        found["agreement"] = fl.mixtures.agreement(told["mixture"][healthy], clusters)
    return found


def measure(seed: int) -> dict[str, Any]:
    """By way and fault, of healthy clients."""
    ways: dict[str, Any] = {}
    for fault in FAULTS:
        data = dataset(seed, fault, validation=VALIDATION)
        for way in ("FedAvg", "known groups", *CHOICES):
            ways.setdefault(way, {})[fault] = healthy_after(data, way, seed)
        if fault == "none":
            ways["absent"] = {fault: healthy_after(data, "absent", seed)}
        jax.clear_caches()
    return ways


def cost(one: Mapping[str, Any], way: str, fault: str) -> float:
    """What a fault costs healthy clients of a seed, in points: 0 or negative."""
    if way == "absent":
        return one[way]["none"]["test"] - one["known groups"]["none"]["test"]
    return one[way][fault]["test"] - one[way]["none"]["test"]


def validated(one: Mapping[str, Any], way: str) -> float:
    """Validation accuracy of a seed, on average over no fault and both."""
    return statistics.mean(one[way][fault]["validation"] for fault in FAULTS)


def chosen(found: Mapping[int, Mapping[str, Any]]) -> str:
    """The way that validates best, on average over seeds."""
    return max(CHOICES, key=lambda way: statistics.mean(validated(o, way) for o in found.values()))


def report(found: Mapping[int, Mapping[str, Any]]) -> str:
    """A row a way, and the choice."""
    ones = list(found.values())
    rows = []
    for way in ones[0]:
        grouped = [
            f"{100 * statistics.mean(one[way][fault]['agreement'] for one in ones):.0f} %"
            if "agreement" in one[way].get(fault, {})
            else "–"
            for fault in FAULTS
            for one in ones[:1]
        ]
        without = "known groups" if way == "absent" else way
        rows.append(
            [
                way,
                text([one[without]["none"]["test"] for one in ones]),
                *(text([cost(one, way, fault) for one in ones], "+") for fault in FAULTS[1:]),
                *grouped,
                text([validated(one, way) for one in ones]) if way in CHOICES else "–",
            ]
        )
    head = ["way", "no fault", "noise", "missing", *(f"own group, {fault}" for fault in FAULTS)]
    table = markdown([*head, "validation"], rows)
    return f"{table}\n\nChosen on validation data: {chosen(found)}."


if __name__ == "__main__":
    settings = {**SETTINGS, "validation": VALIDATION, "adaptors": [4, 5, 6]}
    bed.run("faulty_groups", __doc__, measure, settings, report)
