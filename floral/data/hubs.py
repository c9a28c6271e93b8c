"""Sources behind Hugging Face ``datasets`` and TensorFlow Datasets, imported when used.

Both read what is on disk without a network. A name that is not on disk needs the network once, and
one sentence says so where there is none.
"""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from floral import check
from floral.data.pixels import scaled
from floral.data.sources import Source, arrays
from floral.errors import DataError

__all__ = ["from_dataset", "huggingface", "tfds"]

_FILES = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}


def huggingface(
    *,
    path: str,
    x: str = "image",
    y: str = "label",
    client: str | None = None,
    split: str = "train",
    config: str | None = None,
) -> Source:
    """A source through Hugging Face ``datasets``: from disk, or by name from the hub.

    Args:
      path: a folder of ``save_to_disk``; a file, or a folder of files, of parquet, csv or json; a
        folder of images by class; or a name on the hub.
      x: the column of features.
      y: the column of targets.
      client: the column that names the client, kept as a field of that name.
      split: the split to read.
      config: the configuration, where the data set has several.

    Raises:
      DataError: if it cannot be found, read or reached.
    """
    return from_dataset(_load(path, split, config), x=x, y=y, client=client, name=path)


def from_dataset(
    dataset: Any, *, x: str = "image", y: str = "label", client: str | None = None, name: str = ""
) -> Source:
    """A source from a ``datasets.Dataset`` in memory.

    Args:
      dataset: the data set, of one split.
      x: the column of features.
      y: the column of targets.
      client: the column that names the client, kept as a field of that name.
      name: names the source in messages.
    """
    name = name or "dataset"
    columns = dataset.column_names
    if isinstance(columns, dict):
        raise DataError(f"{name}: choose one of the splits {', '.join(columns)}")
    for column in filter(None, (x, y, client)):
        _known(column, columns, f"{name}: column")
    rows = dataset.with_format("numpy")
    fields = {client: np.asarray(rows[client][:])} if client else {}
    classes = getattr(dataset.features[y], "num_classes", None)
    features = scaled(_regular(rows[x][:], f"{name}: column {x!r}"))
    return arrays(features, rows[y][:], fields=fields, num_classes=classes, name=name)


def tfds(
    *,
    name: str,
    x: str | None = None,
    y: str | None = None,
    client: str | None = None,
    split: str = "train",
    data_dir: str | None = None,
    download: bool = False,
) -> Source:
    """A source through TensorFlow Datasets; without TensorFlow it reads array_record files.

    Args:
      name: the data set, as ``mnist`` or ``name/config:version``.
      x: the feature to use as x; by default the first of the supervised pair.
      y: the feature to use as y; by default the second of the supervised pair.
      client: the feature that names the client, kept as a field of that name.
      split: the split to read, slices allowed, as ``train[:10%]``.
      data_dir: where prepared data sets are; by default the library's own folder.
      download: prepare the data set if it is not there yet; needs the network.

    Raises:
      DataError: if it is unknown, not prepared, in a format that needs TensorFlow, or out of reach.
    """
    import tensorflow_datasets

    where = data_dir or "the default folder"
    try:
        # Files on disk come first: they may be of a builder that this process does not know.
        builder = tensorflow_datasets.builder(name, data_dir=data_dir)
        if not builder.info.splits and download:
            builder = tensorflow_datasets.builder(
                name, data_dir=data_dir, file_format="array_record"
            )
            builder.download_and_prepare()
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise DataError(f"tfds knows no data set {name!r}, and none is in {where}") from error
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if not _unreachable(error):
            raise DataError(f"tfds cannot prepare {name!r} in {where}: {error}") from error
        raise DataError(
            f"no network: tfds cannot fetch {name!r}; prepare it on a connected machine with "
            "file_format='array_record' and give its data_dir"
        ) from error
    if not builder.info.splits:
        raise DataError(
            f"tfds: {name!r} is not prepared in {where}; set download=true, or prepare it with "
            "file_format='array_record' and give its data_dir"
        )
    pair = builder.info.supervised_keys or ("image", "label")
    x, y = x or str(pair[0]), y or str(pair[1])
    features: Any = builder.info.features  # a mapping by name
    for feature in filter(None, (x, y, client)):
        _known(feature, features, f"tfds {name!r}: feature")
    rows = list(_rows(tensorflow_datasets, builder, split, name))
    columns = {c: _regular([row[c] for row in rows], f"{name}: {c!r}") for c in {x, y}}
    fields = {client: np.array([_text(row[client]) for row in rows])} if client else {}
    classes = getattr(features[y], "num_classes", None)
    return arrays(scaled(columns[x]), columns[y], fields=fields, num_classes=classes, name=name)


def _rows(library: Any, builder: Any, split: str, name: str) -> Iterable[Any]:
    try:
        return builder.as_data_source(split=split)
    except NotImplementedError as error:
        if importlib.util.find_spec("tensorflow") is not None:
            return library.as_numpy(builder.as_dataset(split=split))
        raise DataError(
            f"tfds: {name!r} is prepared as {builder.info.file_format.value}, which needs "
            "TensorFlow; prepare it with file_format='array_record'"
        ) from error
    except (ValueError, KeyError) as error:
        known = ", ".join(builder.info.splits)
        raise DataError(f"tfds: {name!r} has no split {split!r}; it has {known}") from error


def _load(path: str, split: str, config: str | None) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError

    local = Path(path).expanduser()
    looks_local = path.startswith(("/", ".", "~")) or local.suffix in _FILES
    if looks_local and not local.exists():
        raise DataError(f"no data set at {path!r}")
    if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
        loaded = datasets.load_from_disk(str(local))
        if isinstance(loaded, datasets.DatasetDict):
            _known(split, [str(known) for known in loaded], f"{path}: split")
            return loaded[split]
        return loaded
    if local.is_file() and local.suffix not in _FILES:
        raise DataError(f"{path!r} must end in one of {', '.join(_FILES)}")
    try:
        if local.is_file():
            kind = _FILES[local.suffix]
            return datasets.load_dataset(kind, data_files=str(local), split="train")
        return datasets.load_dataset(str(local) if local.is_dir() else path, config, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if _unreachable(error):
            raise DataError(
                f"no network: the hub's data set {path!r} is not on this machine; save it on a "
                "connected one with save_to_disk and give that folder"
            ) from error
        raise DataError(f"datasets cannot read {path!r}, split {split!r}: {error}") from error


def _unreachable(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, is of the network."""
    names = {"OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "LocalEntryNotFoundError"}
    while error is not None:
        if isinstance(error, (ConnectionError, TimeoutError)) or type(error).__name__ in names:
            return True
        error = error.__cause__ or error.__context__
    return False


def _known(given: str, options: Iterable[str], what: str) -> None:
    if given not in options:
        hint = check.did_you_mean(given, options)
        raise DataError(f"{what} {given!r} is missing; there are {', '.join(options)}{hint}")


def _regular(rows: Any, what: str) -> np.ndarray:
    """One array of the rows, or an error that names the first row of another shape."""
    if isinstance(rows, np.ndarray) and rows.dtype != object:
        return rows
    shapes = [np.shape(row) for row in rows]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise DataError(
                f"{what}: example {i} has shape {list(shape)}, example 0 {list(shapes[0])}"
            )
    return np.asarray(list(rows))


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
