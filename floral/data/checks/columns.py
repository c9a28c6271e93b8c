"""Columns: whatever holds one value or row an example, as a NumPy array of numbers or words.

Lists, arrays, frames' columns and tensors pass through here. What cannot be read as it stands is
refused with the example and its value; nothing is rounded, wrapped or made up.
"""

import decimal
import numbers
from collections.abc import Iterator, Mapping, Set
from typing import Any

import jax.numpy as jnp
import numpy as np

from floral.data.checks.missing import is_missing
from floral.data.storage.aligned import aligned_copy
from floral.errors import DataError

__all__ = ["as_array", "as_numbers", "narrowed"]

_KINDS = {
    "m": "durations; pass numbers of one unit, as seconds",
    "M": "dates; pass numbers, as days since a first one",
    "c": "complex numbers; pass real and imaginary parts as features of their own",
    "V": "records of several fields; pass one array of numbers",
}


def as_array(values: Any, what: str) -> np.ndarray:
    """The values as an array of any dtype; masked ones become None.

    Args:
      values: an array, a list, a column of a frame, a tensor.
      what: names them in messages, as "arrays: 'x'".

    Raises:
      DataError: for what is no column, or has rows of unlike shapes.
    """
    if isinstance(values, np.ma.MaskedArray):
        if not values.ndim:
            raise _no_column(values, what)
        if np.ma.is_masked(values):
            held = values.data.astype(object)
            held[np.ma.getmaskarray(values)] = None
            return held
        return values.data
    if values is None or isinstance(values, str | bytes | Mapping | Set | Iterator):
        raise _no_column(values, what)
    if hasattr(values, "toarray"):
        raise DataError(f"{what} is a sparse {type(values).__name__}; pass its toarray()")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError, OverflowError, AttributeError) as error:
        raise _unlike_rows(values, what, error) from error
    if array.ndim == 0 and array.dtype.kind not in "biuf":
        raise _no_column(values, what)
    return array


def as_numbers(values: Any, what: str) -> np.ndarray:
    """The values as bools, whole numbers or floats.

    Raises:
      DataError: for words, dates, complex numbers, and objects that are no numbers; it names the
        first such example.

    Example:
      >>> as_numbers([1, 2.5], "x").dtype
      dtype('float64')
    """
    array = as_array(values, what)
    kind = array.dtype.kind
    if kind in "biuf":
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if kind == "O":
        return _of_objects(array, what)
    if kind in "US":
        raise _words(array, what)
    if jnp.issubdtype(array.dtype, jnp.floating):  # bfloat16 and its like
        return array.astype(np.float32)
    raise DataError(f"{what} holds {_KINDS[kind]}")


def narrowed(array: np.ndarray, what: str) -> np.ndarray:
    """The numbers in the type that JAX will give them: 64 bits become 32, the rest stays.

    Floats are rounded to the nearest float32. Whole numbers beyond 32 bits become float32 where
    each is exact.

    Raises:
      DataError: for a number that 32 bits cannot hold.

    Example:
      >>> narrowed(np.array([2**40]), "x")
      array([1.0995116e+12], dtype=float32)
    """
    if array.ndim == 0:
        raise DataError(f"{what} must have one row an example, got a single number")
    if array.dtype.itemsize < 8:
        return array
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow = aligned_copy(array, np.float32)
        if array.size and not np.isfinite(narrow.max(initial=0) - narrow.min(initial=0)):
            _refuse(array, np.isinf(narrow) & np.isfinite(array), what, "float32 ends at 3.4e38")
        return narrow
    integer = np.int32 if array.dtype.kind == "i" else np.uint32
    limits = np.iinfo(integer)
    if not array.size or (array.min() >= limits.min and array.max() <= limits.max):
        return aligned_copy(array, integer)
    narrow = aligned_copy(array, np.float32)
    unlike = narrow.astype(np.longdouble) != array.astype(np.longdouble)
    _refuse(array, unlike, what, "32 bits cannot hold it exactly: pass floats, or smaller numbers")
    return narrow


def _words(array: np.ndarray, what: str) -> DataError:
    """Names the first word that reads like no number: a column of others is text for its sake."""
    if not array.size:
        return DataError(f"{what} must hold numbers, not words")
    places = (place for place, word in np.ndenumerate(array) if not _reads_as_number(word))
    place = next(places, (0,) * array.ndim)
    return DataError(
        f"{what} of example {place[0]} is {array[place].item()!r}{_at(place)}, not a number"
    )


def _reads_as_number(word: Any) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _of_objects(array: np.ndarray, what: str) -> np.ndarray:
    whole = True
    for place, value in np.ndenumerate(array):
        if is_missing(value):
            raise DataError(f"{what} of example {place[0]} is missing{_at(place)}")
        if isinstance(value, list | tuple | np.ndarray):
            return as_numbers(_stacked(array, what), what)
        if not isinstance(value, numbers.Real | decimal.Decimal | np.bool_):
            shown = " ".join(repr(value).split())[:80]
            raise DataError(f"{what} of example {place[0]} is {shown}{_at(place)}, not a number")
        whole = whole and isinstance(value, numbers.Integral | np.bool_)
    try:
        if whole:
            return np.array([int(value) for value in array.flat], np.int64).reshape(array.shape)
        return np.array([float(value) for value in array.flat], np.float64).reshape(array.shape)
    except OverflowError as error:
        raise DataError(f"{what} holds a number that 64 bits cannot hold") from error


def _stacked(rows: np.ndarray, what: str) -> np.ndarray:
    try:
        return np.array(rows.tolist())
    except (ValueError, TypeError) as error:
        raise _unlike_rows(rows, what, error) from error


def _unlike_rows(values: Any, what: str, error: Exception) -> DataError:
    """Names the first row of another shape than the first, or else says what NumPy says."""
    shapes = []
    try:
        for row in values:
            shapes.append(list(np.shape(row)))
            if shapes[-1] != shapes[0]:
                place = len(shapes) - 1
                return DataError(
                    f"{what}: example {place} has shape {shapes[-1]}, example 0 {shapes[0]}"
                )
    except (ValueError, TypeError, RuntimeError, AttributeError):
        return DataError(f"{what}: example {len(shapes)} is no array of numbers")
    said = " ".join(str(error).split())
    return DataError(f"{what} cannot be read as an array: {said}")


def _no_column(values: Any, what: str) -> DataError:
    kind = "an iterator" if isinstance(values, Iterator) else type(values).__name__
    return DataError(f"{what} must be an array or a list with one row an example, got {kind}")


def _refuse(array: np.ndarray, wrong: np.ndarray, what: str, why: str) -> None:
    places = np.argwhere(wrong)
    if len(places):
        place = tuple(int(i) for i in places[0])
        raise DataError(f"{what} of example {place[0]} is {array[place]}{_at(place)}; {why}")


def _at(place: tuple[int, ...]) -> str:
    return f" at {place[1:]}" if len(place) > 1 else ""
