"""How sure mixtures are, and how well they agree with clusters that are known."""

import jax
import jax.numpy as jnp
import numpy as np

from floral.typing import Array

__all__ = ["agreement", "entropy", "matching", "sharpness"]


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
