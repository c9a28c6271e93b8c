"""One evaluation: every client's own model on its own data, as a table and as a few numbers."""

import math
from typing import Any

import numpy as np

from floral import mixtures
from floral.config.build import Experiment
from floral.metrics import gini, worst_share
from floral.runs.diagnostics import averaging_numbers, diagnosed
from floral.simulate import SimulationState, personalization

__all__ = ["assess"]


def assess(
    experiment: Experiment, state: SimulationState
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Evaluates all clients, or a sample of them, on their validation and test data.

    Returns:
      ``(numbers, table)``: numbers by group (``validation`` and ``test`` of the training
      population, ``unseen`` on test data, ``global`` of the model that all share, ``mixture``),
      table columns [n] or [n, C], a row for each client that was evaluated.
    """
    dataset = experiment.dataset
    seen, unseen = (
        _sample(ids, experiment.evaluation.clients)
        for ids in (dataset.seen, np.flatnonzero(dataset.unseen))
    )
    rows = np.sort(np.concatenate([seen, unseen]))
    table: dict[str, np.ndarray] = {"client": rows, "unseen": dataset.unseen[rows]}
    if dataset.client_names is not None:
        table["name"] = dataset.client_names[rows]
    if "cluster" in dataset.traits:
        table["cluster"] = dataset.traits["cluster"][rows]
    numbers: dict[str, Any] = {}
    # Validation chooses the best round, and unseen clients have no say in that.
    for name, split, clients in (
        ("validation", "validation", seen),
        ("test", "test", seen),
        ("unseen", "test", unseen),
    ):
        if not clients.size or split not in dataset.splits or not dataset.splits[split].max_size:
            continue
        report = experiment.simulator.evaluate(state, split, clients)
        mixture = report.pop("mixture", None)
        tested = report["examples"] > 0
        if not tested.any():
            continue
        numbers[name] = {
            metric: _summary_of(experiment, metric, values[tested], report["examples"][tested])
            for metric, values in report.items()
            if metric not in ("client", "examples")
        }
        columns = {f"{split}_{metric}": values for metric, values in report.items()}
        del columns[f"{split}_client"]
        columns |= {} if mixture is None else _mixture_columns(mixture)
        for column, values in columns.items():
            _fill(table, column, np.searchsorted(rows, clients), values)
    if experiment.evaluation.global_model and experiment.algorithm.global_model:
        split = next((split for split in ("test", "validation") if split in numbers), None)
        if split is not None:
            numbers["global"] = _of_global_model(experiment, state, split, seen, table)
    weights = [values for name, values in table.items() if name.startswith("mixture")]
    if weights:
        numbers["mixture"] = _mixture_numbers(weights, table)
        numbers["mixture"] |= _training_numbers(experiment, state, seen, weights, table)
        if experiment.algorithm.report is not None:
            told = experiment.algorithm.report(state.server)
            numbers["mixture"] |= {name: float(number) for name, number in told.items()}
    return numbers, table


def _of_global_model(
    experiment: Experiment,
    state: SimulationState,
    split: str,
    clients: np.ndarray,
    table: dict[str, np.ndarray],
) -> dict[str, Any]:
    """What clients would have without a part of their own; columns ``global_<metric>``."""
    nothing = personalization(steps=0)
    report = experiment.simulator.evaluate(state, split, clients, nothing)
    report = {
        metric: values for metric, values in report.items() if metric not in ("client", "mixture")
    }
    examples = report.pop("examples")
    for metric, values in report.items():
        _fill(table, f"global_{metric}", np.searchsorted(table["client"], clients), values)
    tested = examples > 0
    return {
        metric: _summary_of(experiment, metric, values[tested], examples[tested])
        for metric, values in report.items()
    }


def _summary_of(
    experiment: Experiment, metric: str, values: np.ndarray, examples: np.ndarray
) -> dict[str, float]:
    """``_summary`` of the clients that have a number, and ``clients``, how many, if not all have.

    The loss and the accuracy are of all clients. Another metric may be undefined for some, as the
    area under the ROC curve is where a client's examples are all of one class.
    """
    defined = np.full(len(values), True) if metric in ("loss", "accuracy") else ~np.isnan(values)
    if not defined.any():
        defined[:] = True
    worst = metric in experiment.smaller_is_better
    numbers = _summary(values[defined], examples[defined], largest_is_worst=worst)
    return numbers if defined.all() else {**numbers, "clients": int(defined.sum())}


def _summary(
    values: np.ndarray, examples: np.ndarray, *, largest_is_worst: bool
) -> dict[str, float]:
    """One number per client, in a few.

    ``of_examples`` weights clients by their examples. Of a mean over examples (loss, accuracy) that
    is the mean over all examples alike; of another metric (rmse, F1, AUC) it is not what all
    examples together would give.
    ``std`` is that of these very clients, divided by their number. ``gini`` is NaN where a value is
    negative (a metric of one's own may be), with which it says nothing.
    """
    values = values.astype(float)
    return {
        "mean": float(values.mean()),
        "of_examples": float(np.average(values, weights=examples)),
        "std": float(values.std()),
        "worst": float(values.max() if largest_is_worst else values.min()),
        "worst_decile": worst_share(values, largest=largest_is_worst),
        "p10": float(np.quantile(values, 0.1)),
        "p90": float(np.quantile(values, 0.9)),
        "gini": gini(values) if (values >= 0).all() else math.nan,
    }


def _sample(ids: np.ndarray, count: int | None) -> np.ndarray:
    """So many of the ids, in order and the same each time; all where there are no more."""
    if count is None or count >= len(ids):
        return ids
    return np.sort(np.random.default_rng(0).choice(ids, count, replace=False))


def _fill(table: dict[str, np.ndarray], column: str, places: np.ndarray, values: np.ndarray):
    """Writes the values of some rows; others stay NaN (0 for counts) until they are written."""
    if column not in table:
        empty = np.nan if np.issubdtype(values.dtype, np.floating) else 0
        shape = (len(table["client"]), *values.shape[1:])
        table[column] = np.full(shape, empty, values.dtype)
    table[column][places] = values


def _mixture_columns(mixture: Any) -> dict[str, np.ndarray]:
    """``mixture`` [N, C], or one such column for every layer."""
    if not isinstance(mixture, dict):
        return {"mixture": mixture}
    return {f"mixture:{prefix}": weights for prefix, weights in mixture.items()}


def _clusters(table: dict[str, np.ndarray]) -> np.ndarray | None:
    """The true cluster of every client; None unless all are known."""
    clusters = table.get("cluster")
    if clusters is None or clusters.dtype.kind not in "iu" or (clusters < 0).any():
        return None
    return clusters


def _training_numbers(
    experiment: Experiment,
    state: SimulationState,
    seen: np.ndarray,
    weights: list[np.ndarray],
    table: dict[str, np.ndarray],
) -> dict[str, float]:
    """What mixtures make of the training of those clients that train."""
    trained, clusters = ~table["unseen"], _clusters(table)
    own = [column[trained] for column in weights]
    clusters = None if clusters is None else clusters[trained]
    sizes = experiment.dataset.splits["train"].sizes[seen]
    numbers = averaging_numbers(own, sizes, clusters)
    if count := experiment.evaluation.diagnose_clients:
        if experiment.algorithm.diagnostics is not None:
            numbers |= diagnosed(experiment, state, _sample(seen, count), seen, own, clusters)
        if (measure := experiment.simulator.averaging_gap) is not None:
            cohort = _sample(seen, min(count, experiment.simulator.cohort))
            numbers["averaging_gap"] = measure(state, cohort)
    return numbers


def _mixture_numbers(columns: list[np.ndarray], table: dict[str, np.ndarray]) -> dict[str, float]:
    """How sure and how right mixtures are, averaged over layers where each has its own."""
    unseen, known = table["unseen"], _clusters(table)
    groups = {"": ~unseen, "unseen_": unseen}
    # What an adaptor stands for is settled by those who trained it.
    stands_for = (
        []
        if known is None
        else [mixtures.matching(column[~unseen], known[~unseen]) for column in columns]
    )
    numbers: dict[str, float] = {}
    for prefix, chosen in groups.items():
        if not chosen.any():
            continue
        weights = [column[chosen] for column in columns]
        numbers[f"{prefix}sharpness"] = float(np.mean([mixtures.sharpness(w) for w in weights]))
        numbers[f"{prefix}entropy"] = float(
            np.mean([np.asarray(mixtures.entropy(w)).mean() for w in weights])
        )
        numbers[f"{prefix}adaptors"] = float(
            np.mean([mixtures.effective_adaptors(w) for w in weights])
        )
        if known is not None:
            clusters = known[chosen]
            scores = [mixtures.cluster_scores(w, clusters) for w in weights]
            for name in ("ari", "nmi"):
                numbers[prefix + name] = float(np.mean([score[name] for score in scores]))
            numbers[f"{prefix}agreement"] = float(
                np.mean(
                    [
                        mixtures.agreement(w, clusters, cluster_of=cluster_of)
                        for w, cluster_of in zip(weights, stands_for, strict=True)
                    ]
                )
            )
    return numbers
