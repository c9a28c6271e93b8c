"""Runs on disk: begin one, go on with one, several methods of a comparison one after another.

A run with one method is one folder. A comparison is a folder with a run folder for each method,
each resumable by itself, and a report and a figure over all of them.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax

from floral.errors import ConfigError
from floral.experiment import checkpoint, record
from floral.experiment.build import Experiment, build
from floral.experiment.config import methods, read, start_folder
from floral.experiment.overrides import parse
from floral.experiment.progress import Progress, Silent
from floral.experiment.report import write_report
from floral.experiment.run import run_method, start_state
from floral.experiment.yaml_file import dump, load, write_atomically
from floral.typing import PyTree

__all__ = ["Result", "load_run", "resume", "run"]


class Result(NamedTuple):
    """A finished run.

    Attributes:
      folder: where everything is.
      summaries: each method's numbers, as its ``summary.json`` has them.
      figure: the picture.
      report: the table, as Markdown.
    """

    folder: Path
    summaries: dict[str, dict[str, Any]]
    figure: Path
    report: Path


def run(
    config: str | PathLike[str] | Mapping[str, Any],
    *overrides: str,
    out: str | PathLike[str] = "runs",
    name: str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Trains a config's methods into a new folder.

    Args:
      config: a YAML file, or a mapping as a file would have it.
      overrides: as on the command line, ``"algorithm.num_adaptors=8"``.
      out: the parent of the new folder.
      name: the folder's name; the file's by default. A name that is taken gets a number.
      progress: is told what happens; None is silent.

    Raises:
      FloralError: before any training starts, if anything does not fit.
      Interrupted: after Ctrl-C; ``resume`` goes on.
    """
    resolved = read(config, overrides)
    experiments = _build_all(methods(resolved))  # what does not fit is said before a folder exists
    stem = "run" if isinstance(config, Mapping) else Path(config).stem
    folder = record.new_folder(Path(out), name or stem)
    write_atomically(folder / "config.yaml", dump(resolved))
    return _carry_on(folder, resolved, experiments, progress)


def resume(
    folder: str | PathLike[str], *overrides: str, progress: Progress | None = None
) -> Result:
    """Goes on with a run from its last checkpoints; a finished one is only reported.

    Args:
      folder: a run folder, or one method's folder of a comparison.
      overrides: ``rounds=…`` alone, to train longer.
      progress: is told what happens; None is silent.

    Raises:
      FloralError: if the folder is no run, or not of this config and these data.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: no run folder, it has no config.yaml")
    for text in overrides:
        if parse(text).path != ("rounds",):
            raise ConfigError(
                f"{text!r}: a resumed run takes rounds=… alone; start a new run for anything else"
            )
    resolved = read(load(folder / "config.yaml"), overrides, folder=folder)
    if overrides:
        write_atomically(folder / "config.yaml", dump(resolved))
    unfolded = methods(resolved, folder=folder)
    folders = _method_folders(folder, resolved)
    waiting = {
        name: config
        for name, config in unfolded.items()
        if not _finished(folders[name], config["rounds"])
    }
    chunks = {name: _chunk(folders[name]) for name in waiting}
    return _carry_on(folder, resolved, _build_all(waiting, chunks), progress)


def _build_all(
    unfolded: Mapping[str, Mapping[str, Any]], chunks: Mapping[str, int | None] | None = None
) -> dict[str, Experiment]:
    """Every method's parts; methods on the same data as the first share them."""
    experiments: dict[str, Experiment] = {}
    first = None
    for name, config in unfolded.items():
        experiments[name] = build(config, like=first, chunk=(chunks or {}).get(name))
        first = first or experiments[name]
    return experiments


def _carry_on(
    folder: Path,
    resolved: Mapping[str, Any],
    experiments: Mapping[str, Experiment],
    progress: Progress | None,
) -> Result:
    """Runs what is not finished, in order, and reports on all methods."""
    progress = Silent() if progress is None else progress
    folders = _method_folders(folder, resolved)
    summaries: dict[str, dict[str, Any]] = {}
    with progress:
        for name, place in folders.items():
            if name not in experiments:
                summaries[name] = record.read_json(place / "summary.json")
                continue
            experiment = experiments[name]
            if place != folder:
                place.mkdir(exist_ok=True)
                write_atomically(place / "config.yaml", dump(dict(experiment.config)))
            begun = checkpoint.latest_round(place / "checkpoints") or 0
            progress.start(name, experiment, begun)
            source = _source(experiment.config["start_from"], folder)
            summaries[name] = run_method(experiment, place, source=source, tick=progress.tick)
            progress.finish(name, summaries[name])
    report, figure = write_report(folder, summaries, folders)
    return Result(folder, summaries, figure, report)


def load_run(folder: str | PathLike[str]) -> tuple[Experiment, Any]:
    """A run's parts and its last saved state, to predict, evaluate or export with.

    Raises:
      ConfigError: if the folder has no checkpoint.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: no run folder, it has no config.yaml")
    unfolded = methods(read(load(folder / "config.yaml"), folder=folder), folder=folder)
    if len(unfolded) > 1:
        known = ", ".join(str(folder / name) for name in unfolded)
        raise ConfigError(f"{folder} holds several methods; name one: {known}")
    (config,) = unfolded.values()
    last = checkpoint.latest_round(folder / "checkpoints")
    if last is None:
        raise ConfigError(f"{folder}: the run has no checkpoint yet")
    experiment = build(config, chunk=_chunk(folder))
    struct = jax.eval_shape(lambda: start_state(experiment))
    return experiment, checkpoint.restore(folder / "checkpoints", last, struct)


def _method_folders(folder: Path, resolved: Mapping[str, Any]) -> dict[str, Path]:
    alone = not resolved.get("compare")
    return {name: folder if alone else folder / name for name in methods(resolved, folder=folder)}


def _finished(place: Path, rounds: int) -> bool:
    path = place / "summary.json"
    return path.is_file() and record.read_json(path)["rounds"] == rounds


def _chunk(place: Path) -> int | None:
    """How clients were walked when the run began, so that it goes on bit for bit."""
    path = place / "environment.json"
    return record.read_json(path)["chunk"] if path.is_file() else None


def _source(start_from: str | None, folder: Path) -> PyTree:
    """The server that a run starts from; None to start from the beginning."""
    place = None if start_from is None else start_folder(start_from, folder)
    return None if place is None else load_run(place)[1].server
