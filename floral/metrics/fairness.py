"""How evenly a method serves its clients: summaries of one number per client."""

import numpy as np

from floral import check

__all__ = ["gini", "jain", "worst_share"]


def worst_share(values: np.ndarray, *, share: float = 0.1, largest: bool = False) -> float:
    """The mean over the worst-served share of clients (at least one client).

    Args:
      values: [N], one number a client.
      share: which part of the clients counts as the worst; 0.1 is the worst decile.
      largest: whether large values are the bad ones (a loss), not small ones (an accuracy).

    Example:
      >>> worst_share(np.arange(20.0))
      0.5
    """
    check.in_range(0.0, 1.0, share=share)
    check.boolean(largest=largest)
    ordered = np.sort(_numbers(values))
    if largest:
        ordered = ordered[::-1]
    return float(ordered[: max(1, int(len(ordered) * share))].mean())


def gini(values: np.ndarray) -> float:
    """The Gini coefficient of non-negative values: 0 if all are equal, towards 1 if one has all.

    Example:
      >>> gini(np.array([1.0, 1.0, 1.0]))
      0.0
    """
    ordered = np.sort(_numbers(values))
    total, count = ordered.sum(), len(ordered)
    if total == 0:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float((2 * ranks - count - 1) @ ordered / (count * total))


def jain(values: np.ndarray) -> float:
    """Jain's fairness index ``(Σ v)² / (N Σ v²)``: 1 if all are equal, 1/N if one has all."""
    values = _numbers(values)
    squares = np.square(values).sum()
    return 1.0 if squares == 0 else float(values.sum() ** 2 / (len(values) * squares))


def _numbers(values: np.ndarray) -> np.ndarray:
    return check.array(values, what="values", axes=1).astype(float)
