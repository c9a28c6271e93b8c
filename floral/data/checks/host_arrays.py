"""Host arrays: canonical types, checks, fingerprints and named generators.

Everything before ``gather`` is NumPy. The rules that every file of this folder shares are here, so
that a NaN or a label out of range is found in one place and named in one way.
"""

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from floral import check
from floral.data.checks.columns import as_numbers, narrowed
from floral.data.storage.lazy import LazyArray
from floral.errors import DataError

__all__ = ["canonical", "check_examples", "fingerprint", "generator", "row_numbers"]


def canonical(array: Any, what: str = "the array") -> np.ndarray:
    """The array in the type that JAX will give it: 64-bit numbers become 32-bit, the rest stays.

    Args:
      array: numbers, in whatever holds them.
      what: names them in messages.

    Raises:
      DataError: for what is no number, and for numbers that 32 bits cannot hold.

    Example:
      >>> canonical([1, 2]).dtype, canonical([0.5]).dtype
      (dtype('int32'), dtype('float32'))
    """
    return narrowed(as_numbers(array, what), what)


def check_examples(
    examples: Mapping[str, np.ndarray], *, where: str, num_classes: int | None = None
) -> None:
    """Raises DataError unless the examples can be trained on.

    Every array needs the same, non-zero length; floats must be finite; whole-number labels must
    lie in ``0 … num_classes - 1`` where ``num_classes`` is given.

    Args:
      examples: ``{"x": [M, ...], "y": [M, ...]}``.
      where: names the data in the message.
      num_classes: the number of classes, or None for other targets.
    """
    for name in ("x", "y"):
        if name not in examples:
            raise DataError(f"{where} lacks {name!r}; it has {', '.join(map(repr, examples))}")
    for name, array in examples.items():
        if array.ndim == 0:
            raise DataError(f"{where}: {name!r} must have one row an example, got a single number")
    lengths = {name: len(array) for name, array in examples.items()}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise DataError(f"{where}: arrays differ in length: {described}")
    if lengths["x"] == 0:
        raise DataError(f"{where} is empty: it has no examples")
    for name, array in examples.items():
        if 0 in array.shape:
            raise DataError(
                f"{where}: {name!r} has shape {list(array.shape)}: an example holds no number"
            )
    for name, array in examples.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row, *within = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
            at = f" at {tuple(within)}" if within else ""
            raise DataError(
                f"{where}: {name!r} of example {row} is {array[(row, *within)]}{at}; "
                "every number must be finite"
            )
    _check_labels(examples["y"], where, num_classes)


def _check_labels(labels: np.ndarray, where: str, num_classes: int | None) -> None:
    if num_classes is None:
        return
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels of classes must be whole numbers, got {labels.dtype}")
    wrong = np.argwhere((labels < 0) | (labels >= num_classes))
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        raise DataError(
            f"{where}: label of example {place[0]} is {labels[place]}, "
            f"expected 0 to {num_classes - 1} for {num_classes} classes"
        )


def fingerprint(named: Mapping[str, Any]) -> str:
    """SHA-256, in hex, over names, types, shapes and contents; equal data, equal fingerprint.

    Args:
      named: arrays, lazy or not, or anything whose ``repr`` says all there is to say, by name;
        order is ignored.

    Example:
      >>> fingerprint({"a": np.arange(3)}) == fingerprint({"a": np.arange(3)})
      True
      >>> fingerprint({"a": np.arange(3)}) == fingerprint({"b": np.arange(3)})
      False
    """
    digest = hashlib.sha256()
    for name in sorted(named):
        value = named[name]
        if isinstance(value, LazyArray):
            digest.update(f"{name!r}:{value.dtype.str}:{value.shape}:{value.digest};".encode())
        elif isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"), copy=False))
            digest.update(f"{name!r}:{value.dtype.str}:{value.shape};".encode())
            digest.update(value.data if value.size else b"")
        else:
            digest.update(f"{name!r}={value!r};".encode())
    return digest.hexdigest()


def row_numbers(rows: Any, what: str) -> np.ndarray:
    """Row numbers, or other whole numbers of a list, as int64 [n]; nothing is rounded.

    Args:
      rows: whole numbers; an empty list has none.
      what: names them in messages.

    Raises:
      DataError: for other numbers, and for a mask, which would be read as rows 0 and 1.
    """
    try:
        array = np.asarray(rows)
    except ValueError as error:  # NumPy's word for lists of unlike lengths
        raise DataError(f"{what} must be a list of whole numbers, got one of lists") from error
    if array.ndim == 1 and not array.size:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{what} must be a list of whole numbers, got {array.dtype}{list(array.shape)}"
        )
    if array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{what} must be a list of whole numbers below 2^63, got {array.max()}")
    return array.astype(np.int64)


def generator(seed: int, name: str, *indices: int) -> np.random.Generator:
    """The generator of the stream ``name``: what it draws depends on no other stream.

    Args:
      seed: of all streams.
      name: what the numbers are for.
      indices: which of the streams of that name: a client, say.

    Example:
      >>> generator(0, "split").integers(100) == generator(0, "split").integers(100)
      np.True_
    """
    check.seed(seed=seed)
    words = [seed, zlib.crc32(name.encode()), *indices]
    return np.random.default_rng(np.random.SeedSequence(words))
