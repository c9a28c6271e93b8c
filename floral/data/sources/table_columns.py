"""From tables to a source: which columns are features, targets and the clients' names.

What a column lacks is said with the column's own name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from floral import check
from floral.data.checks.columns import as_array, as_numbers, narrowed
from floral.data.checks.door import as_features
from floral.data.checks.missing import first_missing
from floral.data.sources.in_memory import Source, arrays
from floral.errors import DataError

__all__ = ["Table", "known_column", "source_of"]

Columns = str | Sequence[str]


class Table(NamedTuple):
    """Columns by name."""

    columns: tuple[str, ...]
    """Their names."""
    read: Callable[[str], Any]
    """The values of one."""
    features: Mapping[str, Any] = {}
    """What else is known of them, as a ClassLabel's names."""


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
    if client is not None and not isinstance(client, str):
        raise DataError(f"{name}: client must name a column, got {check.described(client)}")
    if num_classes is not None:
        check.positive_int(num_classes=num_classes)
    features, targets = _columns(x, "x", name), _columns(y, "y", name)
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
                _clients(table, client) if client else None,
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
    classes, names = _classes(tables, y, name)
    return arrays(
        np.concatenate(inputs) if len(inputs) > 1 else inputs[0],
        _joined(labels, "y", name) if len(labels) > 1 else labels[0],
        fields=fields,
        num_classes=classes if num_classes is None else num_classes,
        class_names=names if num_classes in (None, classes) else None,
        name=name,
    )


def _columns(given: Any, what: str, name: str) -> list[str]:
    """The names of columns, each given once."""
    columns = [given] if isinstance(given, str) else given
    if not isinstance(columns, Sequence) or not all(isinstance(each, str) for each in columns):
        raise DataError(
            f"{name}: {what} must be the name of a column, or a list of names, got "
            f"{check.described(given)}"
        )
    if not columns:
        raise DataError(f"{name}: {what} names no column; give at least one")
    for place, column in enumerate(columns):
        if column in columns[:place]:
            raise DataError(f"{name}: {what} names column {column!r} twice")
    return list(columns)


def _classes(
    tables: Mapping[str, Table], y: Columns, name: str
) -> tuple[int | None, tuple[str, ...] | None]:
    """What ClassLabels say: how many classes there are, and their names unless they are numbers."""
    found = {
        split: _class_label(table.features.get(y)) if isinstance(y, str) else (None, None)
        for split, table in tables.items()
    }
    (first, said), *others = found.items()
    for split, other in others:
        if other != said:
            raise DataError(
                f"{name}: column {y!r} has the classes {_listed(said)} in split {first!r}, but "
                f"{_listed(other)} in {split!r}; a number must mean one class"
            )
    return said


def _listed(classes: tuple[int | None, tuple[str, ...] | None]) -> str:
    count, names = classes
    return (
        check.brief(", ".join(names)) if names else "without names" if count is None else f"{count}"
    )


def _class_label(feature: Any) -> tuple[int | None, tuple[str, ...] | None]:
    count, names = (getattr(feature, name, None) for name in ("num_classes", "names"))
    if names is None or len(names) != count or list(names) == [str(i) for i in range(len(names))]:
        return count, None
    return count, tuple(names)


def _clients(table: Table, column: str) -> Any:
    """The column that names clients, by the names of its classes where it has some."""
    values, (_, names) = table.read(column), _class_label(table.features.get(column))
    if names is None:
        return values
    return np.array([names[v] if v is not None and v >= 0 else None for v in values], object)


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
    values = as_features(table.read(column), what)
    return _present(values, what) if values.ndim == 1 else values


def _several(table: Table, columns: Sequence[str], name: str) -> np.ndarray:
    """Columns of one number an example, side by side: [M, d]."""
    found: list[np.ndarray] = []
    for column in columns:
        what = f"{name}: column {column!r}"
        values = as_numbers(table.read(column), what)
        if values.ndim != 1:
            raise DataError(
                f"{what} has {list(values.shape[1:])} numbers an example; of several columns each "
                "must have one"
            )
        if found and len(values) != len(found[0]):
            raise DataError(
                f"{what} has {len(values)} values, column {columns[0]!r} {len(found[0])}"
            )
        # Narrowed one by one: beside a column of floats, a large whole number would be rounded.
        found.append(narrowed(_present(values, what), what))
    return np.stack(found, axis=1)


def _present(values: np.ndarray, what: str) -> np.ndarray:
    missing = first_missing(values)
    if missing is not None:
        raise DataError(f"{what} of example {missing} is missing")
    return values
