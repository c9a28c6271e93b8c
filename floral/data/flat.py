"""A population from flat arrays that are there already, however they are stored."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from floral.data.arrays import canonical, check_examples
from floral.data.clients import FederatedDataset, Split, assembled
from floral.data.lazy import is_plain
from floral.errors import DataError

__all__ = ["from_flat"]


def from_flat(
    examples: Mapping[str, Mapping[str, Any]],
    offsets: Mapping[str, Any],
    *,
    traits: Mapping[str, Any] | None = None,
    unseen: Any = None,
    num_classes: int | None = None,
    client_names: Any = None,
) -> FederatedDataset:
    """A population from flat arrays, client after client, and where each client's rows begin.

    Nothing is looped over clients, and what is not a plain array in memory is not read: of an
    ``np.memmap``, a ``LazyArray`` or whatever else has ``shape``, ``dtype``, a length and slices,
    only shapes and types are checked. Plain arrays of JAX's types are kept as they are; where their
    address is no multiple of 64, putting them on a CPU's devices makes one copy.

    Args:
      examples: ``{split: {"x": [M, ...], "y": [M, ...]}}``; ``"train"`` is needed.
      offsets: ``{split: [N + 1]}``, from 0 to M; client k owns the rows from the k-th to the next.
      traits: what is known about the clients, each ``[N, ...]``.
      unseen: ``[N]`` bool, clients that never train; none by default.
      num_classes: the number of classes, or None.
      client_names: the clients' names, N different ones; none by default.

    Raises:
      DataError: if arrays and offsets do not fit, or plain arrays cannot be trained on.

    Example:
      >>> data = from_flat({"train": {"x": np.zeros((5, 2)), "y": np.arange(5)}},
      ...                  {"train": [0, 3, 5]}, num_classes=5)
      >>> data.client(1)["train"]["y"]
      array([3, 4], dtype=int32)
    """
    splits = {}
    for name, fields in examples.items():
        if name not in offsets:
            raise DataError(f"split {name!r} has no offsets; there are {', '.join(offsets)}")
        where = f"split {name!r}"
        arrays = {field: _ready(array, f"{where}: {field!r}") for field, array in fields.items()}
        rows = {field: len(array) for field, array in arrays.items()}
        plain = {field: array for field, array in arrays.items() if is_plain(array)}
        if len(plain) == len(arrays) and any(rows.values()):
            check_examples(plain, where=where, num_classes=num_classes)
        elif missing := {"x", "y"} - arrays.keys():
            raise DataError(f"{where} lacks {min(missing)!r}; it has {', '.join(arrays)}")
        starts = np.asarray(offsets[name], np.int64)
        for field, length in rows.items():
            _check_offsets(starts, length, f"{where}: the offsets of {field!r}")
        splits[name] = Split(arrays, starts)
    return assembled(splits, traits, unseen, num_classes, client_names)


def _ready(array: Any, what: str) -> Any:
    """The array in a type of JAX's; one that is not in memory must have such a type already."""
    if isinstance(array, list | tuple) or is_plain(array):
        return canonical(array)
    narrow = canonical(np.zeros(0, array.dtype)).dtype
    if narrow != array.dtype:
        raise DataError(f"{what} is {array.dtype}, which JAX does not use; store it as {narrow}")
    return array


def _check_offsets(offsets: np.ndarray, length: int, what: str) -> None:
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != length:
        raise DataError(
            f"{what} must be N + 1 numbers from 0 to {length}, "
            f"got {np.array2string(offsets, threshold=6)}"
        )
    back = np.flatnonzero(np.diff(offsets) < 0)
    if len(back):
        raise DataError(f"{what} fall at client {back[0]}: it would have fewer than no examples")
