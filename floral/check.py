"""Build-time validation: every setting is checked by name, once, before anything is traced.

Each function takes its values as keywords, so that the message can name them:
``positive(learning_rate=-1.0)`` raises ``learning_rate must be positive, got -1.0``.
"""

import difflib
import errno
import inspect
import math
import os
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from floral.errors import SpecError
from floral.tree import paths

__all__ = [
    "MOST_CLUSTERS",
    "array",
    "boolean",
    "brief",
    "described",
    "did_you_mean",
    "globs",
    "in_range",
    "instance_of",
    "mapping",
    "nearest",
    "non_negative",
    "numbers",
    "one_of",
    "path",
    "per_example",
    "positive",
    "positive_int",
    "positive_ints",
    "same_structure",
    "seed",
    "shown",
    "takes",
    "whole",
]


MOST_CLUSTERS = 2**20
"""Clusters are counted in tables as long as their largest number, so that has a bound."""

_LARGEST = 2**31 - 1  # of whole numbers in 32 bits, as compiled functions count

_MEANT = {
    True: ("true", "yes", "on", "1", "1.0", "np.true_", "array(true)"),
    False: ("false", "no", "off", "0", "0.0", "np.false_", "array(false)"),
}


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


def in_range(low: float, high: float, **named: Any) -> None:
    """Raises SpecError unless ``low <= value <= high`` for every value."""
    for name, value in named.items():
        if not low <= _number(name, value) <= high:
            raise SpecError(f"{name} must lie between {low} and {high}, got {brief(value)}")


def one_of(options: Iterable[Any], **named: Any) -> None:
    """Raises SpecError unless every value is one of the options; names the nearest one."""
    options = list(options)
    for name, value in named.items():
        comparable = isinstance(value, Hashable) and not isinstance(value, jax.Array)
        if not comparable or value not in options:
            known = ", ".join(map(str, options))
            raise SpecError(
                f"{name} must be one of {known}; got {brief(value)}{did_you_mean(value, options)}"
            )


def path(**named: Any) -> None:
    """Raises SpecError unless every value may be a path of a file or folder, there or not."""
    for name, value in named.items():
        if not isinstance(value, str | os.PathLike):
            raise SpecError(f"{name} must be the path of a file or folder, got {described(value)}")
        try:
            os.stat(value)
        except ValueError:
            raise SpecError(f"{name}: no path has such letters: {brief(value)}") from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise SpecError(f"{name} is too long for a path: {brief(value)}") from None


def mapping(example: str, **named: Any) -> None:
    """Raises SpecError unless every value is a mapping; the message gives the example."""
    for name, value in named.items():
        if not isinstance(value, Mapping):
            raise SpecError(f"{name} must be a mapping, as {example}, got {described(value)}")


def numbers(value: Any, *, what: str) -> jax.Array:
    """The value as a JAX array of numbers or booleans, traced ones too; SpecError if it is none.

    Example:
      >>> numbers("a", what="logits")
      Traceback (most recent call last):
      floral.errors.SpecError: logits must be an array of numbers, got str 'a'
    """
    try:
        found = jax.numpy.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise SpecError(f"{what} must be an array of numbers, got {described(value)}") from None
    if found.dtype != bool and not jax.numpy.issubdtype(found.dtype, jax.numpy.number):
        raise SpecError(f"{what} must be an array of numbers, got {described(value)}")
    return found


def array(values: Any, *, what: str, axes: int, whole: bool = False) -> np.ndarray:
    """The values as a NumPy array of numbers; SpecError unless they are one, and not empty.

    Args:
      values: an array, or lists of numbers.
      what: names them in the message.
      axes: how many axes there must be.
      whole: whether the numbers must be integers.

    Example:
      >>> array([1, "a"], what="weights", axes=1)
      Traceback (most recent call last):
      floral.errors.SpecError: weights must be an array of numbers with 1 axis, got list [1, 'a']
    """
    try:
        found = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        found = np.empty((), object)
    if found.dtype.kind == "V" and jax.numpy.issubdtype(found.dtype, jax.numpy.floating):
        found = found.astype(np.float32)  # NumPy does not count with bfloat16
    if found.ndim != axes or not found.size or found.dtype.kind not in ("iu" if whole else "biuf"):
        kind = "whole numbers" if whole else "numbers"
        many = "axis" if axes == 1 else "axes"
        raise SpecError(
            f"{what} must be an array of {kind} with {axes} {many}, got "
            f"{described(found if found.dtype.kind in 'biufc' else values)}"
        )
    return found


def globs(**named: Any) -> None:
    """Raises SpecError unless every value is a list of path globs, which are text."""
    for name, value in named.items():
        listed = isinstance(value, Iterable) and not isinstance(value, np.ndarray | jax.Array)
        if isinstance(value, str) or not listed:
            example = value if isinstance(value, str) else "**/Dense_1"
            raise SpecError(
                f"{name} must be a list of path globs, as [{brief(example)}], "
                f"got {described(value)}"
            )
        for glob in value:
            if not isinstance(glob, str):
                raise SpecError(f"{name}: a path glob must be text, got {described(glob)}")


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


def takes(count: int, function: Any) -> bool:
    """Whether a function can be called with so many positional arguments, as far as it says."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # some built-in functions do not say what they take
        return True
    return True


def nearest(given: Any, options: Iterable[Any], *, cutoff: float = 0.6) -> str | None:
    """The option most like what was given, or None where none is alike by at least ``cutoff``."""
    word = str(given) if isinstance(given, str | os.PathLike) else brief(given)
    options = [str(option) for option in options]
    lowered = {option.lower(): option for option in options}
    found = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=cutoff)
    return lowered[found[0]] if found else None


def brief(value: Any) -> str:
    """A value as Python writes it, on one line of at most 80 characters.

    Example:
      >>> brief("a"), brief(np.zeros((2, 1)))
      ("'a'", 'array([[0.], [0.]])')
    """
    try:
        text = " ".join(repr(value)[:400].split())
    except ValueError:  # Python writes no whole number of more than 4300 digits
        text = f"{type(value).__name__} too large to write"
    return text if len(text) <= 80 else f"{text[:77]}..."


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
    text = brief(value)
    short = f" {text}" if len(text) <= 40 else ""
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
    wanted = paths(expected)
    try:
        found = paths(given)
    except ValueError:  # JAX sorts the keys of a mapping
        raise SpecError(f"{what} has a mapping whose keys are not all text") from None
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
