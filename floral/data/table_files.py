"""Tables in files, folders and hubs, by way of Hugging Face ``datasets``.

What a spreadsheet writes is read, or its fault is named with file and line.
"""

import gzip
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from floral.data.network import hub_answers, offline
from floral.data.splits import sliced
from floral.errors import DataError

__all__ = ["load_split", "reason", "unreachable"]

_FILES = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
_SEPARATORS = (",", ";", "\t", "|")


def load_split(path: str, split: str, config: str | None) -> Any:
    """The ``datasets.Dataset`` of a path or name, and of a split of it.

    Raises:
      DataError: if it cannot be found, read or reached, or has no such split.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    local = Path(path).expanduser()
    looks_local = path.startswith(("/", ".", "~")) or _suffix(local) in _FILES
    if looks_local and not local.exists():
        raise DataError(f"no data set at {path!r}")
    if local.is_file():
        return sliced({"train": _of_file(local, path)}, split, path, file=True)
    try:
        if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            loaded: Any = datasets.load_from_disk(str(local))
            own = str(getattr(loaded, "split", None) or "train").partition("[")[0]
            parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {own: loaded}
            return sliced({str(name): part for name, part in parts.items()}, split, path)
        if local.is_dir():
            return datasets.load_dataset(str(local), config, split=split)
        with nullcontext() if hub_answers() else offline():
            return datasets.load_dataset(path, config, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if unreachable(error):
            raise DataError(
                f"no network: the hub's data set {path!r} is not on this machine; save it on a "
                "connected one with save_to_disk and give that folder"
            ) from error
        raise DataError(
            f"datasets cannot read {path!r}, split {split!r}: {reason(error)}"
        ) from error


def _suffix(file: Path) -> str:
    """What a file's name ends in, in small letters, zipped or not."""
    name = file.with_suffix("") if file.suffix.lower() == ".gz" else file
    return name.suffix.lower()


def _of_file(file: Path, path: str) -> Any:
    import glob

    import datasets
    from datasets.exceptions import DatasetsError

    suffix = _suffix(file)
    if suffix not in _FILES:
        raise DataError(f"{path!r} must end in one of {', '.join(_FILES)}")
    settings = {}
    if _FILES[suffix] == "csv":
        settings["sep"] = _separator(file, suffix, path)
    elif _FILES[suffix] == "json":
        _check_text(file, path)
    try:
        held = glob.escape(str(file.absolute()))
        return datasets.load_dataset(_FILES[suffix], data_files=held, split="train", **settings)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, DatasetsError) as error:
        raise DataError(f"datasets cannot read {path!r}, split 'train': {reason(error)}") from error


def _separator(file: Path, suffix: str, path: str) -> str:
    """What separates the columns of a csv file, by its first line; tabs for tsv."""
    text = _check_text(file, path)
    head = text.lstrip("\ufeff\r\n").partition("\n")[0]
    if not head.strip():
        raise DataError(f"{path!r} is empty: its first line must name the columns")
    found = [mark for mark in _SEPARATORS if mark in head]
    return "\t" if suffix == ".tsv" else (found or [","])[0]


def _check_text(file: Path, path: str) -> str:
    """The start of a text file, once all of it is known to be UTF-8."""
    start, number = "", 0
    opened = gzip.open if file.suffix.lower() == ".gz" else open
    try:
        with opened(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.decode("utf-8")
                if b"\0" in line:
                    raise DataError(f"{path!r}: line {number} holds a zero byte; save it as UTF-8")
                if not start.strip():
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
