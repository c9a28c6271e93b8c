"""Populations in files that are mapped into memory: what is read is what a round needs.

A folder holds one .npy file a field and split, which any NumPy can read, the offsets and traits,
and ``population.json``, which names them all with their sizes and digests. The digests make the
fingerprint, without reading the data again.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from floral import check
from floral.data.clients import FederatedDataset
from floral.data.splits import SPLITS
from floral.data.storage.flat import from_flat
from floral.data.storage.lazy import LazyArray
from floral.errors import DataError
from floral.first_argument import first_by_place
from floral.typing import FilePath

__all__ = ["mapped", "save_mapped"]

_INDEX = "population.json"
_FORMAT = 1
_AT_ONCE = 2**26  # bytes read and written at once
_PROBES, _PROBE = 16, 4096  # places of a file that are compared when it is opened, and their bytes


def save_mapped(dataset: FederatedDataset, folder: str | Path) -> None:
    """Writes a population for ``mapped``, whole or not at all.

    Examples are read a piece at a time, so a lazy population may be larger than the memory.

    Args:
      dataset: the population.
      folder: a folder that is not there yet, or is empty.

    Raises:
      DataError: if the folder holds anything.
    """
    check.path(folder=folder)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{str(folder)!r} is there already; a population is never overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        arrays = {f"traits/{name}": trait for name, trait in dataset.traits.items()}
        arrays["unseen"] = dataset.unseen
        if dataset.client_names is not None:
            arrays["client_names"] = dataset.client_names
        for name, split in dataset.splits.items():
            arrays[f"offsets/{name}"] = split.offsets
            arrays |= {f"{name}/{field}": array for field, array in split.examples.items()}
        files = {name: _write(unfinished, name, array) for name, array in arrays.items()}
        index = {"format": _FORMAT, "num_classes": dataset.num_classes, "arrays": files}
        if dataset.class_names is not None:
            index["class_names"] = list(dataset.class_names)
        (unfinished / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@first_by_place
def mapped(*, folder: FilePath) -> FederatedDataset:
    """The population that ``save_mapped`` wrote, its examples left in their files.

    Opening reads offsets, traits and a few places of each file, however large the files are; a
    simulator then fetches the examples of each cohort while the one before it trains.

    Args:
      folder: where it was saved.

    Raises:
      DataError: if a file is missing, or is not the one that was written.
    """
    check.path(folder=folder)
    place = Path(folder)
    if not (place / _INDEX).is_file():
        raise DataError(f"no population at {folder!r}: it has no {_INDEX}, as save_mapped writes")
    try:
        index = json.loads((place / _INDEX).read_text(encoding="utf-8"))
        if index["format"] != _FORMAT:
            raise DataError(f"{folder!r} is of format {index['format']}, expected {_FORMAT}")
        files = index["arrays"].items()
        arrays = {name: _Mapped(place, said) for name, said in files}
        num_classes = index["num_classes"]
        splits = [name for name in SPLITS if f"offsets/{name}" in arrays]
        return from_flat(
            {split: _under(f"{split}/", arrays) for split in splits},
            {split: arrays[f"offsets/{split}"][:] for split in splits},
            traits={n: trait[:] for n, trait in _under("traits/", arrays).items()},
            unseen=arrays["unseen"][:],
            num_classes=num_classes,
            class_names=index.get("class_names"),
            client_names=arrays["client_names"][:] if "client_names" in arrays else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{str(place / _INDEX)!r} is damaged: {error!r}") from error


def _under(prefix: str, arrays: Mapping[str, "_Mapped"]) -> dict[str, "_Mapped"]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _write(folder: Path, name: str, array: Any) -> dict[str, Any]:
    """Writes an array as .npy and says what it wrote."""
    path = folder / f"{name.replace('/', '.')}.npy"
    dtype = array.dtype.newbyteorder("<")
    shape = tuple(array.shape)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    row = max(1, dtype.itemsize * math.prod(shape[1:]))
    together = max(1, _AT_ONCE // row)
    contents = sha256()
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for first in range(0, shape[0], together):
            piece = np.asarray(array[first : first + together])
            piece = np.ascontiguousarray(piece, dtype)
            contents.update(piece.data)
            file.write(piece.data)
        size = file.tell()
        file.flush()
        os.fsync(file.fileno())
    return {
        "file": path.name,
        "dtype": dtype.str,
        "shape": list(shape),
        "start": start,
        "bytes": size,
        "sha256": contents.hexdigest(),
        "probe": _probe(path, size),
    }


def _probe(path: Path, size: int) -> str:
    """SHA-256 of a few places of a file, spread evenly over it."""
    seen = sha256()
    with path.open("rb") as file:
        for place in range(_PROBES):
            file.seek(max(0, size - _PROBE) * place // (_PROBES - 1))
            seen.update(file.read(_PROBE))
    return seen.hexdigest()


class _Mapped(LazyArray):
    """An array in a file, which is opened when its rows are first read."""

    def __init__(self, folder: Path, said: Mapping[str, Any]):
        super().__init__(said["shape"], said["dtype"])
        self._path = folder / said["file"]
        self._start = said["start"]
        self._digest = said["sha256"]
        if not self._path.is_file():
            raise DataError(f"no data file at {str(self._path)!r}; {_INDEX} names it")
        size = self._path.stat().st_size
        if size != said["bytes"]:
            raise DataError(
                f"{str(self._path)!r} has {size} bytes, {said['bytes']} were written: "
                "it was cut short, or changed"
            )
        if _probe(self._path, size) != said["probe"]:
            raise DataError(f"{str(self._path)!r} is not the file that was written: it was changed")

    @cached_property
    def _file(self) -> np.ndarray:
        if not self.shape[0]:
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self._path, self.dtype, "r", self._start, self.shape)

    def rows(self, first: int, last: int) -> np.ndarray:
        return np.asarray(self._file[first:last])

    @property
    def digest(self) -> str:
        return self._digest
