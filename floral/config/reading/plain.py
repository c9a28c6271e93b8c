"""The one door from Python's values to a config's: mappings, lists, text, numbers, booleans, null.

A notebook puts NumPy and JAX scalars, arrays, paths and enums into a mapping. Each becomes the
plain value that a YAML file would have in its place. What has none is refused, with its place.
"""

import enum
import os
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from floral.errors import ConfigError

__all__ = ["plain"]

_DEPTH = 50
_BITS = 1023  # a double holds no larger number


def plain(value: Any, *, where: str = "") -> Any:
    """The value as a YAML file would have it.

    Scalars of NumPy, JAX and PyTorch, and arrays of no axes, become numbers; other arrays, tuples
    and ranges lists; mappings of any kind dicts; members of an enum their values; paths text.

    Args:
      value: what a mapping holds.
      where: its place, for messages.

    Raises:
      ConfigError: for anything else (a function, a set, a date, bytes, a complex number), for a key
        that is no text, for text that is no Unicode, and for a mapping that contains itself.

    Example:
      >>> plain({"local": {"learning_rate": np.float64(0.5), "betas": (np.array(0.5), 1)}})
      {'local': {'learning_rate': 0.5, 'betas': [0.5, 1]}}
    """
    return _plain(value, where, 0)


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth > _DEPTH:
        raise ConfigError(f"{where.partition('.')[0]}: nested too deeply; does it contain itself?")
    if isinstance(value, enum.Enum):
        return _plain(value.value, where, depth + 1)
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return _plain(_unpacked(value, where), where, depth + 1)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, os.PathLike):
        return _text(os.fspath(value), where)
    if isinstance(value, Integral):
        if int(value).bit_length() > _BITS:
            raise ConfigError(
                f"{where}: a whole number of {int(value).bit_length()} bits is too large"
            )
        return int(value)
    if isinstance(value, Real | Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {
            _key(key, where): _plain(inner, f"{where}.{key}" if where else str(key), depth + 1)
            for key, inner in value.items()
        }
    if hasattr(value, "_asdict"):
        raise _refused(value, where, "give its fields as a mapping, as x._asdict()")
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [
            _plain(inner, f"{where}.{index}" if where else str(index), depth + 1)
            for index, inner in enumerate(value)
        ]
    raise _refused(value, where, _mend(value))


def _unpacked(value: Any, where: str) -> Any:
    """A scalar or an array as Python's numbers, text and lists."""
    try:
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise ValueError("some of its entries are masked")
        array = np.asarray(value)
        other_floats = array.dtype.kind == "V" and array.dtype.names is None  # bfloat16, float8
        if other_floats or array.dtype.kind == "f":
            array = array.astype(np.float64)  # exact, but for long doubles
    except (TypeError, ValueError, RuntimeError) as error:
        raise _refused(value, where, str(error).splitlines()[0]) from error
    if array.dtype.kind not in "biufUO":
        raise _refused(value, where, f"its values are {array.dtype}")
    found = array.tolist()
    if found is value:  # an object that is an array of itself
        raise _refused(value, where, "give a number, text, a list or a mapping")
    return found


def _key(key: Any, where: str) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if not isinstance(key, str):
        # check imports jax, which this layer does without until something is wrong.
        from floral.check import brief

        place = f"{where}: " if where else ""
        raise ConfigError(f"{place}a key must be text, got {brief(key)}")
    return _text(key, where)


def _text(value: Any, where: str) -> str:
    text = os.fsdecode(value) if isinstance(value, bytes) else str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        place = f"{where}: " if where else ""
        raise ConfigError(
            f"{place}{text!a:.80} is no Unicode text, so no file can hold it"
        ) from None
    return text


def _mend(value: Any) -> str:
    if isinstance(value, Set):
        return "a set has no order: give a list"
    if isinstance(value, bytes | bytearray | memoryview):
        return "give text"
    if callable(value):
        return "a function of your own is named in a config, as my_module:name"
    return "give a number, text, a list or a mapping"


def _refused(value: Any, where: str, mend: str) -> ConfigError:
    place = f"{where}: " if where else ""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return ConfigError(f"{place}a config cannot hold a value of type {name}; {mend}")
