"""Numbers and booleans as settings: finite, of a sign, whole, in a range; True or False."""

import math
from typing import Any

import numpy as np

from floral.check.words import brief, described
from floral.errors import SpecError

__all__ = [
    "boolean",
    "in_range",
    "non_negative",
    "positive",
    "positive_int",
    "positive_ints",
    "seed",
    "whole",
]

_LARGEST = 2**31 - 1  # of whole numbers in 32 bits, as compiled functions count

_MEANT = {
    True: ("true", "yes", "on", "1", "1.0", "np.true_", "array(true)"),
    False: ("false", "no", "off", "0", "0.0", "np.false_", "array(false)"),
}


def positive(**named: Any) -> None:
    """Raises SpecError unless every value is a finite number above zero."""
    for name, value in named.items():
        if _number(name, value) <= 0:
            raise SpecError(f"{name} must be positive, got {brief(value)}")


def non_negative(**named: Any) -> None:
    """Raises SpecError unless every value is a finite number of at least zero."""
    for name, value in named.items():
        if _number(name, value) < 0:
            raise SpecError(f"{name} must not be negative, got {brief(value)}")


def positive_int(**named: Any) -> None:
    """Raises SpecError unless every value is a whole number of at least one, in 32 bits."""
    for name, value in named.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise SpecError(f"{name} must be a whole number of at least 1, got {brief(value)}")
        if value > _LARGEST:
            raise SpecError(f"{name} must be at most {_LARGEST}, got {brief(value)}")


def positive_ints(**named: Any) -> None:
    """Raises SpecError unless every value is a list of whole numbers of at least one."""
    for name, values in named.items():
        one_by_one = np.ndim(values) == 1 if isinstance(values, np.ndarray) else True
        if not (one_by_one and isinstance(values, list | tuple | range | np.ndarray)):
            raise SpecError(f"{name} must be a list of whole numbers, got {described(values)}")
        for index, value in enumerate(values):
            positive_int(**{f"{name}.{index}": value})


def whole(**named: Any) -> None:
    """Raises SpecError unless every value is a whole number of at least zero, in 32 bits."""
    for name, value in named.items():
        seed(**{name: value})
        if value > _LARGEST:
            raise SpecError(f"{name} must be at most {_LARGEST}, got {brief(value)}")


def seed(**named: Any) -> None:
    """Raises SpecError unless every value is a whole number of at least zero, of any size."""
    for name, value in named.items():
        non_negative(**{name: value})
        if not isinstance(value, (int, np.integer)):
            raise SpecError(f"{name} must be a whole number, got {brief(value)}")


def in_range(low: float, high: float, **named: Any) -> None:
    """Raises SpecError unless ``low <= value <= high`` for every value."""
    for name, value in named.items():
        if not low <= _number(name, value) <= high:
            raise SpecError(f"{name} must lie between {low} and {high}, got {brief(value)}")


def boolean(**named: Any) -> None:
    """Raises SpecError unless every value is True or False; names the one that was likely meant.

    Nothing else counts as one, not 1 and no array: a setting is compared, recorded and asked for
    its truth, and what is asked must be Python's own.

    Example:
      >>> boolean(shuffle="yes")
      Traceback (most recent call last):
      floral.errors.SpecError: shuffle must be True or False, got 'yes'; did you mean True?
    """
    for name, value in named.items():
        if not isinstance(value, bool):
            word = brief(value).strip("'").lower()
            meant = [option for option, words in _MEANT.items() if word in words]
            hint = f"; did you mean {meant[0]}?" if meant else ""
            raise SpecError(f"{name} must be True or False, got {brief(value)}{hint}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise SpecError(f"{name} must be a number, got {brief(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(f"{name} must be finite, got {brief(value)}")
    return number
