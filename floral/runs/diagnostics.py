"""What is told of mixtures beside predictions: what they make of averaging, and what they cost.

The names are those of an evaluation's ``mixture`` group; each number is of clients that train.
"""

from typing import Any

import numpy as np

from floral import mixtures
from floral.config.build import Experiment
from floral.simulate import SimulationState, Variances

__all__ = ["averaging_numbers", "diagnosed"]


def averaging_numbers(
    weights: list[np.ndarray], sizes: np.ndarray, clusters: np.ndarray | None
) -> dict[str, float]:
    """What mixtures make of averaging, each number averaged over layers.

    ``clients_an_adaptor`` and ``fewest_clients`` are effective ones over the adaptors in use.
    ``unused`` is how many adaptors have less than a tenth of an equal share of the clients, by
    examples. ``uniformity`` is the mixtures' mean entropy over log C, 1 for uniform ones; it is
    left out of a bank of one. ``mismatch`` is known where clusters are.

    Args:
      weights: [N, C] mixtures, of one layer or of several.
      sizes: [N] training examples.
      clusters: [N] true clusters; None if unknown.
    """
    effective = [mixtures.effective_clients(layer, sizes) for layer in weights]
    in_use = [layer[layer > 0] for layer in effective]
    numbers = {
        "clients_an_adaptor": _mean([layer.mean() for layer in in_use if layer.size]),
        "fewest_clients": _mean([layer.min() for layer in in_use if layer.size]),
    }
    shares = [np.average(layer, axis=0, weights=sizes) for layer in weights]
    numbers["unused"] = _mean([(share < 0.1 / len(share)).sum() for share in shares])
    several = [layer for layer in weights if layer.shape[1] > 1]
    if several:
        numbers["uniformity"] = _mean(
            [
                np.mean(np.asarray(mixtures.entropy(layer))) / np.log(layer.shape[1])
                for layer in several
            ]
        )
    if clusters is not None:
        numbers["mismatch"] = _mean(
            [mixtures.aggregation_mismatch(layer, sizes, clusters) for layer in weights]
        )
    return numbers


def diagnosed(
    experiment: Experiment,
    state: SimulationState,
    asked: np.ndarray,
    clients: np.ndarray,
    weights: list[np.ndarray],
    clusters: np.ndarray | None,
) -> dict[str, float]:
    """What some clients' losses and gradients say.

    ``regret`` is what the mean client's own model loses beyond the best single adaptor for it, and
    ``cluster_regret`` beyond the adaptor that stands for its cluster: on validation examples, or
    where there are none on training examples, which favour what they were trained with. It is
    negative where mixing gains.

    ``base_variance`` and ``adaptor_variance`` are how much gradients of training losses vary from
    client to client, ``base_variance_between`` how much of the first is between clusters (or
    between clients of different main adaptors, where clusters are unknown), and what ends in
    ``_averaged`` how much is left in an average over all clients: ``Σ_k p(k)²`` times the base's,
    ``Σ_k p(k|c)²`` times an adaptor's. Adaptors' numbers are means over those in use.

    Args:
      experiment: whose algorithm has diagnostics.
      state: looked at.
      asked: ids of the clients that are asked.
      clients: [N] ids of those whose mixtures are known, in order; the former among them.
      weights: their [N, C] mixtures, of one layer or of several.
      clusters: their [N] true clusters; None if unknown.
    """
    dataset = experiment.dataset
    sizes = dataset.splits["train"].sizes[clients]
    places = np.searchsorted(clients, asked)
    groups = np.argmax(np.mean(weights, axis=0), axis=1) if clusters is None else clusters
    validation = dataset.splits.get("validation")
    told = experiment.simulator.diagnose(
        state,
        asked,
        groups[places],
        num_groups=int(groups.max()) + 1 if clusters is not None else weights[0].shape[1],
        split="validation" if validation is not None and validation.max_size else "train",
        examples=experiment.evaluation.diagnose_examples,
    )
    effective = np.mean([mixtures.effective_clients(layer, sizes) for layer in weights], axis=0)
    stands_for = None
    if clusters is not None and len(weights) == 1:  # layers may number their adaptors differently
        stands_for = mixtures.matching(weights[0], clusters)[None] == groups[places, None]
    shares = sizes / sizes.sum()
    return {
        **_regrets(told, effective > 0, stands_for),
        **_variance_numbers(told["variances"], np.square(shares).sum(), effective),
    }


def _regrets(
    told: dict[str, Any], in_use: np.ndarray, stands_for: np.ndarray | None
) -> dict[str, float]:
    """Args: ``in_use`` [C]; ``stands_for`` [n, C], whether an adaptor is a client's cluster's."""
    tested = told["examples"] > 0
    own, alone = told["loss"][tested].astype(float), told["loss_alone"][tested].astype(float)
    best = np.where(in_use, alone, np.inf).min(axis=1)
    numbers = {"regret": _mean(own - best)}
    if stands_for is not None:
        served = stands_for[tested].any(axis=1)
        given = alone[stands_for[tested]]  # an adaptor stands for one cluster, and is its only one
        numbers["cluster_regret"] = _mean(own[served] - given)
    return numbers


def _variance_numbers(
    variances: Variances, share: np.ndarray, effective: np.ndarray
) -> dict[str, float]:
    """Args: ``share`` Σ_k p(k)², and ``effective`` [C] clients an adaptor."""
    base, bank = float(variances.base), np.asarray(variances.bank, float)
    known = np.isfinite(bank) & (effective > 0)
    return {
        "base_variance": base,
        "base_variance_between": base - float(variances.within),
        "base_variance_averaged": base * float(share),
        "adaptor_variance": _mean(bank[known]),
        "adaptor_variance_averaged": _mean(bank[known] / effective[known]),
    }


def _mean(values: Any) -> float:
    """NaN of nothing, without a warning."""
    return float(np.mean(values)) if len(values) else float("nan")
