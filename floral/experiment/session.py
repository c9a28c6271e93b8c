"""Runs on disk: begin one, go on with one, several methods of a comparison one after another.

A run with one method is one folder. A comparison is a folder with a run folder for each method,
each resumable by itself, and a report and a figure over all of them.
"""

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax

from floral.errors import ConfigError
from floral.experiment import checkpoint, record
from floral.experiment.build import Experiment, build, build_dataset
from floral.experiment.config import methods, read
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
    unfolded = methods(resolved)
    dataset = build_dataset(next(iter(unfolded.values())))
    for method in unfolded.values():  # what does not fit is said before anything is trained
        build(method, dataset=dataset if _same_data(method, unfolded) else None)
    stem = "run" if isinstance(config, Mapping) else Path(config).stem
    folder = record.new_folder(Path(out), name or stem)
    write_atomically(folder / "config.yaml", dump(resolved))
    return resume(folder, progress=progress)


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
    resolved = read(load(folder / "config.yaml"), overrides)
    if overrides:
        write_atomically(folder / "config.yaml", dump(resolved))
    progress = Silent() if progress is None else progress
    unfolded = methods(resolved)
    folders = _method_folders(folder, resolved, unfolded)
    dataset = None
    summaries: dict[str, dict[str, Any]] = {}
    with progress:
        for name, config in unfolded.items():
            place = folders[name]
            if _finished(place, config["rounds"]):
                summaries[name] = record.read_json(place / "summary.json")
                continue
            place.mkdir(exist_ok=True)
            if place != folder:
                write_atomically(place / "config.yaml", dump(config))
            if dataset is None or not _same_data(config, unfolded):
                dataset = build_dataset(config)
            experiment = build(config, dataset=dataset, chunk=_chunk(place))
            begun = checkpoint.latest_round(place / "checkpoints") or 0
            progress.start(name, experiment, begun)
            source = _source(config["start_from"], folder)
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
    unfolded = methods(read(load(folder / "config.yaml")))
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


def _method_folders(
    folder: Path, resolved: Mapping[str, Any], unfolded: Iterable[str]
) -> dict[str, Path]:
    alone = not resolved.get("compare")
    return {name: folder if alone else folder / name for name in unfolded}


def _same_data(config: Mapping[str, Any], unfolded: Mapping[str, Mapping[str, Any]]) -> bool:
    return config["data"] == next(iter(unfolded.values()))["data"]


def _finished(place: Path, rounds: int) -> bool:
    path = place / "summary.json"
    return path.is_file() and record.read_json(path)["rounds"] == rounds


def _chunk(place: Path) -> int | None:
    """How clients were walked when the run began, so that it goes on bit for bit."""
    path = place / "environment.json"
    return record.read_json(path)["chunk"] if path.is_file() else None


def _source(start_from: str | None, folder: Path) -> PyTree:
    """The server that a run starts from; None to start from the beginning."""
    if start_from is None:
        return None
    sibling = folder / start_from
    if not sibling.is_dir():
        sibling = folder.parent / start_from
    place = sibling if (sibling / "config.yaml").is_file() else Path(start_from)
    _, state = load_run(place)
    return state.server
