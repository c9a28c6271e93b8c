"""Arrays and trees: of numbers, one number an example, of the same structure."""

from typing import Any

import jax
import numpy as np

from floral.check.words import described, did_you_mean, shown
from floral.errors import SpecError
from floral.tree import paths

__all__ = ["array", "numbers", "per_example", "same_structure"]


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
