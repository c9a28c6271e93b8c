r"""The area under the ROC curve, from counts that merge exactly.

The area is the share of pairs (an example of the class, one of another) that scores order rightly,
a tie counting one half. It needs the ranks of all scores, which no sums give; here scores are
counted in narrow bins instead. Examples of one bin are tied, so that the area is off by at most
half the share of pairs that fall into one bin:

.. math:: |\hat A - A| \le \frac{1}{2} \frac{\sum_b p_b n_b}{P N}

with :math:`p_b` of :math:`P` positive and :math:`n_b` of :math:`N` negative examples in bin b.
"""

import jax
import jax.numpy as jnp

from floral import check, targets
from floral.errors import SpecError
from floral.first_argument import first_by_place
from floral.metrics.base import Metric, added
from floral.typing import Array, Batch

__all__ = ["auc"]

_SCALE = 1e3  # bins have equal widths below one thousandth, and equal ratios above
_LARGEST = 1e6  # scores beyond share the last bins


@first_by_place
def auc(*, bins: int = 4096) -> Metric:
    """The area under the ROC curve; for more than two classes the mean of each against the rest.

    The score of a class is its log-odds under the softmax, that of a single output the output
    itself. Its bin is the whole part of ``asinh(1000 score)``, scaled: with 4096 bins a bin's ends
    differ by 1 % (and by 1e-5 near zero), out to a million. A single output
    ranks labels above 0 against the others. Classes that have no example, or that all examples
    have, are left out; the area is NaN where that leaves none, and where a score is
    NaN.

    Scores of one bin are tied. Of a client with few examples one such pair is a large share of all:
    with one example of a class and two others, a tie moves that class's area by a quarter.

    Args:
      bins: scores that are told apart; the counts take ``8 bins classes`` bytes a client.

    Raises:
      SpecError: when traced, unless outputs are [B, classes], [B] or [B, 1] and labels [B] whole
        numbers.

    Example:
      >>> batch = {"y": jnp.array([0, 0, 1, 1]), "mask": jnp.ones(4, bool)}
      >>> metric, outputs = auc(), jnp.array([0.1, 0.4, 0.35, 0.8])
      >>> float(metric.compute(metric.from_outputs(outputs, batch)))
      0.75

    Source: Fawcett, "An introduction to ROC analysis", 2006, sections 7 and 9.
    """
    check.positive_int(bins=bins)
    if bins < 2:
        raise SpecError(f"bins must be at least 2, got {bins}")

    def from_outputs(outputs, batch):
        scores, positive = _scores(outputs, batch)  # [n, columns]
        live = _live(batch, scores.shape[0])
        reach = jnp.arcsinh(_SCALE * _LARGEST)
        place = jnp.arcsinh(_SCALE * scores) / reach  # from -1 to 1
        index = jnp.clip(jnp.floor((place + 1) * (bins / 2)), 0, bins - 1)
        index = jnp.where(jnp.isnan(scores), 0, index).astype(jnp.int32)
        columns = jnp.broadcast_to(jnp.arange(scores.shape[1]), scores.shape)
        empty = jnp.zeros((scores.shape[1], bins), jnp.int32)

        def count(where: Array) -> Array:
            return empty.at[columns, index].add((where & live[:, None]).astype(jnp.int32))

        return {
            "positive": count(positive),
            "negative": count(~positive),
            "undefined": jnp.sum(jnp.any(jnp.isnan(scores), axis=1) & live, dtype=jnp.int32),
        }

    def compute(sums):
        positive, negative = sums["positive"], sums["negative"]
        below = jnp.cumsum(negative, axis=1) - negative
        many, others = jnp.sum(positive, axis=1), jnp.sum(negative, axis=1)
        told = (many > 0) & (others > 0)
        share = positive / jnp.maximum(many, 1)[:, None]
        beaten = (below + negative / 2) / jnp.maximum(others, 1)[:, None]
        areas = jnp.sum(share * beaten, axis=1)
        known = jnp.any(told) & (sums["undefined"] == 0)
        mean = jnp.sum(jnp.where(told, areas, 0.0)) / jnp.maximum(jnp.sum(told), 1)
        return jnp.where(known, mean, jnp.nan)

    return Metric(from_outputs, added, compute)


def _scores(outputs: Array, batch: Batch) -> tuple[Array, Array]:
    """Scores [n, columns] and whether an example is of the column's class."""
    single = jnp.ndim(outputs) < 2 or jnp.shape(outputs)[-1] == 1
    if single:
        scores, labels = targets.numbers(outputs, batch, what="auc")
        if not jnp.issubdtype(labels.dtype, jnp.integer) and labels.dtype != jnp.bool_:
            raise SpecError(
                f"auc: labels are {labels.dtype}, expected whole numbers; cast them, as "
                "y.astype(int)"
            )
        return scores.reshape(-1, 1).astype(jnp.float32), labels.reshape(-1, 1) > 0
    logits, labels = targets.classes(outputs, batch, what="auc")
    classes = logits.shape[-1]
    logits, labels = logits.reshape(-1, classes).astype(jnp.float32), labels.reshape(-1)
    if classes == 2:
        return logits[:, 1:] - logits[:, :1], labels[:, None] == 1
    return _log_odds(logits), labels[:, None] == jnp.arange(classes)[None]


def _log_odds(logits: Array) -> Array:
    """``log p_c / (1 - p_c)`` of the softmax, exact where p_c rounds to one: [n, classes]."""
    nothing = jnp.full_like(logits[:, :1], -jnp.inf)
    before = jax.lax.cumlogsumexp(logits, axis=1)
    after = jax.lax.cumlogsumexp(logits, axis=1, reverse=True)
    left = jnp.concatenate([nothing, before[:, :-1]], axis=1)
    right = jnp.concatenate([after[:, 1:], nothing], axis=1)
    return logits - jnp.logaddexp(left, right)


def _live(batch: Batch, count: int) -> Array:
    """Which scores count, [n]: those of an example's several labels all do, or none."""
    mask = batch["mask"]
    return jnp.repeat(mask, count // max(1, mask.shape[0]), total_repeat_length=count)
