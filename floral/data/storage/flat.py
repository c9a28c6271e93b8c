"""A population from flat arrays that are there already, however they are stored."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from floral.data.checks.door import as_features, check_split
from floral.data.checks.host_arrays import canonical, check_examples, row_numbers
from floral.data.checks.labels import as_targets, shared_names
from floral.data.checks.pixels import scaled
from floral.data.clients import FederatedDataset, Split, assembled
from floral.data.storage.lazy import is_plain
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
    class_names: Sequence[str] | None = None,
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
      class_names: the words of all classes, in order; by default those that labels are, where all
        are plain arrays.

    Raises:
      DataError: if arrays and offsets do not fit, or plain arrays cannot be trained on.

    Example:
      >>> data = from_flat({"train": {"x": np.zeros((5, 2)), "y": np.arange(5)}},
      ...                  {"train": [0, 3, 5]}, num_classes=5)
      >>> data.client(1)["train"]["y"]
      array([3, 4], dtype=int32)
    """
    splits = {}
    if class_names is None:
        class_names = _class_names(examples)
    for name, fields in examples.items():
        if name not in offsets:
            raise DataError(f"split {name!r} has no offsets; there are {', '.join(offsets)}")
        where = f"split {name!r}"
        check_split(fields, where)
        arrays = {field: _ready(array, field, where) for field, array in fields.items()}
        if _in_memory(fields["y"]):
            given = as_targets(fields["y"], where, num_classes=num_classes, class_names=class_names)
            arrays["y"], num_classes = given.values, given.num_classes
        for field, array in arrays.items():
            if np.ndim(array) == 0:
                raise DataError(
                    f"{where}: {field!r} must have one row an example, got a single number"
                )
        rows = {field: len(array) for field, array in arrays.items()}
        plain = {field: array for field, array in arrays.items() if is_plain(array)}
        if len(plain) == len(arrays) and any(rows.values()):
            check_examples(plain, where=where, num_classes=num_classes)
        starts = row_numbers(offsets[name], f"{where}: offsets")
        for field, length in rows.items():
            _check_offsets(starts, length, f"{where}: the offsets of {field!r}")
        splits[name] = Split(arrays, starts)
    return assembled(splits, traits, unseen, num_classes, client_names, class_names)


def _in_memory(array: Any) -> bool:
    """Whether the array is read here; a mapped file, or what gives rows when asked, is not."""
    if isinstance(array, np.ma.MaskedArray | jax.Array) or hasattr(array, "iloc"):  # a frame's
        return True
    return is_plain(array) or not isinstance(getattr(array, "dtype", None), np.dtype)


def _class_names(examples: Mapping[str, Any]) -> tuple[str, ...] | None:
    labels = [
        (fields["y"], f"split {name!r}")
        for name, fields in examples.items()
        if isinstance(fields, Mapping) and "y" in fields and _in_memory(fields["y"])
    ]
    return shared_names(labels) if labels else None


def _ready(array: Any, field: str, where: str) -> Any:
    """The array in a type of JAX's; one that is not in memory must have such a type already."""
    what = f"{where}: {field!r}"
    if _in_memory(array):
        if field == "y":
            return array
        return as_features(array, what) if field == "x" else canonical(array, what)
    dtype = np.dtype(array.dtype)
    narrow = canonical(np.zeros(0, dtype), what).dtype
    if narrow != dtype:
        raise DataError(f"{what} is {dtype}, which JAX does not use; store it as {narrow}")
    return scaled(array) if field == "x" else array


def _check_offsets(offsets: np.ndarray, length: int, what: str) -> None:
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != length:
        raise DataError(
            f"{what} must be N + 1 numbers from 0 to {length}, "
            f"got {np.array2string(offsets, threshold=6)}"
        )
    back = np.flatnonzero(np.diff(offsets) < 0)
    if len(back):
        raise DataError(f"{what} fall at client {back[0]}: it would have fewer than no examples")
