"""Build-time validation: every setting is checked by name, once, before anything is traced.

Each function takes its values as keywords, so that the message can name them:
``positive(learning_rate=-1.0)`` raises ``learning_rate must be positive, got -1.0``.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from floral.errors import SpecError
from floral.tree import paths

__all__ = [
    "described",
    "did_you_mean",
    "in_range",
    "nearest",
    "non_negative",
    "one_of",
    "positive",
    "positive_int",
    "same_structure",
]


_LARGEST = 2**31 - 1  # of whole numbers in 32 bits, as compiled functions count


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise SpecError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(f"{name} must be finite, got {value!r:.40}")
    return number


def positive(**named: Any) -> None:
    """Raises SpecError unless every value is a finite number above zero."""
    for name, value in named.items():
        if _number(name, value) <= 0:
            raise SpecError(f"{name} must be positive, got {value!r}")


def non_negative(**named: Any) -> None:
    """Raises SpecError unless every value is a finite number of at least zero."""
    for name, value in named.items():
        if _number(name, value) < 0:
            raise SpecError(f"{name} must not be negative, got {value!r}")


def positive_int(**named: Any) -> None:
    """Raises SpecError unless every value is a whole number of at least one, in 32 bits."""
    for name, value in named.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise SpecError(f"{name} must be a whole number of at least 1, got {value!r}")
        if value > _LARGEST:
            raise SpecError(f"{name} must be at most {_LARGEST}, got {value!r}")


def in_range(low: float, high: float, **named: Any) -> None:
    """Raises SpecError unless ``low <= value <= high`` for every value."""
    for name, value in named.items():
        if not low <= _number(name, value) <= high:
            raise SpecError(f"{name} must lie between {low} and {high}, got {value!r}")


def one_of(options: Iterable[Any], **named: Any) -> None:
    """Raises SpecError unless every value is one of the options; names the nearest one."""
    options = list(options)
    for name, value in named.items():
        if value not in options:
            known = ", ".join(map(str, options))
            raise SpecError(
                f"{name} must be one of {known}; got {value!r}{did_you_mean(value, options)}"
            )


def nearest(given: Any, options: Iterable[Any], *, cutoff: float = 0.6) -> str | None:
    """The option most like what was given, or None where none is alike by at least ``cutoff``."""
    options = [str(option) for option in options]
    lowered = {option.lower(): option for option in options}
    found = difflib.get_close_matches(str(given).lower(), list(lowered), n=1, cutoff=cutoff)
    return lowered[found[0]] if found else None


def described(value: Any) -> str:
    """A few words for a value in a message: a function by its name, an array by its shape.

    Example:
      >>> described(described), described(np.zeros((2, 3), np.float32)), described(3)
      ('the function described', 'float32[2, 3]', 'int 3')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    text = repr(value)
    short = f" {text}" if len(text) <= 40 and "\n" not in text else ""
    return f"{type(value).__name__}{short}"


def did_you_mean(given: Any, options: Iterable[Any]) -> str:
    """``"; did you mean 'x'?"``, or nothing where no option is alike."""
    found = nearest(given, options)
    return f"; did you mean {found!r}?" if found else ""


def same_structure(expected: Any, given: Any, *, what: str) -> None:
    """Raises SpecError unless both trees have the same paths and leaf shapes.

    Args:
      expected: the tree (arrays or ShapeDtypeStructs) that is right.
      given: the tree to compare.
      what: names the given tree in the message.
    """
    wanted, found = paths(expected), paths(given)
    for path in wanted.keys() - found.keys():
        raise SpecError(f"{what} lacks {path!r}{did_you_mean(path, found)}")
    for path in found.keys() - wanted.keys():
        raise SpecError(f"{what} has an unknown {path!r}{did_you_mean(path, wanted)}")
    for path, leaf in wanted.items():
        if jax.numpy.shape(leaf) != jax.numpy.shape(found[path]):
            raise SpecError(
                f"{what}: {path!r} has shape {jax.numpy.shape(found[path])}, "
                f"expected {jax.numpy.shape(leaf)}"
            )
