"""How sure mixtures are, and how well they agree with clusters that are known."""

import jax
import jax.numpy as jnp
import numpy as np

from floral import check
from floral.errors import SpecError
from floral.typing import Array

__all__ = [
    "agreement",
    "cluster_scores",
    "effective_adaptors",
    "entropy",
    "matching",
    "sharpness",
]


def entropy(weights: Array | np.ndarray) -> Array:
    """Shannon entropy in nats over the last axis; 0 for one-hot, log C for uniform weights."""
    found = check.numbers(weights, what="weights")
    if found.ndim == 0:
        raise SpecError(f"weights must have an axis of adaptors, got {check.described(weights)}")
    return -jnp.sum(jax.scipy.special.xlogy(found, found), axis=-1)


def sharpness(weights: np.ndarray, *, above: float = 0.8) -> float:
    """The share of clients that put nearly all their weight on one adaptor.

    Args:
      weights: [N, C] mixtures.
      above: what "nearly all" is.
    """
    check.in_range(0.0, 1.0, above=above)
    return float(np.mean(np.max(mixtures_of(weights), axis=1) > above))


def effective_adaptors(weights: np.ndarray) -> float:
    """How many adaptors a population uses: exp of the entropy of its mean mixture, 1 to C.

    Args:
      weights: [N, C] mixtures.

    Example:
      >>> round(effective_adaptors(np.eye(4)[[0, 1, 0, 1]]), 6)
      2.0
    """
    return float(np.exp(entropy(np.mean(mixtures_of(weights).astype(float), axis=0))))


def cluster_scores(weights: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """``{"ari", "nmi"}`` of the clients' largest weights with their true clusters: 1 for the same
    groups however numbered and however many; the first is 0 on average for groups drawn at random.

    Args:
      weights: [N, C] mixtures.
      clusters: [N] true clusters.

    Source: Hubert and Arabie, "Comparing partitions", 1985, for the adjusted Rand index; the other
    is mutual information over the mean of both entropies.

    Example:
      >>> cluster_scores(np.eye(2)[[1, 1, 0, 0]], np.array([0, 0, 1, 1]))
      {'ari': 1.0, 'nmi': 1.0}
    """
    chosen = np.argmax(mixtures_of(weights), axis=1)
    counts = _counts(chosen, clusters_of(clusters, len(chosen)))
    return {"ari": _adjusted_rand(counts), "nmi": _mutual_information(counts)}


def _counts(chosen: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """How many clients are in each pair of groups, [groups chosen, clusters]; none is empty."""
    rows, row = np.unique(chosen, return_inverse=True)
    columns, column = np.unique(clusters, return_inverse=True)
    counts = np.zeros((len(rows), len(columns)), int)
    np.add.at(counts, (row, column), 1)
    return counts


def _adjusted_rand(counts: np.ndarray) -> float:
    """(index - expected) / (maximum - expected), of pairs of clients in one group of both."""

    def pairs(sizes: np.ndarray) -> int:
        return int(np.sum(sizes * (sizes - 1) // 2))

    both, chosen, given = pairs(counts), pairs(counts.sum(axis=1)), pairs(counts.sum(axis=0))
    every = pairs(counts.sum())
    expected = chosen * given / every if every else 0.0
    most = (chosen + given) / 2
    return 1.0 if both == chosen == given else (both - expected) / (most - expected)


def _mutual_information(counts: np.ndarray) -> float:
    """Mutual information over the mean of both entropies; 1 where both are one group."""
    joint = counts / counts.sum()
    chosen, given = joint.sum(axis=1), joint.sum(axis=0)
    if len(chosen) == len(given) == 1:
        return 1.0

    def entropy_of(shares: np.ndarray) -> float:
        held = np.sort(shares[shares > 0])  # in one order, so that like groups are exactly 1
        return float(-np.sum(held * np.log(held)))

    of_both = entropy_of(chosen) + entropy_of(given)
    return max(0.0, 2 * (of_both - entropy_of(joint.ravel())) / of_both)


def matching(weights: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Which cluster each adaptor stands for: the one-to-one assignment that agrees best, since the
    adaptors' numbering means nothing.

    Args:
      weights: [N, C] mixtures.
      clusters: [N] true clusters, integers from 0.

    Returns:
      [C] integers; -1 for an adaptor without a cluster of its own.
    """
    from scipy.optimize import linear_sum_assignment  # takes longer to import than JAX's own core

    weights = mixtures_of(weights)
    chosen = np.argmax(weights, axis=1)
    clusters = clusters_of(clusters, len(chosen))
    counts = np.zeros((weights.shape[1], int(np.max(clusters)) + 1), int)
    np.add.at(counts, (chosen, clusters), 1)
    rows, columns = linear_sum_assignment(-counts)
    cluster_of = np.full(counts.shape[0], -1)
    cluster_of[rows] = columns
    return cluster_of


def agreement(
    weights: np.ndarray, clusters: np.ndarray, *, cluster_of: np.ndarray | None = None
) -> float:
    """The share of clients whose largest weight names their true cluster.

    Args:
      weights: [N, C] mixtures.
      clusters: [N] true clusters, integers from 0.
      cluster_of: [C], as ``matching`` gives it for other clients: newcomers are judged by what the
        adaptors stand for already. None matches these clients themselves.

    Example:
      >>> agreement(np.eye(2)[[1, 1, 0, 0]], np.array([0, 0, 1, 1]))
      1.0
    """
    weights = mixtures_of(weights)
    clusters = clusters_of(clusters, len(weights))
    cluster_of = stands_for(weights, clusters, cluster_of)
    return float(np.mean(cluster_of[np.argmax(weights, axis=1)] == clusters))


def mixtures_of(weights: np.ndarray) -> np.ndarray:
    """Mixtures [N, C] as an array; SpecError for anything else."""
    return check.array(weights, what="weights", axes=2)


def clusters_of(clusters: np.ndarray, clients: int) -> np.ndarray:
    """Clusters [N] as an array of integers from 0; SpecError for anything else."""
    found = check.array(clusters, what="clusters", axes=1, whole=True)
    if len(found) != clients:
        raise SpecError(f"clusters must be one for each of {clients} clients, got {len(found)}")
    outside = found[(found < 0) | (found >= check.MOST_CLUSTERS)]
    if len(outside):
        raise SpecError(
            f"clusters must be numbered from 0 to below {check.MOST_CLUSTERS}, got {outside[0]}; "
            "np.unique(clusters, return_inverse=True)[1] numbers them so"
        )
    return found


def stands_for(
    weights: np.ndarray, clusters: np.ndarray, cluster_of: np.ndarray | None
) -> np.ndarray:
    """The cluster of each adaptor [C], as given, or as ``matching`` finds it."""
    if cluster_of is None:
        return matching(weights, clusters)
    found = check.array(cluster_of, what="cluster_of", axes=1, whole=True)
    if len(found) != weights.shape[1]:
        raise SpecError(
            f"cluster_of must be one for each of {weights.shape[1]} adaptors, got {len(found)}"
        )
    return found
