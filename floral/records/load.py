"""A run folder read back: its config, its parts and its last saved state."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import jax

from floral import check
from floral.check import did_you_mean
from floral.config.build import Experiment, build
from floral.config.reading.file_paths import path_places, value_at
from floral.config.reading.resolve import methods, read
from floral.config.reading.yaml_file import load
from floral.errors import ConfigError, FloralError
from floral.records import checkpoint, record
from floral.records.environment import check_data
from floral.records.intact import read_environment
from floral.records.state import start_state
from floral.simulate import SimulationState

__all__ = [
    "check_run_folder",
    "load_run",
    "naming_what_moved",
    "saved_chunk",
    "saved_config",
    "start_folder",
]


def load_run(
    folder: str | PathLike[str], *, method: str | None = None, best: bool = False
) -> tuple[Experiment, SimulationState]:
    """A run's parts and a saved state, to predict, evaluate or export with.

    Args:
      folder: a run folder, or one method's folder of a comparison.
      method: which of a comparison's methods; the only one if None.
      best: the server and rows of the round that validated best, not those of the last
        checkpoint; such a state is for prediction and not to be trained on.

    Raises:
      ConfigError: if the folder has several methods and none is named, has no such method, has no
        checkpoint, or if no round was ever validated.
      DataError: if the data are gone, or not those that the run was trained on.
    """
    check.path(folder=folder)
    check.boolean(best=best)
    folder, config = _method_of(Path(folder), method)
    last = checkpoint.latest_round(folder / "checkpoints")
    if last is None:
        raise ConfigError(f"{folder}: the run has no checkpoint yet")
    environment = read_environment(folder)
    with naming_what_moved(folder, config):
        experiment = build(config, chunk=environment["chunk"])
    check_data(environment, {"data": experiment.dataset.fingerprint}, folder)
    struct = jax.eval_shape(lambda: start_state(experiment))
    state = checkpoint.restore(folder / "checkpoints", last, struct, experiment.simulator.new_table)
    if not best:
        return experiment, state
    if not state.best:
        raise ConfigError(
            f"{folder}: this run has no validation data, so no round of it is best; give "
            "data.split a validation, or leave out best"
        )
    if int(state.best.round) == 0:
        raise ConfigError(
            f"{folder}: no evaluated round of this run has a finite validation loss, so none is "
            "best"
        )
    chosen = state.best
    return experiment, state._replace(round=chosen.round, server=chosen.server, table=chosen.table)


def _method_of(folder: Path, method: str | None) -> tuple[Path, dict[str, Any]]:
    """The folder and the config of one method of a run."""
    unfolded = methods(saved_config(folder))
    known = ", ".join(unfolded)
    if method is None:
        if len(unfolded) > 1:
            raise ConfigError(f"{folder} holds several methods; choose one by method=: {known}")
        (method,) = unfolded
    if method not in unfolded:
        hint = did_you_mean(method, unfolded) or f"; it holds {known}"
        raise ConfigError(f"{folder} holds no method {method!r}{hint}")
    own = folder / method
    return own if (own / "config.yaml").is_file() else folder, unfolded[method]


def saved_config(folder: Path, *overrides: str) -> dict[str, Any]:
    """The config of a run folder.

    Raises:
      ConfigError: if there is none; names the nearest run folder.
    """
    check_run_folder(folder)
    with _importing_from(_begun_in(folder)):
        return read(load(folder / "config.yaml"), overrides)


def _begun_in(folder: Path) -> str | None:
    """Where the command was given that began a run, or the comparison that it is a part of."""
    for place in (folder, folder.parent):
        commands = record.read_lines(place / "commands.jsonl")
        if commands:
            return commands[0].get("folder")
    return None


@contextmanager
def _importing_from(place: str | None) -> Iterator[None]:
    """While it lasts, modules are imported from a folder first: one's own factories were, when the
    run began there."""
    if place is None:
        yield
        return
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


@contextmanager
def naming_what_moved(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """While it lasts, an error also says how to name a file that is gone from where it was.

    Args:
      folder: the run folder.
      config: its config.
    """
    try:
        yield
    except FloralError as error:
        for place in path_places(config):
            path = Path(str(value_at(config, place)))
            if path.is_absolute() and not path.exists():
                mend = f"if it was moved: floral resume {folder} {'.'.join(place)}=…"
                raise type(error)(*error.args[:-1], f"{error.args[-1]}; {mend}") from error
        raise


def check_run_folder(folder: Path) -> None:
    """Raises ConfigError for a folder that holds no run; names the nearest that does."""
    if not (folder / "config.yaml").is_file():
        beside = folder.parent.glob("*/config.yaml") if folder.parent.is_dir() else []
        hint = did_you_mean(folder, [str(found.parent) for found in sorted(beside)])
        raise ConfigError(f"{folder}: no run folder, it has no config.yaml{hint}")


def saved_chunk(folder: Path) -> int | None:
    """How clients were walked when the run began, so that it goes on bit for bit."""
    begun = (folder / "environment.json").is_file()
    return read_environment(folder)["chunk"] if begun else None


def start_folder(start_from: str, folder: Path | None = None) -> Path | None:
    """The run folder that a method starts from; None if there is none.

    Args:
      start_from: the name of another method of the comparison, or a run folder.
      folder: the folder of the comparison, or of one of its methods.
    """
    beside = [] if folder is None else [folder / start_from, folder.parent / start_from]
    places = [*beside, Path(start_from)]
    return next((place for place in places if (place / "config.yaml").is_file()), None)
