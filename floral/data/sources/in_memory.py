"""Sources: where examples come from. Files are read here, in ``idx_files`` and ``hubs`` only.

A source is examples, the fields that may name clients, and the number of classes. Whatever is
wrong with the data is said here, before anything is dealt: the file or field, the example, the
value. Images of bytes become float32 in [0, 1] with a channel axis.
"""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from floral import check
from floral.data.checks.columns import as_array
from floral.data.checks.door import as_examples
from floral.data.clients import FederatedDataset, from_clients
from floral.data.splits import SPLITS
from floral.display import as_html, each, examples
from floral.errors import DataError
from floral.first_argument import first_by_place
from floral.typing import FilePath

__all__ = ["Source", "arrays", "existing", "file_name", "from_npz", "npz"]


class Source(NamedTuple):
    """Examples that no one owns yet."""

    examples: dict[str, np.ndarray]
    """``{"x": [M, ...], "y": [M, ...]}``."""
    fields: dict[str, np.ndarray]
    """Other things known about each example, ``[M]``: a writer, a speaker; see ``natural``."""
    num_classes: int | None
    """The number of classes, or None where the targets are not classes."""
    name: str
    """Where the examples came from, for messages and records."""
    class_names: tuple[str, ...] | None = None
    """The word of each class, in order; None where labels have none."""

    def __repr__(self) -> str:
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        fields = f", fields {', '.join(self.fields)}" if self.fields else ""
        x = self.examples["x"]
        return f"Source({self.name!r}: {examples(len(x))}, x {each(x)}{classes}{fields})"

    def _repr_html_(self) -> str:
        return as_html(repr(self))


def arrays(
    x: Any,
    y: Any,
    *,
    fields: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Source:
    """A source from arrays in memory, or from whatever NumPy reads as such.

    Labels that are words become numbers in sorted order, and the source keeps the words. Targets
    ``[M]`` of whole numbers are classes; floats, and targets of more axes, are not unless
    ``num_classes`` says so. Bytes ``[M, H, W]`` and ``[M, H, W, C]`` are images, and become floats
    in [0, 1] with a channel axis; of other numbers, those of 64 bits become 32.

    Args:
      x: features, ``[M, ...]``, or a list of images of PIL.
      y: targets, ``[M]`` or ``[M, d]``.
      fields: other things known about each example, each ``[M]``.
      num_classes: the number of classes; by default of the different words, or the largest label
        plus one.
      class_names: the words of all classes, in order; by default those that are found.
      name: names the source in messages.

    Raises:
      DataError: if the data are empty, of unequal lengths, not finite, or not numbers, if a label
        is missing or out of range, or if most classes would be empty.

    Example:
      >>> source = arrays([[0.0], [1.0], [2.0]], ["cat", "dog", "cat"])
      >>> source.num_classes, source.examples["y"], source.class_names
      (2, array([0, 1, 0], dtype=int32), ('cat', 'dog'))
    """
    if not isinstance(name, str):
        raise DataError(f"name must be text, got {check.described(name)}")
    examples, targets = as_examples(
        {"x": x, "y": y}, name, num_classes=num_classes, class_names=class_names, infer=True
    )
    if fields is not None:
        check.mapping("{'writer': names}", fields=fields)
    known = {
        key: as_array(value, f"{name}: field {key!r}") for key, value in (fields or {}).items()
    }
    for key, value in known.items():
        if value.shape[:1] != (len(targets.values),):
            raise DataError(
                f"{name}: field {key!r} has {value.size if value.ndim < 2 else len(value)} values "
                f"for {len(targets.values)} examples"
            )
    return Source(examples, known, targets.num_classes, name, targets.class_names)


@first_by_place
def npz(*, path: FilePath, x: str = "x", y: str = "y", num_classes: int | None = None) -> Source:
    """A source from an npz file; every other array of one value an example becomes a field.

    Args:
      path: the file.
      x: the name of the features in it.
      y: the name of the targets in it.
      num_classes: the number of classes; by default the largest label plus one.
    """
    path = file_name(path)
    held = _read_npz(path)
    for place, name in {"x": x, "y": y}.items():
        if not isinstance(name, str):
            raise DataError(f"{place} must be the name of an array, got {check.described(name)}")
        if name not in held:
            hint = check.did_you_mean(name, held)
            raise DataError(f"{path!r} has no array {name!r}; it has {', '.join(held)}{hint}")
    length = held[y].shape[:1]
    fields = {n: a for n, a in held.items() if n not in (x, y) and a.shape == length}
    return arrays(held[x], held[y], fields=fields, num_classes=num_classes, name=path)


@first_by_place
def from_npz(*, path: FilePath, num_classes: int | None = None) -> FederatedDataset:
    """A population of clients of equal size from an npz file: N leads every array.

    The layout is ``x_train`` [N, n, ...] and ``y_train`` [N, n, ...], the same with ``_test`` and
    ``_validation`` where there are such splits, and any traits ``[N, ...]``, such as ``cluster``.

    Args:
      path: the file.
      num_classes: the number of classes, or None where the targets are not classes.
    """
    path = file_name(path)
    held = _read_npz(path)
    if "x_train" not in held:
        raise DataError(f"{path!r} has no array 'x_train'; it has {', '.join(held)}")
    names = [name for name in SPLITS if f"x_{name}" in held]
    for name in names:
        if f"y_{name}" not in held:
            raise DataError(f"{path!r} has 'x_{name}' but no 'y_{name}'")
    taken = {f"{axis}_{name}" for name in names for axis in "xy"}
    for name in held:
        axis, _, split = name.lower().partition("_")
        other = f"{'y' if axis == 'x' else 'x'}_{split}"
        paired = split in SPLITS or other in map(str.lower, held)
        if axis in ("x", "y") and split and paired and name not in taken:
            raise DataError(
                f"{path!r}: the array {name!r} is of no split; a split is a pair as x_test and "
                f"y_test, of {', '.join(SPLITS)}"
            )
        if not held[name].ndim:
            raise DataError(f"{path!r}: {name!r} is a single number; N clients lead every array")
    counts = {name: len(held[name]) for name in taken}
    if len(set(counts.values())) > 1:
        described = ", ".join(f"{n!r} has {counts[n]}" for n in sorted(counts))
        raise DataError(f"{path!r}: arrays differ in clients: {described}")
    clients = [
        {name: {axis: held[f"{axis}_{name}"][k] for axis in "xy"} for name in names}
        for k in range(counts["x_train"])
    ]
    traits = {name: array for name, array in held.items() if name not in taken}
    return from_clients(clients, traits=traits, num_classes=num_classes)


def _read_npz(path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(existing(path), allow_pickle=False) as file:
            return dict(file)
    except (ValueError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path!r} is no npz file of plain arrays: {error}") from error


def file_name(path: Any) -> str:
    """A path, or a name, as text.

    Raises:
      DataError: for what is none, and for an address of the network, which nothing here reads.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise DataError(f"path must be the path of a file, got {check.brief(path)}")
    name = os.fspath(path)
    if "://" in name:
        raise DataError(
            f"{check.brief(name)} is an address, and nothing is fetched from there; download the "
            "file and give its path"
        )
    check.path(path=name)
    return name


def existing(path: Any) -> Path:
    """The path of a file that is there; otherwise DataError names the nearest that is."""
    given = Path(file_name(path))
    place = given.expanduser()
    if not os.path.isfile(place):  # False too for what no file can be called
        beside = sorted(place.parent.iterdir()) if os.path.isdir(place.parent) else []
        hint = check.did_you_mean(place, [str(file) for file in beside if file.is_file()])
        raise DataError(f"no data file at {str(given)[:200]!r}{hint}")
    return place
