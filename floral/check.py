"""Build-time validation: every setting is checked by name, once, before anything is traced.

Each function takes its values as keywords, so that the message can name them:
``positive(learning_rate=-1.0)`` raises ``learning_rate must be positive, got -1.0``.
"""

import difflib
import inspect
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
    "instance_of",
    "nearest",
    "non_negative",
    "one_of",
    "per_example",
    "positive",
    "positive_int",
    "same_structure",
    "shown",
    "takes_two",
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


def instance_of(kind: type, made_by: str, **named: Any) -> None:
    """Raises SpecError unless every value is of the kind.

    Args:
      kind: the type that is expected.
      made_by: the call that makes one, for the message: ``"fl.data.batching(batch_size=32)"``.
      **named: the values.
    """
    for name, value in named.items():
        if not isinstance(value, kind):
            raise SpecError(
                f"{name}: expected {kind.__name__}, as {made_by} makes, got {described(value)}"
            )


def shown(shape: Iterable[int | str], rows: Iterable[int] = ()) -> str:
    """A shape in a message, the number of examples in a batch written B.

    Args:
      shape: to show.
      rows: the number of examples, if it is known; nothing or one number.

    Example:
      >>> shown((7, 3), (7,)), shown((7, 3))
      ('[B, 3]', '[7, 3]')
    """
    batch = set(rows)
    return f"[{', '.join('B' if size in batch else str(size) for size in shape)}]"


def per_example(value: Any, rows: int, *, what: str, floats: bool = False) -> None:
    """Raises SpecError unless a function of a batch gave one number an example, [B].

    Args:
      value: what it gave, an array or its struct.
      rows: B.
      what: names the function in the message.
      floats: whether the numbers must be floats, as those that are differentiated.

    Example:
      >>> per_example(np.zeros((7, 1), np.float32), 7, what="loss")
      Traceback (most recent call last):
      floral.errors.SpecError: loss: expected [B], one number an example, got [B, 1]; take .mean(-1)
    """
    expected = f"{what}: expected [B], one number an example, got"
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise SpecError(f"{expected} {described(value)}")
    shape = tuple(value.shape)
    if shape != (rows,):
        if not shape:
            mend = "leave out the mean over the batch: callers mask and average"
        elif shape == (rows, rows):
            mend = "give outputs and targets the same shape, so that they do not form all pairs"
        elif len(shape) == 2 and shape[0] == rows:
            mend = "take .mean(-1)"
        elif shape[0] == rows:
            mend = "take .reshape(B, -1).mean(-1)"
        else:
            mend = "keep the first axis, and average over the others"
        raise SpecError(f"{expected} {shown(shape, (rows,))}; {mend}")
    if floats and not jax.numpy.issubdtype(value.dtype, jax.numpy.floating):
        raise SpecError(f"{what}: expected floats, which can be differentiated, got {value.dtype}")


def takes_two(function: Any) -> bool:
    """Whether a function can be called with two positional arguments, as far as it says."""
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # some built-in functions do not say what they take
        return True
    return True


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
    """Raises SpecError unless both trees have the same paths, leaf shapes and dtypes.

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
        other = found[path]
        if jax.numpy.shape(leaf) != jax.numpy.shape(other):
            raise SpecError(
                f"{what}: {path!r} has shape {jax.numpy.shape(other)}, "
                f"expected {jax.numpy.shape(leaf)}"
            )
        if jax.numpy.result_type(leaf) != jax.numpy.result_type(other):
            raise SpecError(
                f"{what}: {path!r} is {jax.numpy.result_type(other)}, expected "
                f"{jax.numpy.result_type(leaf)}"
            )
