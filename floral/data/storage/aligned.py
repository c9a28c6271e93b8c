"""Arrays at addresses where a CPU's devices can use them without a copy of their own.

NumPy puts an array at a multiple of 16 bytes, XLA wants one of 64. What a population is made of is
therefore allocated here, and put on any number of a CPU's devices it exists once.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["aligned", "aligned_copy", "aligned_zeros", "joined", "taken"]

_ALIGNMENT = 64
_ROWS = 4096  # taken at a time: an index makes a copy, which is copied to its place


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros at an aligned address; of what is never written the system holds no memory.

    Example:
      >>> aligned_zeros((3, 5), np.float32).ctypes.data % 64
      0
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    room = np.zeros(size + _ALIGNMENT, np.uint8)
    shift = -room.ctypes.data % _ALIGNMENT
    return room[shift : shift + size].view(dtype).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """The array itself where it is aligned and lies in C order; a copy that is elsewhere."""
    if array.ctypes.data % _ALIGNMENT == 0 and array.flags.c_contiguous:
        return array
    return aligned_copy(array)


def aligned_copy(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """A copy at an aligned address, of the array's dtype or another."""
    copy = aligned_zeros(array.shape, array.dtype if dtype is None else dtype)
    copy[...] = array
    return copy


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of one type one after another along their first axis."""
    rows = sum(len(part) for part in parts)
    whole = aligned_zeros((rows, *parts[0].shape[1:]), parts[0].dtype)
    return np.concatenate(parts, out=whole)


def taken(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``array[rows]`` for rows [n]."""
    chosen = aligned_zeros((len(rows), *array.shape[1:]), array.dtype)
    for first in range(0, len(rows), _ROWS):
        chosen[first : first + _ROWS] = array[rows[first : first + _ROWS]]
    return chosen
