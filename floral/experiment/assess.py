"""One evaluation: every client's own model on its own data, as a table and as a few numbers."""

from typing import Any

import numpy as np

from floral import mixtures
from floral.experiment.build import Experiment
from floral.metrics import gini, worst_share
from floral.simulate import SimulationState

__all__ = ["assess", "score"]


def assess(
    experiment: Experiment, state: SimulationState
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Evaluates all clients on their validation and test data.

    Returns:
      ``(numbers, table)``: numbers by group (``validation`` and ``test`` of the training
      population, ``unseen`` on test data, ``mixture``), table columns [N] or [N, C].
    """
    dataset, simulator = experiment.dataset, experiment.simulator
    table: dict[str, np.ndarray] = {"unseen": dataset.unseen}
    if "cluster" in dataset.traits:
        table["cluster"] = dataset.traits["cluster"]
    numbers: dict[str, Any] = {}
    for split in ("validation", "test"):
        if split not in dataset.splits or dataset.splits[split].max_size == 0:
            continue
        report = simulator.evaluate(state, split)
        table["client"] = report.pop("client")
        mixture = report.pop("mixture", None)
        examples = report.pop("examples")
        table[f"{split}_examples"] = examples
        table |= {f"{split}_{name}": values for name, values in report.items()}
        tested = examples > 0
        numbers[split] = _summary(report, tested & ~dataset.unseen)
        if split == "test" and (tested & dataset.unseen).any():
            numbers["unseen"] = _summary(report, tested & dataset.unseen)
        if mixture is not None:
            table |= _mixture_columns(mixture)
    if any(name.startswith("mixture") for name in table):
        numbers["mixture"] = _mixture_numbers(table, dataset.unseen)
    return numbers, table


def score(numbers: dict[str, Any]) -> float | None:
    """What the best round is chosen by, larger is better: validation accuracy, or minus the loss.

    None without validation data: nothing else may choose.
    """
    if "validation" not in numbers:
        return None
    validation = numbers["validation"]
    return validation.get("accuracy", {"mean": -validation["loss"]["mean"]})["mean"]


def _summary(report: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, dict[str, float]]:
    summary = {}
    for name, values in report.items():
        some = values[chosen].astype(float)
        if some.size == 0:
            continue
        summary[name] = {
            "mean": float(some.mean()),
            "std": float(some.std()),
            "worst_decile": worst_share(some, largest=name == "loss"),
            "p10": float(np.quantile(some, 0.1)),
            "p90": float(np.quantile(some, 0.9)),
            "gini": gini(some),
        }
    return summary


def _mixture_columns(mixture: Any) -> dict[str, np.ndarray]:
    """``mixture`` [N, C], or one such column for every layer."""
    if not isinstance(mixture, dict):
        return {"mixture": mixture}
    return {f"mixture:{prefix}": weights for prefix, weights in mixture.items()}


def _mixture_numbers(table: dict[str, np.ndarray], unseen: np.ndarray) -> dict[str, float]:
    """How sure and how right mixtures are, averaged over layers where each has its own."""
    columns = [values for name, values in table.items() if name.startswith("mixture")]
    groups = {"": ~unseen, "unseen_": unseen}
    numbers: dict[str, float] = {}
    for prefix, chosen in groups.items():
        if not chosen.any():
            continue
        weights = [column[chosen] for column in columns]
        numbers[f"{prefix}sharpness"] = float(np.mean([mixtures.sharpness(w) for w in weights]))
        numbers[f"{prefix}entropy"] = float(
            np.mean([np.asarray(mixtures.entropy(w)).mean() for w in weights])
        )
        if "cluster" in table and (table["cluster"][chosen] >= 0).all():
            clusters = table["cluster"][chosen]
            numbers[f"{prefix}agreement"] = float(
                np.mean([mixtures.agreement(w, clusters) for w in weights])
            )
    return numbers
