"""Metrics of class predictions.

An example whose outputs say nothing, because one is NaN or the largest is infinite, is never
correct. A class may be ruled out by a logit of minus infinity.
"""

import jax
import jax.numpy as jnp

from floral import check, targets
from floral.errors import SpecError
from floral.first_argument import first_by_place
from floral.metrics.base import Metric, added, from_per_example
from floral.typing import Array, Batch

__all__ = ["accuracy", "balanced_accuracy", "confusion", "macro_f1", "top_k_accuracy"]


def accuracy() -> Metric:
    """The share of examples whose largest logit is the label's.

    Where an example has several labels (tokens), it is the share of them that are right.

    Raises:
      SpecError: when traced, unless outputs are [B, classes] and labels [B], of whole numbers.

    Example:
      >>> batch = {"y": jnp.array([0, 1]), "mask": jnp.ones(2, bool)}
      >>> metric = accuracy()
      >>> float(metric.compute(metric.from_outputs(jnp.array([[2.0, 1.0], [2.0, 1.0]]), batch)))
      0.5
    """

    def correct(outputs, batch):
        logits, labels = targets.classes(outputs, batch, what="accuracy")
        return targets.per_example_mean(_said(logits) & (jnp.argmax(logits, -1) == labels))

    return from_per_example(correct)


@first_by_place
def top_k_accuracy(*, k: int) -> Metric:
    """The share of examples whose label is among the k largest logits.

    Args:
      k: how many of the largest logits count.

    Raises:
      SpecError: when traced, for more than there are classes, and as ``accuracy``.
    """
    check.positive_int(k=k)

    def correct(outputs, batch):
        logits, labels = targets.classes(outputs, batch, what="top_k_accuracy")
        if k > logits.shape[-1]:
            raise SpecError(
                f"top_k_accuracy: k must be at most the model's {logits.shape[-1]} outputs, got {k}"
            )
        largest, best = jax.lax.top_k(logits, k)
        found = jnp.any((best == labels[..., None]) & jnp.isfinite(largest), axis=-1)
        return targets.per_example_mean(_said(logits) & found)

    return from_per_example(correct)


def confusion() -> Metric:
    """How often each class was taken for each: counts [classes, classes], labels by predictions.

    An example whose outputs say nothing is in no cell.

    Raises:
      SpecError: when traced, as ``accuracy``.

    Example:
      >>> batch = {"y": jnp.array([0, 1, 1]), "mask": jnp.ones(3, bool)}
      >>> metric, outputs = confusion(), jnp.array([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
      >>> metric.compute(metric.from_outputs(outputs, batch)).tolist()
      [[1, 0], [1, 1]]
    """

    def from_outputs(outputs, batch):
        labels, predicted, live, classes = _flat(outputs, batch, "confusion")
        cells = jnp.zeros((classes, classes), jnp.int32)
        # A prediction of ``classes``, of outputs that say nothing, falls outside and is dropped.
        return cells.at[labels, predicted].add(live.astype(jnp.int32), mode="drop")

    return Metric(from_outputs, added, lambda cells: cells)


def balanced_accuracy() -> Metric:
    """The mean over classes of the share of their examples that is right.

    Classes that no label names are left out, as scikit-learn's ``balanced_accuracy_score`` does.

    Raises:
      SpecError: when traced, as ``accuracy``.
    """

    def compute(counts):
        named = counts["labels"] > 0
        recall = counts["right"] / jnp.maximum(counts["labels"], 1)
        return _mean_where(named, recall)

    return Metric(_by_class("balanced_accuracy"), added, compute)


def macro_f1() -> Metric:
    """The mean over classes of F1, ``2 right / (labels + predictions)``.

    Classes that neither a label nor a prediction names are left out, as scikit-learn's
    ``f1_score(average="macro")`` does. An example whose outputs say nothing is a label without a
    prediction.

    Raises:
      SpecError: when traced, as ``accuracy``.
    """

    def compute(counts):
        named = counts["labels"] + counts["predicted"]
        f1 = 2 * counts["right"] / jnp.maximum(named, 1)
        return _mean_where(named > 0, f1)

    return Metric(_by_class("macro_f1"), added, compute)


def _by_class(what: str):
    """``(outputs, batch) -> {"right", "labels", "predicted": [classes] int32}``."""

    def from_outputs(outputs, batch):
        labels, predicted, live, classes = _flat(outputs, batch, what)

        def count(of: Array, where: Array) -> Array:
            empty = jnp.zeros(classes, jnp.int32)
            return empty.at[of].add(where.astype(jnp.int32), mode="drop")

        return {
            "right": count(labels, live & (labels == predicted)),
            "labels": count(labels, live),
            "predicted": count(predicted, live),
        }

    return from_outputs


def _flat(outputs: Array, batch: Batch, what: str) -> tuple[Array, Array, Array, int]:
    """Every label [n], its prediction [n], whether it counts [n], and the number of classes, which
    stands for the prediction of outputs that say nothing."""
    logits, labels = targets.classes(outputs, batch, what=what)
    classes = logits.shape[-1]
    predicted = jnp.where(_said(logits), jnp.argmax(logits, -1), classes)
    mask = batch["mask"].reshape(-1, *(1,) * (labels.ndim - 1))
    live = jnp.broadcast_to(mask, labels.shape)
    return labels.reshape(-1), predicted.reshape(-1), live.reshape(-1), classes


def _said(logits: Array) -> Array:
    """Where the largest logit is finite, and none is NaN: [...] for logits [..., classes]."""
    return jnp.isfinite(jnp.max(logits, axis=-1))


def _mean_where(mask: Array, values: Array) -> Array:
    """The mean over classes that count; NaN where there is none."""
    count = jnp.sum(mask)
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)
