"""Sources behind Hugging Face ``datasets`` and TensorFlow Datasets, imported when used.

Both read what is on disk without a network. A name that is not on disk needs the network once, and
one sentence says so where there is none.
"""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from floral import check
from floral.data.sources.in_memory import Source, file_name
from floral.data.sources.table_columns import Table, known_column, source_of
from floral.data.sources.table_files import load_parts, unreachable
from floral.data.sources.tables import as_tables, asked_for
from floral.errors import DataError
from floral.first_argument import first_by_place
from floral.typing import FileOrName, FilePath

__all__ = ["huggingface", "tfds"]


@first_by_place
def huggingface(
    *,
    path: FileOrName,
    x: str | Sequence[str] = "image",
    y: str | Sequence[str] = "label",
    client: str | None = None,
    split: str | Mapping[str, str] = "train",
    config: str | None = None,
    num_classes: int | None = None,
) -> Source:
    """A source through Hugging Face ``datasets``: from disk, or by name from the hub.

    Args:
      path: a folder of ``save_to_disk``; a file, or a folder of files, of parquet, csv or json; a
        folder of images by class; or a name on the hub.
      x: the column of features, or several of one number an example.
      y: the column of targets, or several of numbers.
      client: the column that names the client, kept as a field of that name.
      split: the split to read, slices allowed, as ``train[:50%]``; or by "train", "validation" and
        "test" the split to read as each, which the field "split" then tells apart.
      config: the configuration, where the data set has several.
      num_classes: the number of classes; by default what the data set, or its labels, say.

    Raises:
      DataError: if it cannot be found, read or reached.
    """
    path = file_name(path)
    asked_for(split, path)  # refused before anything is read
    parts, file = load_parts(path, config)
    tables = as_tables(parts, split, path, file=file)
    return source_of(tables, x=x, y=y, client=client, num_classes=num_classes, name=path)


@first_by_place
def tfds(
    *,
    name: str,
    x: str | Sequence[str] | None = None,
    y: str | None = None,
    client: str | None = None,
    split: str | Mapping[str, str] = "train",
    data_dir: FilePath | None = None,
    download: bool = False,
    num_classes: int | None = None,
) -> Source:
    """A source through TensorFlow Datasets; without TensorFlow it reads array_record files.

    Args:
      name: the data set, as ``mnist`` or ``name/config:version``.
      x: the feature to use as x; by default the first of the supervised pair.
      y: the feature to use as y; by default the second of the supervised pair.
      client: the feature that names the client, kept as a field of that name.
      split: the split to read, slices allowed, as ``train[:10%]``; or by "train", "validation" and
        "test" the split to read as each, which the field "split" then tells apart.
      data_dir: where prepared data sets are; by default the library's own folder.
      download: prepare the data set if it is not there yet; needs the network.
      num_classes: the number of classes; by default what the data set, or its labels, say.

    Raises:
      DataError: if it is unknown, not prepared, in a format that needs TensorFlow, or out of reach.
    """
    check.boolean(download=download)
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
        if not unreachable(error):
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
    wanted = {*([x] if isinstance(x, str) else x), y, *filter(None, [client])}
    for feature in sorted(wanted):
        known_column(feature, features, f"tfds {name!r}: feature")
    tables = {}
    for ours, theirs in asked_for(split, name).items():
        rows = list(_rows(tensorflow_datasets, builder, theirs, name))
        columns = {column: [_text(row[column]) for row in rows] for column in wanted}
        tables[ours] = Table(tuple(features), columns.__getitem__, dict(features.items()))
    return source_of(tables, x=x, y=y, client=client, num_classes=num_classes, name=name)


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


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
