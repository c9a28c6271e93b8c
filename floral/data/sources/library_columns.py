"""Columns of a Hugging Face ``datasets.Dataset``, in the types that the data set declares.

The library's own NumPy format makes every whole number int64 and every float float32: bytes of
images would be no bytes, and client numbers beyond 2^24 or 2^63 would become one another.
"""

from typing import Any

from floral.errors import DataError

__all__ = ["check_plain", "library_column"]


def check_plain(dataset: Any, name: str) -> None:
    """Raises DataError for a data set whose rows are computed when they are read."""
    if dataset.format["type"] == "custom":
        raise DataError(
            f"{name}: the data set has a transform of its own, which only its rows go through; "
            "apply it with dataset.map(...) and pass the result"
        )


def library_column(dataset: Any, column: str, name: str) -> Any:
    """The values of one column: numbers and words in their own types, None where one is missing.

    Args:
      dataset: the data set.
      column: the name of the column.
      name: names the data in messages.

    Raises:
      DataError: for an image that cannot be read, with its example.
    """
    feature = dataset.features[column]
    kind = type(feature).__name__
    if kind == "Image":
        return _images(dataset, column, name)
    if kind in ("Value", "ClassLabel"):
        return _values(dataset.with_format("arrow")[column][:])
    values = dataset.with_format("numpy")[column][:]
    declared = _declared(feature)
    if getattr(values, "dtype", None) == "int64" and str(declared).startswith(("uint", "int")):
        return values.astype(declared)  # also undoes the wrap of uint64
    return values


def _values(column: Any) -> Any:
    import pyarrow

    if column.null_count or not pyarrow.types.is_primitive(column.type):
        return column.to_pylist()
    return column.to_numpy()


def _declared(feature: Any) -> str | None:
    """The type of the numbers within lists, or of an array."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return getattr(feature, "dtype", None)


def _images(dataset: Any, column: str, name: str) -> list[Any]:
    from PIL import Image

    images: list[Any] = []
    try:
        for row in dataset.with_format(None).select_columns([column]):
            images.append(row[column])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{name}: column {column!r} of example {len(images)} is no whole image: {error}"
        ) from error
    return images
