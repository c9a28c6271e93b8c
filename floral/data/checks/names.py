"""Names of clients, given as such or as a field of the examples that they own."""

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from floral.data.checks.columns import as_array
from floral.data.checks.missing import first_alike, first_missing, is_missing
from floral.errors import DataError

__all__ = ["names_array", "sortable_names"]


def names_array(names: Sequence[Any] | np.ndarray, count: int, what: str) -> np.ndarray:
    """Names as an array of words [count], each different.

    Args:
      names: words, or whole numbers, which become words.
      count: how many there must be.
      what: names them in messages, as "clients".

    Raises:
      DataError: if a name is missing or taken twice, or there are more or fewer.
    """
    for place, name in enumerate(names if isinstance(names, list | tuple) else ()):
        if isinstance(name, list | tuple | np.ndarray):
            raise _no_name(what, place, name)
    if isinstance(names, str | bytes) or np.ndim(as_array(names, what)) != 1:
        raise DataError(f"{what}: expected a list of {count} names, got {type(names).__name__}")
    if len(names) != count:
        raise DataError(f"{what}: expected {count} names, got {len(names)}")
    for place, name in enumerate(names):
        if is_missing(name):
            raise DataError(f"{what}: name {place} is missing")
        if not isinstance(name, str | numbers.Integral):
            raise _no_name(what, place, name)
    words = np.array([str(name) for name in names], np.str_)
    known, first = np.unique(words, return_index=True)
    if len(known) < count:
        (twice, *_) = np.setdiff1d(np.arange(count), first)
        raise DataError(f"{what}: the name {str(words[twice])!r} is given twice")
    _check_apart(known.tolist(), what)
    return words


def _check_apart(words: Iterable[str], what: str) -> None:
    alike = first_alike(words)
    if alike is not None:
        raise DataError(
            f"{what}: the names {alike[0]!a} and {alike[1]!a} look the same; write one client in "
            "one way"
        )


def _no_name(what: str, place: int, name: Any) -> DataError:
    return DataError(
        f"{what}: name {place} must be a word or a whole number, not {type(name).__name__}"
    )


def sortable_names(values: np.ndarray, field: str) -> np.ndarray:
    """A field [M] that names a client an example, as words or whole numbers, which have an order.

    Args:
      values: the field.
      field: its name.

    Raises:
      DataError: if a name is missing, or is neither a word nor a whole number.
    """
    missing = first_missing(values)
    if missing is not None:
        raise DataError(f"field {field!r} of example {missing} is missing, so it names no client")
    if values.dtype.kind == "O":
        values = _of_one_type(values, field)
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"field {field!r} holds bytes that are no UTF-8: {error}") from error
    if values.dtype.kind == "f":
        whole = np.rint(values)
        digits = np.finfo(values.dtype).nmant + 1
        broken = np.flatnonzero((whole != values) | (np.abs(values) > 2.0**digits))
        if len(broken):
            raise _is_no_name(
                field,
                broken[0],
                values[broken[0]].item(),
                f" (in {values.dtype}: up to 2^{digits})",
            )
        return whole.astype(np.int64)
    if values.dtype.kind not in "biuUmM":
        raise _is_no_name(field, 0, values[0])
    if values.dtype.kind == "U":
        _check_apart(np.unique(values).tolist(), f"field {field!r}")
    return values


def _of_one_type(values: np.ndarray, field: str) -> np.ndarray:
    """Objects as an array of words, of bytes, or of whole numbers."""
    if all(isinstance(value, numbers.Integral) for value in values):
        return np.array([int(value) for value in values])
    for place, value in enumerate(values):
        if type(value) is not type(values[0]) or not isinstance(value, str | bytes):
            raise _is_no_name(field, place, value)
        if ("\0" in value) if isinstance(value, str) else (b"\0" in value):
            raise _is_no_name(field, place, value)  # NumPy would cut it off
    return np.array(values.tolist())


def _is_no_name(field: str, place: int, value: Any, numbers: str = "") -> DataError:
    shown = " ".join(repr(value).split())[:80]
    return DataError(
        f"field {field!r} of example {place} is {shown}; clients are named by words or by whole "
        f"numbers{numbers}, all of one type"
    )
