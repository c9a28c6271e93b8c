"""Words for messages: a value in brief, a shape, and the option that was likely meant."""

import difflib
import os
from collections.abc import Iterable
from typing import Any

__all__ = ["brief", "described", "did_you_mean", "nearest", "shown"]


def brief(value: Any) -> str:
    """A value as Python writes it, on one line of at most 80 characters.

    Example:
      >>> import numpy as np
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
      >>> import numpy as np
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


def nearest(given: Any, options: Iterable[Any], *, cutoff: float = 0.6) -> str | None:
    """The option most like what was given, or None where none is alike by at least ``cutoff``."""
    word = str(given) if isinstance(given, str | os.PathLike) else brief(given)
    options = [str(option) for option in options]
    lowered = {option.lower(): option for option in options}
    found = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=cutoff)
    return lowered[found[0]] if found else None


def did_you_mean(given: Any, options: Iterable[Any]) -> str:
    """``"; did you mean 'x'?"``, or nothing where no option is alike."""
    found = nearest(given, options)
    return f"; did you mean {found!r}?" if found else ""
