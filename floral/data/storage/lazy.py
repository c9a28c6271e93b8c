"""Arrays that are read or made when they are sliced, so that a population need not fit in memory.

A simulator reads clients' rows as slices and asks for nothing else: shape, dtype, length and
``array[first:last]``. What has those four may stand where a plain array stands; ``LazyArray`` gives
the rest to whoever can say how rows come about.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

__all__ = ["LazyArray", "is_plain"]


class LazyArray(ABC):
    """An array ``[M, ...]`` of which rows exist once they are asked for.

    Slices may be asked for by several threads at once. ``np.asarray`` reads all of it.

    Attributes:
      shape: with M first.
      dtype: of 32 bits or fewer, as JAX will have it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)

    @abstractmethod
    def rows(self, first: int, last: int) -> np.ndarray:
        """The rows ``first … last - 1``, with ``0 <= first <= last <= M``."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """What stands for the contents in a fingerprint: it changes where they do."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice) -> np.ndarray:
        if not isinstance(index, slice):
            raise TypeError(f"{type(self).__name__} gives slices of rows, not {index!r}")
        first, last, step = index.indices(len(self))
        rows = self.rows(first, max(first, last)) if step > 0 else self.rows(0, len(self))[index]
        return rows[::step] if step > 1 else rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"{type(self).__name__} has no array in memory to share")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"


def is_plain(array: Any) -> bool:
    """Whether an array lies in memory as it is; a mapped file or a ``LazyArray`` does not.

    Example:
      >>> is_plain(np.zeros(3))
      True
    """
    return type(array) is np.ndarray
