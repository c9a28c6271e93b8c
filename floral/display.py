"""What an object shows of itself at a prompt and in a notebook: one line, never its arrays.

Types of the library are tuples of arrays and functions, which Python would print whole.
"""

import html
from collections.abc import Iterable
from typing import Any

__all__ = ["as_html", "each", "examples", "functions"]


def as_html(text: str) -> str:
    """Plain text as a notebook shows it.

    Example:
      >>> as_html("a < b")
      '<pre>a &lt; b</pre>'
    """
    return f"<pre>{html.escape(text)}</pre>"


def each(array: Any) -> str:
    """Shape and dtype of one example of an array ``[M, ...]``.

    Example:
      >>> import numpy as np
      >>> each(np.zeros((5, 28, 28, 1), np.float32))
      '[28, 28, 1] float32'
    """
    return f"{list(array.shape[1:])} {array.dtype}"


def examples(count: int) -> str:
    """A number of examples in words."""
    return f"{count:,} example{'' if count == 1 else 's'}"


def functions(value: Any, name: str, fields: Iterable[str]) -> str:
    """A tuple of functions: its name and which of its optional functions it has.

    Example:
      >>> from collections import namedtuple
      >>> functions(namedtuple("Pair", "init export")(print, None), "Pair", ["init", "export"])
      'Pair(init)'
    """
    return f"{name}({', '.join(field for field in fields if getattr(value, field) is not None)})"
