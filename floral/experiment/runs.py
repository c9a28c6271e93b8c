"""Runs on disk: begin one, go on with one, several methods of a comparison one after another.

A run with one method is one folder. A comparison is a folder with a run folder for each method,
each resumable by itself, and a report and a figure over all of them. Several processes may take
a run together: each calls the same function, and the first writes.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from floral.errors import ConfigError
from floral.experiment import checkpoint, record
from floral.experiment.build import Experiment
from floral.experiment.config import methods, read
from floral.experiment.environment import check_config
from floral.experiment.load import load_run, saved_config, start_folder
from floral.experiment.overrides import parse
from floral.experiment.prepare import build_all, source_of
from floral.experiment.processes import is_first, told
from floral.experiment.progress import Progress, Silent
from floral.experiment.report import write_report
from floral.experiment.run import Interrupted, run_method
from floral.experiment.walks import remembered
from floral.experiment.yaml_file import dump, write_atomically
from floral.simulate.probe import Timings

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
    walks: str | PathLike[str] | None = None,
) -> Result:
    """Trains a config's methods into a new folder.

    Args:
      config: a YAML file, or a mapping as a file would have it.
      overrides: as on the command line, ``"algorithm.num_adaptors=8"``.
      out: the parent of the new folder.
      name: the folder's name; the file's by default. A name that is taken gets a number.
      progress: is told what happens; None is silent.
      walks: a file in which timings of walks are remembered; None remembers none.

    Raises:
      FloralError: before any training starts, if anything does not fit.
      Interrupted: after Ctrl-C; ``resume`` goes on.
    """
    resolved = _with_fixed_starts(read(config, overrides))
    progress = _of_the_first(progress)
    timings = _noting(walks, progress)
    # What does not fit is said before a folder exists.
    experiments = build_all(resolved, timings=timings)
    stem = "run" if isinstance(config, Mapping) else Path(config).stem
    folder = told(lambda: _begun(Path(out), stem if name is None else name, resolved))
    return _go_on(folder, _method_folders(folder, resolved), experiments, progress)


def resume(
    folder: str | PathLike[str],
    *overrides: str,
    progress: Progress | None = None,
    walks: str | PathLike[str] | None = None,
) -> Result:
    """Goes on with a run from its last checkpoints; a finished one is only reported.

    Args:
      folder: a run folder, or one method's folder of a comparison.
      overrides: ``rounds=…`` alone, to train longer.
      progress: is told what happens; None is silent.
      walks: as for ``run``; a method that has begun keeps its walk.

    Raises:
      FloralError: if the folder is no run, or not of this config and these data.
    """
    folder = Path(folder)
    for text in overrides:
        if parse(text).path != ("rounds",):
            raise ConfigError(
                f"{text!r}: a resumed run takes rounds=… alone; start a new run for anything else"
            )
    resolved, finished = told(lambda: _found(folder, overrides))
    folders = _method_folders(folder, resolved)
    progress = _of_the_first(progress)
    timings = _noting(walks, progress)
    experiments = build_all(
        resolved, folder=folder, begun=folders, finished=finished, timings=timings
    )
    if overrides and is_first():
        write_atomically(folder / "config.yaml", dump(resolved))
    return _go_on(folder, folders, experiments, progress)


def _of_the_first(progress: Progress | None) -> Progress:
    return progress if progress is not None and is_first() else Silent()


def _noting(walks: str | PathLike[str] | None, progress: Progress) -> Callable[[str], Timings]:
    """The timings of each method, by its name."""
    return lambda name: remembered(walks, lambda line: progress.note(f"{name}: {line}"))


def _begun(out: Path, name: str, resolved: dict[str, Any]) -> Path:
    """A new run folder, with its config."""
    folder = record.new_folder(out, name)
    write_atomically(folder / "config.yaml", dump(resolved))
    return folder


def _found(folder: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The config of a run folder that may be gone on with, and its methods that are finished."""
    resolved = saved_config(folder, *overrides)
    folders = _method_folders(folder, resolved)
    unfolded = methods(resolved)
    for name, config in unfolded.items():
        _check_place(folders[name], config)
    return resolved, [
        name for name in unfolded if _finished(folders[name], unfolded[name]["rounds"])
    ]


def _with_fixed_starts(config: dict[str, Any]) -> dict[str, Any]:
    """The config with run folders to start from as absolute paths: a run may be resumed from
    another place than it was begun in."""
    known = methods(config)

    def fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
        start = settings.get("start_from")
        place = None if start is None or start in known else start_folder(start)
        return {**settings} if place is None else {**settings, "start_from": str(place.resolve())}

    compare = {name: fixed(changes) for name, changes in (config.get("compare") or {}).items()}
    return {**fixed(config), **({"compare": compare} if compare else {})}


def _go_on(
    folder: Path,
    folders: Mapping[str, Path],
    experiments: Mapping[str, Experiment],
    progress: Progress,
) -> Result:
    """Runs what is not finished, in order, and reports on all methods."""
    progress.begin(folder)
    summaries: dict[str, dict[str, Any]] = {}
    try:
        with progress:
            for name, place in folders.items():
                if name in experiments:
                    _run_one(name, experiments[name], place, folder, progress)
                path = place / "summary.json"
                summaries[name] = told(lambda path=path: record.read_json(path))
    except KeyboardInterrupt:
        raise Interrupted(str(folder)) from None
    report, figure = told(lambda: write_report(folder, summaries, folders))
    return Result(folder, summaries, figure, report)


def _run_one(
    name: str, experiment: Experiment, place: Path, folder: Path, progress: Progress
) -> None:
    if place != folder and is_first():
        place.mkdir(exist_ok=True)
        write_atomically(place / "config.yaml", dump(dict(experiment.config)))
    begun = told(lambda: checkpoint.latest_round(place / "checkpoints"))
    source = None if begun else source_of(experiment, folder)
    progress.start(name, experiment, begun or 0)
    summary = run_method(
        experiment,
        place,
        source=source,
        tick=progress.tick,
        say=lambda line: progress.note(f"{name}: {line}"),
    )
    progress.finish(name, summary)


def _method_folders(folder: Path, resolved: Mapping[str, Any]) -> dict[str, Path]:
    alone = not resolved.get("compare")
    return {name: folder if alone else folder / name for name in methods(resolved)}


def _finished(place: Path, rounds: int) -> bool:
    path = place / "summary.json"
    return path.is_file() and record.read_json(path)["rounds"] == rounds


def _check_place(place: Path, config: Mapping[str, Any]) -> None:
    """Raises ConfigError if a folder's run cannot become the config's."""
    if (place / "environment.json").is_file():
        check_config(record.read_json(place / "environment.json"), config, place)
    taken = checkpoint.latest_round(place / "checkpoints") or 0
    if taken > config["rounds"]:
        raise ConfigError(
            f"rounds: {place} has taken {taken} already, got {config['rounds']}; a resumed run "
            "goes on, never back"
        )
