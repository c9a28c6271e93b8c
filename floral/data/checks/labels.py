"""Targets: labels of classes as whole numbers from 0, or numbers to predict.

Words are classes in sorted order, by number where all of them are whole numbers. Bools are two
classes. Whole numbers [M] are classes of the same number where a source infers them. Floats are
classes only where ``num_classes`` or ``class_names`` say so.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from floral import check
from floral.data.checks.columns import as_array, as_numbers, narrowed
from floral.data.checks.missing import first_alike, first_missing, is_missing
from floral.data.storage.aligned import aligned_copy
from floral.errors import DataError

__all__ = ["Targets", "as_targets", "shared_names"]


class Targets(NamedTuple):
    """Targets, and what is known of their classes."""

    values: np.ndarray
    """``[M, ...]``: int32 labels of classes, or numbers."""
    num_classes: int | None
    """None where they are no classes."""
    class_names: tuple[str, ...] | None
    """The word of each class; None where they have none."""


def as_targets(
    values: Any,
    where: str,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    infer: bool = False,
) -> Targets:
    """Targets as numbers that a model can be trained on.

    Args:
      values: words, bools or numbers, ``[M, ...]``.
      where: names the data in messages.
      num_classes: the number of classes, where it is known.
      class_names: the words of all classes in order, where they are known.
      infer: whether whole numbers [M] are classes where nothing says how many there are.

    Raises:
      DataError: if a label is missing, of another type than the others, or out of range, or if
        the classes that would be inferred are mostly empty.

    Example:
      >>> as_targets(["dog", "cat", "dog"], "here").class_names
      ('cat', 'dog')
    """
    if num_classes is not None:
        check.positive_int(num_classes=num_classes)
        check.in_range(1, np.iinfo(np.int32).max, num_classes=num_classes)
    if class_names is not None:
        if isinstance(class_names, str) or not isinstance(class_names, Iterable):
            raise DataError(
                f"{where}: class_names must be a list of words, got {check.described(class_names)}"
            )
        class_names = tuple(map(str, class_names))
        num_classes = len(class_names) if num_classes is None else num_classes
        if len(class_names) > num_classes or len(set(class_names)) < len(class_names):
            raise DataError(
                f"{where}: class_names must be {check.brief(num_classes)} different words, "
                f"got {check.brief(class_names)}"
            )
    categories = getattr(getattr(values, "dtype", None), "categories", None)
    if categories is not None and class_names is None and as_array(categories, where).size:
        names = as_array(categories, where)
        if names.dtype.kind in "OU":
            class_names = tuple(map(str, names))
    array = as_array(values, f"{where}: 'y'")
    words = _words(array, where)
    if words is not None:
        return _of_words(words, where, num_classes, class_names)
    if array.dtype.kind in "Of" and array.ndim == 1:
        missing = first_missing(array)
        if missing is not None:
            raise DataError(f"{where}: label of example {missing} is missing")
    array = as_numbers(array, f"{where}: 'y'")
    if array.ndim == 0:
        raise DataError(f"{where}: 'y' must have one row an example, got a single number")
    if array.dtype.kind == "b":
        names = ("False", "True") if num_classes is None and array.ndim == 1 else class_names
        classes = 2 if num_classes is None and array.ndim == 1 else num_classes
        return Targets(array.astype(np.int32), classes, names)
    if num_classes is None and infer and array.ndim == 1 and array.dtype.kind in "iu":
        num_classes = _inferred(array, where)
    if num_classes is not None:
        return Targets(_labels(array, where, num_classes), num_classes, class_names)
    return Targets(narrowed(array, f"{where}: 'y'"), None, None)


def shared_names(columns: Sequence[tuple[Any, str]]) -> tuple[str, ...] | None:
    """The words that several columns of labels hold together, in order; None for numbers.

    Args:
      columns: labels, and what names them in messages.

    Raises:
      DataError: if some are words and others numbers.
    """
    found: dict[bool, str] = {}
    words = set()
    for values, where in columns:
        mine = _words(as_array(values, f"{where}: 'y'"), where)
        found.setdefault(mine is not None, where)
        if mine is not None:
            words.update(mine.tolist())
    if len(found) == 2:
        raise DataError(f"labels are words at {found[True]}, but numbers at {found[False]}")
    return tuple(_in_order(words)) if words else None


def _words(array: np.ndarray, where: str) -> np.ndarray | None:
    """Labels that are words, as an array [M] of dtype U; None for labels that are no words."""
    kind = array.dtype.kind
    if kind == "O" and array.size:
        textual = [isinstance(value, str | bytes) for value in array.flat]
        present = [not is_missing(value) for value in array.flat]
        if not any(word and there for word, there in zip(textual, present, strict=True)):
            return None
        for place, (word, there) in enumerate(zip(textual, present, strict=True)):
            if there and not word:
                other = textual.index(True)
                raise DataError(
                    f"{where}: label of example {place} is {_shown(array.flat[place])}, that of "
                    f"example {other} is {array.flat[other]!r}; labels must be of one type"
                )
    elif kind not in "US" or not array.size:
        return None
    if array.ndim != 1:
        raise DataError(f"{where}: labels that are words must be [M], got {list(array.shape)}")
    missing = first_missing(array)
    if missing is not None:
        written = str(array[missing]).strip() if isinstance(array[missing], str) else ""
        hint = f" (it reads {written!r}; rename the class if it is one)" if written else ""
        raise DataError(f"{where}: label of example {missing} is missing{hint}")
    if kind == "U":
        return array
    try:
        words = [v.decode() if isinstance(v, bytes) else v for v in array.tolist()]
        # Of objects, so that the zero characters at the end of words are kept.
        return np.array(words, object if any("\0" in word for word in words) else np.str_)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: labels are bytes that are no UTF-8 text: {error}") from error


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())[:80]


def _of_words(
    words: np.ndarray, where: str, num_classes: int | None, names: tuple[str, ...] | None
) -> Targets:
    known = tuple(_in_order(set(words.tolist()))) if names is None else names
    alike = first_alike(known)
    if alike is not None:
        raise DataError(
            f"{where}: labels {alike[0]!a} and {alike[1]!a} look the same; write one class in one "
            "way"
        )
    number = {name: index for index, name in enumerate(known)}
    values = np.array([number.get(word, -1) for word in words.tolist()], np.int32)
    unknown = np.flatnonzero(values < 0)
    if len(unknown):
        word = str(words[unknown[0]])
        raise DataError(
            f"{where}: label of example {unknown[0]} is {word!r}, which is none of the "
            f"{len(known)} classes{check.did_you_mean(word, known)}"
        )
    if num_classes is not None and len(known) > num_classes:
        raise DataError(f"{where}: {len(known)} different labels, but num_classes={num_classes}")
    return Targets(values, len(known) if num_classes is None else num_classes, known)


def _in_order(words: set[str]) -> list[str]:
    """Sorted: as numbers where all are whole numbers, as words otherwise."""
    if all(word.isascii() and word.lstrip("-").isdigit() for word in words):
        return sorted(words, key=lambda word: (int(word), word))
    return sorted(words)


def _inferred(labels: np.ndarray, where: str) -> int | None:
    if not labels.size:
        return None
    smallest, largest = int(labels.min()), int(labels.max())
    if largest < 0:
        raise DataError(f"{where}: labels of classes start at 0, the largest is {largest}")
    classes = largest + 1
    empty = classes - len(np.unique(labels[labels >= 0]))
    if smallest > 0 or 2 * empty > classes:
        raise DataError(
            f"{where}: {len(labels):,} examples, {classes:,} classes, {empty:,} of them empty "
            f"(labels {smallest} to {largest}); number classes from 0 without gaps, or give "
            "num_classes, or floats if the targets are no classes"
        )
    return classes


def _labels(array: np.ndarray, where: str, num_classes: int) -> np.ndarray:
    wrong = ~((array >= 0) & (array < num_classes))
    if array.dtype.kind == "f":
        wrong |= array != np.rint(array)
    places = np.argwhere(wrong)
    if len(places):
        place = tuple(int(i) for i in places[0])
        value = array[place]
        number = "a whole number from 0" if array.dtype.kind == "f" else "0"
        raise DataError(
            f"{where}: label of example {place[0]} is {value}, "
            f"expected {number} to {num_classes - 1} for {num_classes} classes"
        )
    return array if array.dtype == np.int32 else aligned_copy(array, np.int32)
