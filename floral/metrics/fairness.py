"""How evenly a method serves its clients: summaries of one number per client.

A summary of values of which one is NaN is NaN, whichever clients it is of.
"""

import numpy as np

from floral import check
from floral.errors import SpecError

__all__ = ["gini", "jain", "worst_share"]


def worst_share(values: np.ndarray, *, share: float = 0.1, largest: bool = False) -> float:
    """The mean over the ``share * N`` worst-served clients, rounded down, and at least one.

    The worst decile of 3 or 10 clients is one client, that of 25 is two.

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
    ordered = np.sort(_numbers(values))  # a NaN would come last: among the best of accuracies
    if np.isnan(ordered[-1]):
        return float("nan")
    if largest:
        ordered = ordered[::-1]
    count = int(len(ordered) * share + 1e-9)  # 0.29 of 100 clients is 28.999999999999996
    return float(ordered[: max(1, count)].mean())


def gini(values: np.ndarray) -> float:
    """The Gini coefficient of non-negative values: 0 if all are equal, towards 1 if one has all.

    ``Σ_ij |v_i - v_j| / (2 N Σ_i v_i)``; NaN where a value is not finite.

    Raises:
      SpecError: for a negative value, with which the coefficient says nothing.

    Example:
      >>> gini(np.array([1.0, 1.0, 1.0]))
      0.0
    """
    ordered = np.sort(_shares("gini", values))
    total, count = ordered.sum(), len(ordered)
    if total == 0:
        return 0.0
    if not np.isfinite(total):
        return float("nan")
    ranks = np.arange(1, count + 1)
    return float((2 * ranks - count - 1) @ ordered / (count * total))


def jain(values: np.ndarray) -> float:
    """Jain's fairness index ``(Σ v)² / (N Σ v²)``: 1 if all are equal, 1/N if one has all.

    NaN where a value is not finite.

    Raises:
      SpecError: for a negative value, with which the index says nothing.
    """
    values = _shares("jain", values)
    squares = np.square(values).sum()
    if not np.isfinite(squares):
        return float("nan")
    return 1.0 if squares == 0 else float(values.sum() ** 2 / (len(values) * squares))


def _shares(name: str, values: np.ndarray) -> np.ndarray:
    found = _numbers(values)
    if (found < 0).any():
        raise SpecError(
            f"{name}: values must not be negative, got {found[found < 0][0]:g}; give accuracies or "
            "losses, or take worst_share, which is of any numbers"
        )
    return found


def _numbers(values: np.ndarray) -> np.ndarray:
    return check.array(values, what="values", axes=1).astype(float)
