"""Tables: data sets and frames in memory, whose columns become features, targets and fields.

A table is a ``datasets.Dataset``, a frame of pandas or polars, a table of pyarrow, or a mapping of
columns. Where several splits are asked for, they are read as one source, whose field "split" says
which one each example is of: client names mean the same clients in all of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from floral import check
from floral.data.columns import as_array, as_numbers
from floral.data.door import as_features
from floral.data.sources import Source, arrays
from floral.data.splits import SPLITS, sliced
from floral.errors import DataError

__all__ = ["Table", "as_tables", "asked_for", "from_dataset", "known_column", "source_of"]

Columns = str | Sequence[str]


class Table(NamedTuple):
    """Columns by name."""

    columns: tuple[str, ...]
    """Their names."""
    read: Callable[[str], Any]
    """The values of one."""
    features: Mapping[str, Any] = {}
    """What else is known of them, as a ClassLabel's names."""


def from_dataset(
    dataset: Any,
    *,
    x: str | Sequence[str] = "image",
    y: str | Sequence[str] = "label",
    client: str | None = None,
    split: str | Mapping[str, str] | None = None,
    num_classes: int | None = None,
    name: str = "",
) -> Source:
    """A source from a ``datasets.Dataset``, a data frame, or a mapping of columns, in memory.

    Args:
      dataset: the table; or a ``datasets.DatasetDict``, of which ``split`` chooses.
      x: the column of features, or several of one number an example, which become ``[M, d]``.
      y: the column of targets, or several of numbers.
      client: the column that names the client, kept as a field of that name.
      split: the split to read, slices allowed, as ``train[:50%]``; or by "train", "validation" and
        "test" the split to read as each, which the field "split" then tells apart. None takes a
        table whole.
      num_classes: the number of classes; by default what the table, or its labels, say.
      name: names the source in messages.

    Raises:
      DataError: for what is no table in memory, a column or split that is not there, and values
        that cannot be trained on.

    Example:
      >>> table = {"height": [1.5, 0.5], "age": [3, 4], "kind": ["cat", "dog"]}
      >>> source = from_dataset(table, x=["height", "age"], y="kind")
      >>> source.examples["x"].tolist(), source.class_names
      ([[1.5, 3.0], [0.5, 4.0]], ('cat', 'dog'))
    """
    name = name or "dataset"
    tables = as_tables(dataset, split, name)
    return source_of(tables, x=x, y=y, client=client, num_classes=num_classes, name=name)


def as_tables(dataset: Any, split: str | Mapping[str, str] | None, name: str) -> dict[str, Table]:
    """The tables that are asked for by split; of one alone the split is ""."""
    kind = type(dataset).__name__
    if kind.startswith("Iterable"):
        raise DataError(
            f"{name}: a streaming data set must be in memory: pass a Dataset of its first n rows, "
            "as datasets.Dataset.from_list(list(dataset.take(n)))"
        )
    if kind == "LazyFrame":
        raise DataError(f"{name}: a lazy frame must be in memory: pass its collect()")
    if kind == "Dataset" and hasattr(dataset, "with_format"):
        own = str(dataset.split or "train").partition("[")[0]
        parts = {own: dataset}
    elif isinstance(dataset, Mapping) and any(hasattr(p, "with_format") for p in dataset.values()):
        parts = {str(key): part for key, part in dataset.items()}
    elif split is not None:
        raise DataError(f"{name}: a {kind} has no splits; it was asked for {split!r}")
    else:
        return {"": _plain_table(dataset, name)}
    if split is None:
        if len(parts) > 1 or isinstance(dataset, Mapping):
            raise DataError(f"{name}: choose one of the splits {', '.join(parts)}")
        return {"": _of_library(dataset)}
    return {
        ours: _of_library(sliced(parts, theirs, name))
        for ours, theirs in asked_for(split, name).items()
    }


def asked_for(split: str | Mapping[str, str], name: str) -> dict[str, str]:
    """The library's splits by ours; of one alone ours is ""."""
    if isinstance(split, str):
        return {"": split}
    for ours in split:
        if ours not in SPLITS:
            hint = check.did_you_mean(ours, SPLITS)
            raise DataError(f"{name}: splits are {', '.join(SPLITS)}; got {ours!r}{hint}")
    if "train" not in split:
        raise DataError(f"{name}: none of the splits {', '.join(split) or 'given'} is for training")
    return dict(split)


def source_of(
    tables: Mapping[str, Table],
    *,
    x: Columns,
    y: Columns,
    client: str | None,
    num_classes: int | None,
    name: str,
) -> Source:
    """The source of one table, or of those of several splits, one after another."""
    features = [x] if isinstance(x, str) else list(x)
    targets = [y] if isinstance(y, str) else list(y)
    for column in targets:
        if column in features and not isinstance(x, str):
            raise DataError(f"{name}: column {column!r} is both a feature and the target")
    parts = []
    for table in tables.values():
        for column in [*features, *targets, *([client] if client else [])]:
            known_column(column, table.columns, f"{name}: column")
        parts.append(
            (
                _one(table, x, name) if isinstance(x, str) else _several(table, x, name),
                table.read(y) if isinstance(y, str) else _several(table, y, name),
                table.read(client) if client else None,
            )
        )
    inputs, labels, clients = ([part[place] for part in parts] for place in range(3))
    for split, some in zip(tables, inputs, strict=True):
        if some.shape[1:] != inputs[0].shape[1:]:
            raise DataError(
                f"{name}: x of split {split!r} is {list(some.shape[1:])}, of "
                f"{next(iter(tables))!r} {list(inputs[0].shape[1:])}"
            )
    fields = {client: _joined(clients, client, name)} if client else {}
    if "" not in tables:
        fields["split"] = np.repeat(list(tables), [len(some) for some in inputs])
    first = next(iter(tables.values()))
    classes, names = _classes(first.features.get(y) if isinstance(y, str) else None)
    return arrays(
        np.concatenate(inputs) if len(inputs) > 1 else inputs[0],
        _joined(labels, "y", name) if len(labels) > 1 else labels[0],
        fields=fields,
        num_classes=classes if num_classes is None else num_classes,
        class_names=names if num_classes in (None, classes) else None,
        name=name,
    )


def _classes(feature: Any) -> tuple[int | None, tuple[str, ...] | None]:
    """What a ClassLabel says: the number of classes, and their names unless these are numbers."""
    count, names = (getattr(feature, name, None) for name in ("num_classes", "names"))
    if names is None or len(names) != count or list(names) == [str(i) for i in range(len(names))]:
        return count, None
    return count, tuple(names)


def known_column(given: str, options: Iterable[str], what: str) -> None:
    """Raises DataError unless a column, feature or split is there; names the nearest."""
    options = list(options)
    if given not in options:
        hint = check.did_you_mean(given, options)
        raise DataError(f"{what} {given!r} is missing; there are {', '.join(options)}{hint}")


def _joined(columns: Sequence[Any], column: str, name: str) -> np.ndarray:
    arrays_of_splits = [as_array(values, f"{name}: column {column!r}") for values in columns]
    for array in arrays_of_splits:
        if array.ndim == 0:
            raise DataError(f"{name}: column {column!r} is a single value, not one an example")
    if len({array.dtype.kind for array in arrays_of_splits}) > 1:
        arrays_of_splits = [array.astype(object) for array in arrays_of_splits]
    return np.concatenate(arrays_of_splits)


def _one(table: Table, column: str, name: str) -> np.ndarray:
    what = f"{name}: column {column!r}"
    return as_features(table.read(column), what)


def _several(table: Table, columns: Sequence[str], name: str) -> np.ndarray:
    """Columns of one number an example, side by side: [M, d]."""
    if not columns:
        raise DataError(f"{name}: name at least one column of features")
    found = []
    for column in columns:
        what = f"{name}: column {column!r}"
        values = as_numbers(table.read(column), what)
        if values.ndim != 1:
            raise DataError(
                f"{what} has {list(values.shape[1:])} numbers an example; of several columns each "
                "must have one"
            )
        found.append(values)
    return np.stack(found, axis=1)


def _of_library(dataset: Any) -> Table:
    """A ``datasets.Dataset``."""
    as_numpy = dataset.with_format("numpy")

    def read(column: str) -> Any:
        if type(dataset.features[column]).__name__ == "Image":
            return list(dataset.with_format(None)[column])
        return as_numpy[column][:]

    return Table(tuple(dataset.column_names), read, dataset.features)


def _plain_table(table: Any, name: str) -> Table:
    if isinstance(table, Mapping):
        return Table(tuple(map(str, table)), {str(key): table[key] for key in table}.__getitem__)
    names = getattr(table, "columns", None)
    if hasattr(table, "column_names"):  # of pyarrow
        names = table.column_names
    if names is None or not hasattr(table, "__getitem__") or isinstance(table, np.ndarray):
        raise DataError(
            f"{name}: a {type(table).__name__} is no table; pass a datasets.Dataset, a data frame "
            "or a mapping of columns, or arrays to fl.data.arrays"
        )
    by_name = {str(column): column for column in names}
    return Table(tuple(by_name), lambda column: table[by_name[column]])
