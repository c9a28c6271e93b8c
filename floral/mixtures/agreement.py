"""How sure mixtures are, and how well they agree with clusters that are known."""

import jax
import jax.numpy as jnp
import numpy as np

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
    return -jnp.sum(jax.scipy.special.xlogy(weights, weights), axis=-1)


def sharpness(weights: np.ndarray, *, above: float = 0.8) -> float:
    """The share of clients that put nearly all their weight on one adaptor.

    Args:
      weights: [N, C] mixtures.
      above: what "nearly all" is.
    """
    return float(np.mean(np.max(np.asarray(weights), axis=1) > above))


def effective_adaptors(weights: np.ndarray) -> float:
    """How many adaptors a population uses: exp of the entropy of its mean mixture, 1 to C.

    Args:
      weights: [N, C] mixtures.

    Example:
      >>> round(effective_adaptors(np.eye(4)[[0, 1, 0, 1]]), 6)
      2.0
    """
    return float(np.exp(entropy(np.mean(np.asarray(weights, float), axis=0))))


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
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    chosen = np.argmax(np.asarray(weights), axis=1)
    return {
        "ari": float(adjusted_rand_score(clusters, chosen)),
        "nmi": float(normalized_mutual_info_score(clusters, chosen)),
    }


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

    chosen = np.argmax(np.asarray(weights), axis=1)
    counts = np.zeros((np.shape(weights)[1], int(np.max(clusters)) + 1), int)
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
    cluster_of = matching(weights, clusters) if cluster_of is None else cluster_of
    return float(np.mean(cluster_of[np.argmax(np.asarray(weights), axis=1)] == clusters))
