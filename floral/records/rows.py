"""Clients' rows that live on the host, on disk: a file a column, written and read piece by piece.

They may be larger than the memory, which orbax would copy them into. A folder of them becomes
visible only once it is whole, and before the checkpoint that it belongs to.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from floral import tree
from floral.simulate.table import pieces
from floral.typing import PyTree

__all__ = ["drop_rows", "load_rows", "save_rows"]


def save_rows(folder: Path, columns: PyTree) -> None:
    """Writes arrays [N, ...], whole or not at all, over what a save that broke off left there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
    try:
        for path, column in tree.paths(columns).items():
            _write(unfinished / _name(path), column)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def load_rows(folder: Path, like: PyTree) -> PyTree:
    """The arrays of a folder, mapped from their files, to be read only.

    Raises:
      ValueError: if a file is damaged, or its array is another than in ``like``.
      OSError: if one is missing.
    """
    return tree.map_with_path(lambda path, leaf: _mapped(folder / _name(path), leaf), like)


def drop_rows(folder: Path, kept: Iterable[int]) -> None:
    """Removes the folders of all other rounds, and of saves that broke off."""
    names = {str(round_index) for round_index in kept}
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name not in names:
            shutil.rmtree(entry)


def _name(path: str) -> str:
    return f"{path.replace('/', '.')}.npy"


def _stored(dtype: np.dtype) -> np.dtype:
    """The dtype in the file: NumPy's own, which a bfloat16 is not."""
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype


def _write(path: Path, column: np.ndarray) -> None:
    dtype = _stored(column.dtype)
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": column.shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces(column):
            file.write(np.ascontiguousarray(column[piece]).view(dtype).data)
        file.flush()
        os.fsync(file.fileno())


def _mapped(path: Path, leaf: Any) -> np.ndarray:
    found = np.load(path, mmap_mode="r" if leaf.size else None)
    if found.shape != leaf.shape or found.dtype != _stored(np.dtype(leaf.dtype)):
        raise ValueError(f"{found.dtype}{found.shape} is saved, not {leaf.dtype}{leaf.shape}")
    return found.view(leaf.dtype)
