r"""What mixtures make of averaging: whose updates an adaptor's next value is the mean of.

Adaptor c averages clients by ``p(k|c) = n_k π^k_c / Σ_j n_j π^j_c``.

Source: Almansoori, Horváth, Takáč, "Collaborative and Efficient Personalization with Mixtures of
Adaptors", section 4.
"""

import numpy as np

from floral import check
from floral.errors import SpecError
from floral.messages import evidence
from floral.mixtures.quality import clusters_of, mixtures_of, stands_for

__all__ = ["aggregation_mismatch", "aggregation_weights", "effective_clients"]


def aggregation_weights(weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The share of each client in the average of each adaptor: columns that sum to one.

    Args:
      weights: [N, C] mixtures.
      sizes: [N], each client's training examples.

    Returns:
      [N, C]; zeros for an adaptor that no one uses.

    Example:
      >>> aggregation_weights(np.array([[1, 0], [0.5, 0]]), np.array([3, 2])).tolist()
      [[0.75, 0.0], [0.25, 0.0]]
    """
    weights = mixtures_of(weights).astype(float)
    examples = check.array(sizes, what="sizes", axes=1).astype(float)
    if len(examples) != len(weights):
        raise SpecError(
            f"sizes must be one for each of {len(weights)} clients, got {len(examples)}"
        )
    counts = weights * examples[:, None]
    totals = counts.sum(axis=0)
    used = np.asarray(evidence(totals))  # an adaptor without is not averaged
    return np.where(used, counts / np.where(used, totals, 1.0), 0.0)


def effective_clients(weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How many clients of equal weight would even out noise as well: ``1 / Σ_k p(k|c)²``.

    Args:
      weights: [N, C] mixtures.
      sizes: [N], each client's training examples.

    Returns:
      [C], 1 to N; 0 for an adaptor that no one uses.

    Example:
      >>> effective_clients(np.eye(3)[[0, 0, 0, 1]], np.ones(4)).tolist()
      [3.0, 1.0, 0.0]
    """
    squares = np.square(aggregation_weights(weights, sizes)).sum(axis=0)
    return np.where(squares > 0, 1 / np.where(squares > 0, squares, 1.0), 0.0)


def aggregation_mismatch(
    weights: np.ndarray,
    sizes: np.ndarray,
    clusters: np.ndarray,
    *,
    cluster_of: np.ndarray | None = None,
) -> float:
    """How far adaptors are from averaging just the cluster that they stand for, 0 to 2.

    The mean over adaptors of ``‖δ_c‖₁ = Σ_k |p(k|c) - q(k|c)|``, q being p where all of a client's
    weight is on the adaptor of its true cluster. An adaptor that no one uses, or without a cluster
    of its own, does not count. Uniform mixtures over C clusters of equal size have ``2 (1 - 1/C)``.

    Args:
      weights: [N, C] mixtures.
      sizes: [N], each client's training examples.
      clusters: [N] true clusters, integers from 0.
      cluster_of: [C], as ``matching`` gives it, which is asked if None.

    Returns:
      The mean; NaN where no adaptor counts.

    Example:
      >>> aggregation_mismatch(np.eye(2)[[1, 1, 0, 0]], np.ones(4), np.array([0, 0, 1, 1]))
      0.0
      >>> aggregation_mismatch(np.full((4, 2), 0.5), np.ones(4), np.array([0, 0, 1, 1]))
      1.0
    """
    weights = mixtures_of(weights)
    clusters = clusters_of(clusters, len(weights))
    cluster_of = stands_for(weights, clusters, cluster_of)
    right = clusters[:, None] == cluster_of[None]
    learnt, true = aggregation_weights(weights, sizes), aggregation_weights(right, sizes)
    counted = (learnt.sum(axis=0) > 0) & (true.sum(axis=0) > 0)
    if not counted.any():
        return float("nan")
    return float(np.abs(learnt - true).sum(axis=0)[counted].mean())
