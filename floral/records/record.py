"""The files of a run folder: JSON lines a round, a table of clients an evaluation.

    config.yaml        the resolved config
    commands.jsonl     a line each time a command trained here: who, when, with which code
    environment.json   versions, device, data fingerprint, how clients are walked
    metrics.jsonl      one line a round, and one of round 0 with `evaluate.at_start`; the same bits
                       however often the run was interrupted
    timing.jsonl       seconds a round, and of them those that train, compile and evaluate
    clients/           one parquet table an evaluation: round_000100.parquet
    checkpoints/       the whole state
    restarts.json      the starts that were tried, where several were asked for
    summary.json       once the run is done

Everything but the growing files is written under a temporary name and renamed. Of several
processes the first writes. What cannot be written is one sentence (`files.touching`).
"""

import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from floral.config.reading.yaml_file import write_atomically
from floral.errors import ConfigError
from floral.files import in_words, touching
from floral.processes.agreement import on_first_process

__all__ = [
    "append_lines",
    "client_table",
    "client_tables",
    "cut_back",
    "cut_lines",
    "has_begun",
    "new_folder",
    "read_clients",
    "read_json",
    "read_lines",
    "remove_folders",
    "write_clients",
    "write_json",
]


def new_folder(parent: Path, name: str) -> list[Path]:
    """Makes a folder that did not exist: ``name``, or ``name-2``, ``name-3``, … if it is taken.

    Two commands that ask for one name at once have two folders: the system makes each only once.

    Returns:
      The folders that were made, the outermost first: missing parents, then the folder itself.

    Raises:
      ConfigError: if the name is none for a folder, or none can be made there.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise ConfigError(f"name: expected the name of a folder, got {name!r}; its parent is out")
    made: list[Path] = []
    count = 1
    try:
        for place in reversed((parent, *parent.parents)):
            if not place.is_dir():
                place.mkdir(exist_ok=True)
                made.append(place)
        while True:
            folder = parent / (name if count == 1 else f"{name}-{count}")
            try:
                folder.mkdir()
                return [*made, folder]
            except FileExistsError:
                count += 1
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        remove_folders(made)
        reason = in_words(error) if isinstance(error, OSError) else str(error)
        raise ConfigError(f"out: cannot make the folder {parent / name}: {reason}") from error


def remove_folders(made: Iterable[Path], *, whole: Path | None = None) -> None:
    """Removes folders that ``new_folder`` made, as far as they are empty.

    Args:
      made: the outermost first.
      whole: one of them that is removed with all that it holds.
    """
    if whole is not None:
        shutil.rmtree(whole, ignore_errors=True)
    for place in reversed([*made]):
        with suppress(OSError):  # another command uses it meanwhile
            place.rmdir()


def has_begun(folder: Path) -> bool:
    """Whether anything was recorded in a method's folder that a resumed run would go on from."""
    metrics = folder / "metrics.jsonl"
    trained = metrics.is_file() and metrics.stat().st_size > 0
    return trained or (folder / "checkpoints").is_dir() or (folder / "restarts.json").is_file()


@on_first_process
def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a mapping whole or not at all."""
    write_atomically(path, json.dumps(_strict(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file.

    Raises:
      ConfigError: if it is missing, no JSON, or no mapping.
    """
    try:
        with touching(path, "read"):
            found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: damaged at line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: damaged: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: damaged: expected a mapping, got {type(found).__name__}")
    return found


@on_first_process
def append_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Appends one JSON line each and waits until they are on disk."""
    with touching(path, "write"), path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(_strict(line), allow_nan=False) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole JSON line; a torn last line, as a kill may leave, is left out.

    Raises:
      ConfigError: if another line is damaged.
    """
    if not path.is_file():
        return []
    with touching(path, "read"):
        content = path.read_bytes()
    lines = []
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if line.endswith(b"\n"):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise ConfigError(f"{path}: line {number} is damaged: {error}") from error
            if not isinstance(lines[-1], dict):
                raise ConfigError(f"{path}: line {number} is damaged: it is no mapping")
    return lines


@on_first_process
def cut_lines(folder: Path, last_round: int) -> None:
    """Takes back the lines of all rounds after one."""
    for name in ("metrics.jsonl", "timing.jsonl"):
        lines = read_lines(folder / name)
        kept = [line for line in lines if line["round"] <= last_round]
        write_atomically(folder / name, "".join(json.dumps(line) + "\n" for line in kept))


@on_first_process
def cut_back(folder: Path, last_round: int) -> None:
    """Takes back what was recorded after a round, so that a resumed run records it again."""
    cut_lines(folder, last_round)
    for table, round_index in client_tables(folder).items():
        if round_index > last_round:
            with touching(table, "write"):
                table.unlink()


def client_tables(folder: Path) -> dict[Path, int]:
    """The per-client tables of a run and their rounds, in order."""
    tables = sorted((folder / "clients").glob("round_*.parquet"))
    return {table: int(table.stem.removeprefix("round_")) for table in tables}


def client_table(folder: Path, round_index: int) -> Path:
    """Where the table of an evaluation is."""
    return folder / "clients" / f"round_{round_index:06d}.parquet"


def read_clients(table: Path) -> dict[str, np.ndarray]:
    """The columns of a per-client table, each [N].

    Raises:
      ConfigError: if it cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with touching(table, "read"):
            found = pyarrow.parquet.read_table(table)
    except pyarrow.ArrowInvalid as error:
        raise ConfigError(f"{table}: damaged, it is no table of parquet") from error
    return {name: found[name].to_numpy() for name in found.column_names}


@on_first_process
def write_clients(folder: Path, round_index: int, columns: Mapping[str, np.ndarray]) -> None:
    """Writes one evaluation's table, a row a client.

    Args:
      folder: the run folder.
      round_index: the rounds taken.
      columns: each [N]; a mixture [N, C] becomes C columns ``mixture_0`` ….
    """
    import pyarrow
    import pyarrow.parquet

    flat: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if values.ndim == 1:
            flat[name] = values
        else:
            flat |= {f"{name}_{index}": values[:, index] for index in range(values.shape[1])}
    place = folder / "clients"
    final = client_table(folder, round_index)
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(flat), written)
    with touching(final, "write"):
        place.mkdir(exist_ok=True)
    write_atomically(final, written.getvalue())


def _strict(value: Any) -> Any:
    """The value with null for numbers that JSON lacks: NaN and the infinities."""
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
