"""Tables in files, folders and hubs, by way of Hugging Face ``datasets``.

What a spreadsheet writes is read, or its fault is named with file and line.
"""

import csv
import gzip
import io
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from floral.data.sources.network import hub_answers, offline
from floral.errors import DataError

__all__ = ["load_parts", "reason", "unreachable"]

_FILES = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
_SEPARATORS = (",", ";", "\t", "|")
_FIRST_LINES = 50  # of a file, among which its names and first row are


def load_parts(path: str, config: str | None) -> tuple[dict[str, Any], bool]:
    """The ``datasets.Dataset`` of each split of a path or name, and whether they are of one file.

    Raises:
      DataError: if it cannot be found, read or reached.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    local = Path(path).expanduser()
    looks_local = path.startswith(("/", ".", "~")) or _suffix(local) in _FILES
    if looks_local and not local.exists():
        raise DataError(f"no data set at {path!r}")
    if local.is_file():
        return {"train": _of_file(local, path)}, True
    if local.is_dir():
        _check_folder(local, path)
    try:
        if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            loaded: Any = datasets.load_from_disk(str(local))
            own = str(getattr(loaded, "split", None) or "train").partition("[")[0]
            parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {own: loaded}
        elif local.is_dir():
            with _without_logs():
                parts = dict(datasets.load_dataset(str(local), config))
        else:
            with nullcontext() if hub_answers() else offline():
                parts = dict(datasets.load_dataset(path, config))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if unreachable(error):
            raise DataError(
                f"no network: the hub's data set {path!r} is not on this machine; save it on a "
                "connected one with save_to_disk and give that folder"
            ) from error
        raise DataError(f"datasets cannot read {path!r}: {reason(error)}") from error
    return {str(name): part for name, part in parts.items()}, False


@contextmanager
def _without_logs() -> Iterator[None]:
    """While it lasts, the library logs nothing: what it cannot read it also raises."""
    logger = logging.getLogger("datasets")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_folder(folder: Path, path: str) -> None:
    """Raises DataError for a folder of no files, and for a file of it that would be misread."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if not files:
        raise DataError(f"{path!r} is a folder of no files")
    for file in files:
        if _FILES.get(_suffix(file)) == "csv":
            expected = "\t" if _suffix(file) == ".tsv" else ","
            found = _separator(file, _suffix(file), str(file))
            if (
                found != expected
                and len(_first_rows(_check_text(file, str(file)), expected)[0]) < 2
            ):
                raise DataError(
                    f"{str(file)!r}: its columns are separated by {found!r}, and those of files in "
                    "a folder by ','; save it so, or give this file alone as the path"
                )
            _check_columns(file, expected, str(file))


def _suffix(file: Path) -> str:
    """What a file's name ends in, in small letters, zipped or not."""
    name = file.with_suffix("") if file.suffix.lower() == ".gz" else file
    return name.suffix.lower()


def _of_file(file: Path, path: str) -> Any:
    import glob

    import datasets
    import pyarrow.parquet
    from datasets.exceptions import DatasetsError

    suffix = _suffix(file)
    if suffix not in _FILES:
        raise DataError(f"{path!r} must end in one of {', '.join(_FILES)}")
    settings = {}
    if _FILES[suffix] == "csv":
        settings["sep"] = _separator(file, suffix, path)
        _check_columns(file, settings["sep"], path)
    elif _FILES[suffix] == "json" and not _check_text(file, path).strip("\ufeff \t\r\n"):
        raise DataError(f"{path!r} is empty")
    try:
        if suffix == ".parquet" and not pyarrow.parquet.read_metadata(file).num_rows:
            raise DataError(f"{path!r} holds no rows")
        held = glob.escape(str(file.absolute()))
        with _without_logs():
            return datasets.load_dataset(_FILES[suffix], data_files=held, split="train", **settings)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, DatasetsError) as error:
        raise DataError(f"datasets cannot read {path!r}, split 'train': {reason(error)}") from error


def _separator(file: Path, suffix: str, path: str) -> str:
    """What separates the columns of a csv file: what divides its first lines best; tabs for tsv."""
    marks = ("\t",) if suffix == ".tsv" else _SEPARATORS
    return max(marks, key=lambda mark: _fit(_first_rows(_check_text(file, path), mark)))


def _fit(rows: list[list[str]]) -> tuple[bool, bool, int]:
    """Whether names and values are as many, and how many: decimal commas divide values alone."""
    names, values = (len(row) for row in (rows * 2)[:2]) if rows else (0, 0)
    return names > 1, names == values, names


def _check_columns(file: Path, mark: str, path: str) -> None:
    """Raises DataError where the names of a csv file's columns are not those of its values."""
    rows = _first_rows(_check_text(file, path), mark)
    if not rows:
        raise DataError(f"{path!r} is empty: its first line must name the columns")
    names = rows[0]
    for place, name in enumerate(names):
        if name.strip() and name in names[:place]:
            raise DataError(f"{path!r}: two columns are called {name!r}; rename one")
    if len(rows) > 1 and len(rows[1]) > len(names):
        raise DataError(
            f"{path!r}: its first line names {len(names)} columns, but the first row has "
            f"{len(rows[1])} values; name every column, and end no row with a separator"
        )


def _first_rows(text: str, mark: str) -> list[list[str]]:
    """The first two lines of a table that are not blank, by what separates their columns."""
    lines = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=mark)
    return list(itertools.islice((row for row in lines if any(map(str.strip, row))), 2))


def _check_text(file: Path, path: str) -> str:
    """The first lines of a text file, once all of it is known to be UTF-8."""
    start, number = "", 0
    opened = gzip.open if file.suffix.lower() == ".gz" else open
    try:
        with opened(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.decode("utf-8")
                if b"\0" in line:
                    raise DataError(f"{path!r}: line {number} holds a zero byte; save it as UTF-8")
                if number <= _FIRST_LINES or not start.strip():
                    start += text
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path!r}: line {number} is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8"
        ) from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path!r} cannot be read: {error}") from error
    return start


def reason(error: BaseException) -> str:
    """What the first of a chain of errors says, on one line."""
    said = ""
    while True:
        said = " ".join(str(error).split()) or said
        cause = error.__cause__ or error.__context__
        if cause is None:
            return said.removeprefix("Error tokenizing data. C error: ")[:300]
        error = cause


def unreachable(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, is of the network."""
    names = {"OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "LocalEntryNotFoundError"}
    while error is not None:
        if isinstance(error, (ConnectionError, TimeoutError)) or type(error).__name__ in names:
            return True
        error = error.__cause__ or error.__context__
    return False
