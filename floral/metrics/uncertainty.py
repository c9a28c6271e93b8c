"""How far a mean can be trusted: over few seeds, and over the clients that happened to be there.

Seeds are few, so their intervals are Student's t; clients are many and unlike one another, so
theirs are resampled. Two methods that share their seeds (or clients) share what makes these differ,
and are compared pair by pair.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from floral import check
from floral.errors import SpecError

__all__ = [
    "Difference",
    "Estimate",
    "between_clients",
    "between_seeds",
    "over_clients",
    "over_seeds",
    "welch",
]

_DRAWN_AT_ONCE = 2**22  # clients, which bounds the memory of resampling


class Estimate(NamedTuple):
    """A mean and its interval.

    Attributes:
      mean: over seeds or clients.
      sd: the standard deviation of one seed or client, with ``size - 1``.
      size: how many seeds or clients.
      error: the standard error of the mean.
      low: the lower end of the interval.
      high: its upper end.
    """

    mean: float
    sd: float
    size: int
    error: float
    low: float
    high: float


class Difference(NamedTuple):
    """One method less another.

    Attributes:
      mean: the difference of the means.
      sd: the standard deviation of the differences pair by pair; NaN where they are not paired.
      error: the standard error of the mean.
      low: the lower end of its interval.
      high: the upper end.
      p: how probable a mean at least as far from 0 is where there is no difference, by a t test.
    """

    mean: float
    sd: float
    error: float
    low: float
    high: float
    p: float


def over_seeds(values: Sequence[float] | np.ndarray, *, confidence: float = 0.95) -> Estimate:
    """The mean over seeds with its t interval, ``mean ± t_(n-1) sd / √n``.

    Args:
      values: [n], one number a seed, n of at least 2.
      confidence: how often such an interval holds the true mean, if seeds are normal.

    Raises:
      SpecError: for fewer than two seeds, or numbers that are not finite.

    Example:
      >>> found = over_seeds([0.80, 0.82, 0.84])
      >>> f"{found.mean:.2f} ± {found.sd:.2f}, {found.low:.2f} to {found.high:.2f}"
      '0.82 ± 0.02, 0.77 to 0.87'
    """
    _check_confidence(confidence)
    numbers = _numbers("values", values)
    if len(numbers) < 2:
        raise SpecError(
            f"values must be of at least 2 seeds to say how much they differ, got {len(numbers)}"
        )
    mean, sd = float(numbers.mean()), float(numbers.std(ddof=1))
    error = sd / float(np.sqrt(len(numbers)))
    reach = error * _t_quantile(confidence, len(numbers) - 1)
    return Estimate(mean, sd, len(numbers), error, mean - reach, mean + reach)


def between_seeds(
    one: Mapping[int, float], other: Mapping[int, float], *, confidence: float = 0.95
) -> Difference:
    """One method less another, seed by seed, with the t interval and p-value of the paired t test.

    Pairing takes out what a seed does to both: its data, its first parameters, its cohorts.

    Args:
      one: seed to number.
      other: the same seeds of the method to subtract.
      confidence: as in ``over_seeds``.

    Returns:
      The difference; p is 1 where no seed differs at all, and 0 where all differ by the same.

    Raises:
      SpecError: for other seeds on one side than on the other, or fewer than two.

    Example:
      >>> found = between_seeds({0: 0.9, 1: 0.8, 2: 0.7}, {0: 0.8, 1: 0.6, 2: 0.6})
      >>> f"{found.mean:.3f} ± {found.sd:.3f}, p = {found.p:.3f}"
      '0.133 ± 0.058, p = 0.057'
    """
    for name, given in (("one", one), ("other", other)):
        if not isinstance(given, Mapping):
            raise SpecError(
                f"{name} must be a mapping from seeds to numbers, got {check.described(given)}"
            )
    seeds, others = sorted(one, key=_in_order), sorted(other, key=_in_order)
    if one.keys() != other.keys():
        alone = sorted(one.keys() ^ other.keys(), key=_in_order)
        raise SpecError(
            f"one and other must be of the same seeds to be paired, got {check.brief(seeds)} and "
            f"{check.brief(others)}; leave out {check.brief(alone)[1:-1]}"
        )
    differences = _less(
        _numbers("one", [one[s] for s in seeds]), _numbers("other", [other[s] for s in seeds])
    )
    found = over_seeds(differences, confidence=confidence)
    p = _two_sided_p(found.mean, found.error, found.size - 1)
    return Difference(found.mean, found.sd, found.error, found.low, found.high, p)


def welch(
    one: tuple[float, float, int], other: tuple[float, float, int], *, confidence: float = 0.95
) -> Difference:
    """One mean less another of other seeds, ``√(sd₁² / n₁ + sd₂² / n₂)`` its standard error.

    For numbers of which no more is known, as those in a publication; degrees of freedom are Welch's
    and Satterthwaite's.

    Args:
      one: mean, standard deviation and how many seeds, at least 2.
      other: the same of what to subtract.
      confidence: as in ``over_seeds``.

    Raises:
      SpecError: for fewer than two seeds, or a negative standard deviation.

    Example:
      >>> difference = welch((0.90, 0.01, 3), (0.87, 0.02, 3))
      >>> f"{difference.mean:.2f} in {difference.mean / difference.error:.1f} standard errors"
      '0.03 in 2.3 standard errors'
    """
    _check_confidence(confidence)
    variances, freedom = [], []
    for name, given in (("one", one), ("other", other)):
        if not isinstance(given, Sequence) or len(given) != 3:
            raise SpecError(
                f"{name} must be a mean, a standard deviation and the number of seeds, got "
                f"{check.described(given)}"
            )
        mean, sd, count = given
        check.non_negative(**{f"{name}'s standard deviation": sd})
        check.positive_int(**{f"{name}'s number of seeds": count})
        _numbers(name, [mean])
        if count < 2:
            raise SpecError(f"{name} must be of at least 2 seeds to be compared, got {count}")
        variances.append(sd**2 / count)
        freedom.append(count - 1)
    total = sum(variances)
    error = float(np.sqrt(total))
    spent = sum(v**2 / f for v, f in zip(variances, freedom, strict=True))
    # Where neither varies any number will do.
    degrees = total**2 / spent if spent > 0 else float(sum(freedom))
    mean = float(_less(np.asarray(one[0], float), np.asarray(other[0], float)))
    reach = error * _t_quantile(confidence, degrees)
    p = _two_sided_p(mean, error, degrees)
    return Difference(mean, float("nan"), error, mean - reach, mean + reach, p)


def over_clients(
    values: Sequence[float] | np.ndarray,
    *,
    seed: int,
    examples: Sequence[int] | np.ndarray | None = None,
    confidence: float = 0.95,
    resamples: int = 2_000,
) -> Estimate:
    """The mean over clients with the interval of a bootstrap that draws clients anew.

    What it answers: how the mean would differ with other clients from where these came from, the
    trained parameters held as they are.

    Args:
      values: [N], one number a client.
      seed: of the draws; the same seed gives the same interval.
      examples: [N], how many examples each number is a mean over; the mean is then that over all
        examples, for an accuracy all right answers over all examples. None counts clients alike.
      confidence: the share of resampled means inside the interval.
      resamples: how often all clients are drawn, with replacement.

    Raises:
      SpecError: for fewer than two clients, or examples that are not as many.

    Example:
      >>> over_clients([1.0, 0.0], seed=0, examples=[30, 10]).mean
      0.75
    """
    _check_confidence(confidence)
    check.seed(seed=seed)
    check.positive_int(resamples=resamples)
    if resamples < 2:
        raise SpecError("resamples must be at least 2, and better some thousands, got 1")
    numbers = _numbers("values", values)
    if len(numbers) < 2:
        raise SpecError(f"values must be of at least 2 clients to draw from, got {len(numbers)}")
    weights = np.ones(len(numbers)) if examples is None else _numbers("examples", examples)
    if len(weights) != len(numbers) or not (weights > 0).all():
        raise SpecError(
            f"examples must be a number above zero for each of the {len(numbers)} clients; leave "
            "out clients that have none"
        )
    means = _resampled(numbers, weights, np.random.default_rng(seed), resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(
        mean=float(np.average(numbers, weights=weights)),
        sd=float(numbers.std(ddof=1)),
        size=len(numbers),
        error=float(means.std(ddof=1)),
        low=float(low),
        high=float(high),
    )


def between_clients(
    one: Sequence[float] | np.ndarray,
    other: Sequence[float] | np.ndarray,
    *,
    seed: int,
    examples: Sequence[int] | np.ndarray | None = None,
    confidence: float = 0.95,
    resamples: int = 2_000,
) -> Estimate:
    """One method less another over the same clients: ``over_clients`` of their differences.

    Args:
      one: [N], one number a client.
      other: [N], the same clients' numbers in the same order, of the method to subtract.
      seed: as in ``over_clients``, as are the rest.
      examples: [N] or None.
      confidence: of the interval.
      resamples: how often.

    Raises:
      SpecError: also where the numbers of clients differ.
    """
    left, right = _numbers("one", one), _numbers("other", other)
    if len(left) != len(right):
        raise SpecError(
            "one and other must be of the same clients to be paired, got "
            f"{len(left)} and {len(right)} of them"
        )
    return over_clients(
        left - right, seed=seed, examples=examples, confidence=confidence, resamples=resamples
    )


def _resampled(
    values: np.ndarray, weights: np.ndarray, rng: np.random.Generator, resamples: int
) -> np.ndarray:
    """[resamples]: the weighted mean of as many clients as there are, drawn with replacement."""
    products, count = values * weights, len(values)
    together = max(1, _DRAWN_AT_ONCE // count)
    means = []
    for first in range(0, resamples, together):
        drawn = rng.integers(count, size=(min(together, resamples - first), count))
        means.append(products[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
    return np.concatenate(means)


def _numbers(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    numbers = check.array(values, what=name, axes=1).astype(float)
    if not np.isfinite(numbers).all():
        raise SpecError(f"{name} must be a list of finite numbers, got {check.brief(values)}")
    return numbers


def _less(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The differences, exactly 0 where one is of rounding alone: without a spread it would pass for
    certain."""
    rounding = 4 * np.finfo(float).eps * np.maximum(np.abs(one), np.abs(other))
    return np.where(np.abs(one - other) <= rounding, 0.0, one - other)


def _in_order(seed: Any) -> tuple[str, Any]:
    """Sorts seeds of several types, each type by itself."""
    return (type(seed).__name__, seed if isinstance(seed, int | float | str) else str(seed))


def _check_confidence(confidence: float) -> None:
    check.in_range(0.0, 1.0, confidence=confidence)
    if confidence in (0.0, 1.0):
        raise SpecError(f"confidence must lie between 0 and 1, such as 0.95, got {confidence}")


def _t_quantile(confidence: float, degrees: float) -> float:
    from scipy import special  # takes longer to import than JAX's own core

    return float(special.stdtrit(degrees, (1 + confidence) / 2))


def _two_sided_p(mean: float, error: float, degrees: float) -> float:
    from scipy import special

    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * special.stdtr(degrees, -abs(mean) / error))
