"""The folders of a run: made, found again, written to by one command alone, left in order."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from floral.config.build import Experiment
from floral.config.reading.file_paths import path_places, with_absolute_paths
from floral.config.reading.overrides import parse
from floral.config.reading.resolve import methods
from floral.config.reading.yaml_file import dump, write_atomically
from floral.errors import ConfigError
from floral.files import FileError, file_error, touching
from floral.processes.agreement import is_first
from floral.records import checkpoint, record
from floral.records.environment import check_config
from floral.records.intact import check_intact, read_environment, read_summary
from floral.records.load import check_run_folder, saved_config
from floral.records.lock import Locks
from floral.records.provenance import described_command

__all__ = ["begin", "found", "leaving_in_order", "make_own", "method_folders", "reopen"]


@contextmanager
def leaving_in_order(
    folder: Path, folders: Mapping[str, Path], made: Sequence[Path] = ()
) -> Iterator[None]:
    """What an error leaves behind: of a new run that recorded nothing, no folder.

    Args:
      folder: the run folder.
      folders: its methods'.
      made: the folders that this command has made, the outermost first; none on a resume.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as caught:
        error = _in_words(caught)
        if made and not any(map(record.has_begun, folders.values())):
            if is_first():
                record.remove_folders(made, whole=folder)
        elif isinstance(error, FileError):
            error = ConfigError(
                f"{error}; all that was saved is whole: {error.mend}, then floral resume {folder}"
            )
        if error is caught:
            raise
        raise error from caught


def _in_words(error: BaseException) -> BaseException:
    """What the system refused, or the devices have no memory for, as an error of one sentence;
    anything else as it is."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return file_error(error)
    memory = ("Out of memory", "RESOURCE_EXHAUSTED")
    if isinstance(error, jax.errors.JaxRuntimeError) and any(w in str(error) for w in memory):
        said = " ".join(str(error).rpartition(": ")[2].split())[:200]
        return ConfigError(
            f"the devices have too little memory ({said}); train fewer clients side by side "
            "(execution.walk=scan), or on smaller batches or fewer steps"
        )
    return error


def begin(folder: Path, resolved: dict[str, Any], overrides: Sequence[str], locks: Locks) -> None:
    """A new run folder is this process's own, has its config, and knows who began it."""
    locks.hold(folder)
    write_atomically(folder / "config.yaml", dump(resolved))
    record.append_lines(folder / "commands.jsonl", [described_command(overrides)])


def reopen(folder: Path, resolved: dict[str, Any], overrides: Sequence[str]) -> None:
    """A run folder that is gone on with has its newest config, and knows who goes on."""
    if overrides:
        write_atomically(folder / "config.yaml", dump(resolved))
        whole = methods(resolved)
        for name, place in method_folders(folder, resolved).items():
            if place != folder and place.is_dir():
                write_atomically(place / "config.yaml", dump(whole[name]))
    record.append_lines(folder / "commands.jsonl", [described_command(overrides)])


def found(folder: Path, overrides: Sequence[str], locks: Locks) -> tuple[dict[str, Any], list[str]]:
    """The config of a run folder that may be gone on with, and its methods that are finished."""
    check_run_folder(folder)
    locks.hold(folder)
    resolved = _overridden(folder, overrides)
    folders = method_folders(folder, resolved)
    for place in folders.values():
        if place != folder and place.is_dir():
            locks.hold(place)
    unfolded = methods(resolved)
    for name, config in unfolded.items():
        _check_place(folders[name], config)
    return resolved, [
        name for name in unfolded if _finished(folders[name], unfolded[name]["rounds"])
    ]


def _overridden(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The saved config with the overrides that a resumed run takes."""
    movable = path_places(saved_config(folder))
    given = [parse(text).path for text in overrides]
    for text, place in zip(overrides, given, strict=True):
        if place != ("rounds",) and place not in movable:
            files = "".join(f", {'.'.join(map(str, known))}=…" for known in movable)
            raise ConfigError(
                f"{text!r}: a resumed run takes rounds=…{files} alone; start a new run for "
                "anything else"
            )
    resolved = saved_config(folder, *overrides)
    return with_absolute_paths(resolved, only=given) if overrides else resolved


def make_own(place: Path, experiment: Experiment, folder: Path, locks: Locks) -> None:
    """A method of a comparison has a folder of its own, with its own config."""
    if place == folder:
        return
    if not place.is_dir():
        with touching(place, "write"):
            place.mkdir()
        locks.hold(place)
    write_atomically(place / "config.yaml", dump(dict(experiment.config)))


def method_folders(folder: Path, resolved: Mapping[str, Any]) -> dict[str, Path]:
    alone = not resolved.get("compare")
    return {name: folder if alone else folder / name for name in methods(resolved)}


def _finished(place: Path, rounds: int) -> bool:
    if not (place / "summary.json").is_file():
        return False
    summary = read_summary(place)
    saved = checkpoint.latest_round(place / "checkpoints")
    if saved is not None and saved < summary["rounds"]:  # its later rounds are to be taken again
        return False
    return summary["rounds"] == rounds or "stopped" in summary


def _check_place(place: Path, config: Mapping[str, Any]) -> None:
    """Raises ConfigError if a folder's run cannot become the config's."""
    saved = checkpoint.latest_round(place / "checkpoints")
    taken = saved or 0
    if saved is not None or (place / "environment.json").is_file():
        check_config(read_environment(place), config, place)
    if saved is None and (place / "summary.json").is_file():
        taken = read_summary(place)["rounds"]
    check_intact(place, taken)
    if taken > config["rounds"]:
        raise ConfigError(
            f"rounds: {place} has taken {taken} already, got {config['rounds']}; a resumed run "
            "goes on, never back"
        )
