"""Values that are missing, in whichever form a file writes it, and words that look the same."""

import decimal
import math
import numbers
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["first_alike", "first_missing", "is_missing"]

_WRITTEN = ("", "None", "nan", "NaN", "NaT", "<NA>")
"""What Python writes where a value was missing before it became a word."""


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: None, NaN, NaT, pandas' NA, a masked one, a blank word.

    Example:
      >>> [is_missing(value) for value in (None, float("nan"), " ", "None", 0, "a")]
      [True, True, True, True, False, False]
    """
    if value is None or value is np.ma.masked:
        return True
    if isinstance(value, str | bytes):
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        return text.strip() in _WRITTEN
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    if isinstance(value, numbers.Real):
        return not isinstance(value, numbers.Integral) and math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType")  # pandas' own, which need not be installed


def first_missing(values: np.ndarray) -> int | None:
    """The first place of ``values [M]`` that is missing; None where none is."""
    kind = values.dtype.kind
    if kind in "biu":
        return None
    if kind == "f":
        missing = np.isnan(values)
    elif kind in "mM":
        missing = np.isnat(values)
    elif kind in "US":
        blank = np.char.strip(values)
        written = np.array(_WRITTEN) if kind == "U" else np.array(_WRITTEN, "S")
        missing = np.isin(blank, written)
    else:
        return next((place for place, value in enumerate(values) if is_missing(value)), None)
    places = np.flatnonzero(missing)
    return int(places[0]) if len(places) else None


def first_alike(words: Iterable[str]) -> tuple[str, str] | None:
    """Two different words that nobody can tell apart; None where there are none.

    They differ in blanks or zero characters around them alone, or in how an accent is stored.

    Example:
      >>> first_alike(["cat", "dog", "cat "])
      ('cat', 'cat ')
    """
    known: dict[str, str] = {}
    for word in words:
        seen = unicodedata.normalize("NFC", word).replace("\0", " ").strip()
        other = known.setdefault(seen, word)
        if other != word:
            return other, word
    return None
