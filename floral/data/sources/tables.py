"""Tables: data sets and frames in memory, whose columns become features, targets and fields.

A table is a ``datasets.Dataset``, a frame of pandas or polars, a table of pyarrow, or a mapping of
columns. Where several splits are asked for, they are read as one source, whose field "split" says
which one each example is of: client names mean the same clients in all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from floral import check
from floral.data.sources.in_memory import Source
from floral.data.sources.library_columns import check_plain, library_column
from floral.data.sources.table_columns import Table, source_of
from floral.data.splits import SPLITS, check_apart, sliced
from floral.errors import DataError

__all__ = ["as_tables", "asked_for", "from_dataset"]


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
    if not isinstance(name, str):
        raise DataError(f"name must be text, got {check.described(name)}")
    name = name or "dataset"
    tables = as_tables(dataset, split, name)
    return source_of(tables, x=x, y=y, client=client, num_classes=num_classes, name=name)


def as_tables(
    dataset: Any, split: str | Mapping[str, str] | None, name: str, *, file: bool = False
) -> dict[str, Table]:
    """The tables that are asked for by split; of one alone the split is "".

    Args:
      dataset: a table, or tables of ``datasets`` by split.
      split: what is asked for.
      name: names the data in messages.
      file: whether it comes from one file, which has no splits of its own.
    """
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
        raise DataError(f"{name}: a {kind} has no splits; it was asked for {check.brief(split)}")
    else:
        return {"": _plain_table(dataset, name)}
    if split is None:
        if len(parts) > 1 or isinstance(dataset, Mapping):
            raise DataError(f"{name}: choose one of the splits {', '.join(parts)}")
        return {"": _of_library(dataset, name)}
    asked = asked_for(split, name)
    found = {ours: sliced(parts, theirs, name, file=file) for ours, theirs in asked.items()}
    check_apart(asked, {key: len(part) for key, part in parts.items()}, name)
    return {ours: _of_library(part, name) for ours, part in found.items()}


def asked_for(split: str | Mapping[str, str], name: str) -> dict[str, str]:
    """The library's splits by ours; of one alone ours is ""."""
    if isinstance(split, str):
        return {"": split}
    named = isinstance(split, Mapping) and all(isinstance(each, str) for each in split.values())
    if not named:
        raise DataError(
            f"{name}: split must be one split, as 'train', or one for each of train, validation "
            f"and test, as {{'train': 'train', 'test': 'test'}}; got {check.described(split)}"
        )
    for ours in split:
        if ours not in SPLITS:
            hint = check.did_you_mean(ours, SPLITS)
            raise DataError(f"{name}: splits are {', '.join(SPLITS)}; got {ours!r}{hint}")
    if "train" not in split:
        raise DataError(f"{name}: none of the splits {', '.join(split) or 'given'} is for training")
    return dict(split)


def _of_library(dataset: Any, name: str) -> Table:
    """A ``datasets.Dataset``."""
    check_plain(dataset, name)
    columns = tuple(dataset.column_names)
    return Table(columns, lambda column: library_column(dataset, column, name), dataset.features)


def _plain_table(table: Any, name: str) -> Table:
    if isinstance(table, Mapping):
        by_name = _by_name(table, name)
        return Table(tuple(by_name), lambda column: table[by_name[column]])
    names = getattr(table, "columns", None)
    if hasattr(table, "column_names"):  # of pyarrow
        names = table.column_names
    if names is None or not hasattr(table, "__getitem__") or isinstance(table, np.ndarray):
        raise DataError(
            f"{name}: a {type(table).__name__} is no table; pass a datasets.Dataset, a data frame "
            "or a mapping of columns, or arrays to fl.data.arrays"
        )
    by_name = _by_name(names, name)
    return Table(tuple(by_name), lambda column: table[by_name[column]])


def _by_name(columns: Iterable[Any], name: str) -> dict[str, Any]:
    """The keys of columns by their names as words, each of one column."""
    by_name: dict[str, Any] = {}
    for column in columns:
        if str(column) in by_name:
            raise DataError(f"{name}: two columns are called {str(column)!r}; rename one")
        by_name[str(column)] = column
    return by_name
