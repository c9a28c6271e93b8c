"""Runs on disk: begin one, go on with one, several methods of a comparison one after another.

A run with one method is one folder. A comparison is a folder with a run folder for each method,
each resumable by itself, and a report and a figure over all of them. Several processes may take
a run together: each calls the same function, and the first writes.
"""

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from floral.config.build import Experiment
from floral.config.reading.file_paths import with_absolute_paths
from floral.config.reading.resolve import methods, read
from floral.display import as_html
from floral.processes.agreement import broadcast_from_first, check_devices, is_first
from floral.records import checkpoint, record
from floral.records.folders import (
    begin,
    found,
    leaving_in_order,
    make_own,
    method_folders,
    reopen,
)
from floral.records.intact import read_summary
from floral.records.load import load_run, naming_what_moved
from floral.records.lock import Locks
from floral.records.walks import remembered
from floral.reports.report import write_report
from floral.reports.tables import headline_table
from floral.runs.prepare import build_all, source_of
from floral.runs.progress import Progress, Silent
from floral.runs.restarts import tried
from floral.runs.train import Interrupted, run_method
from floral.simulate.machine.probe import Timings
from floral.text_table import aligned

__all__ = ["Result", "load_run", "resume", "run"]


class Result(NamedTuple):
    """A finished run.

    Attributes:
      folder: where everything is.
      folders: each method's own folder, with its metrics and checkpoints.
      summaries: each method's numbers, as its ``summary.json`` has them.
      figure: the picture.
      report: the table, as Markdown.
    """

    folder: Path
    folders: dict[str, Path]
    summaries: dict[str, dict[str, Any]]
    figure: Path
    report: Path

    def __repr__(self) -> str:
        rounds = ", ".join(f"{name} {each['rounds']}" for name, each in self.summaries.items())
        return f"Result({str(self.folder)!r}: rounds {rounds}; the table is in {self.report})"

    def _repr_html_(self) -> str:
        head, rows = headline_table(self.summaries)
        return as_html(aligned([head, *rows], numbers=range(1, len(head))))


def run(
    config: str | PathLike[str] | Mapping[str, Any],
    *overrides: str,
    out: str | PathLike[str] = "runs",
    name: str | None = None,
    without: str | Iterable[str] = (),
    progress: Progress | None = None,
    walks: str | PathLike[str] | None = None,
    **settings: Any,
) -> Result:
    """Trains a config's methods into a new folder.

    Args:
      config: a YAML file, the name of a packaged config, as ``"quickstart"``, or a mapping as a
        file would have it.
      overrides: as on the command line, ``"algorithm.num_adaptors=8"``.
      out: the parent of the new folder.
      name: the folder's name; the file's by default. A name that is taken gets a number.
      progress: is told what happens; None is silent.
      without: methods that are not run, by name.
      walks: a file in which timings of walks are remembered; None remembers none.
      settings: overrides as Python values: ``rounds=2``, ``only=["floral"]``, and by dotted name
        ``**{"algorithm.num_adaptors": 8}``.

    Raises:
      FloralError: before any training starts, if anything does not fit; no folder is left then.
        Also if a file cannot be written, as on a full disk; says how to go on.
      Interrupted: after Ctrl-C; ``resume`` goes on.
    """
    check_devices()
    resolved = read(config, overrides, settings=settings, without=without)
    progress = _of_the_first(progress)
    timings = _noting(walks, progress)
    # What does not fit is said before a folder exists.
    built = build_all(resolved, timings=timings)
    resolved = with_absolute_paths(resolved)
    configs = methods(resolved)
    experiments = {name: built[name]._replace(config=configs[name]) for name in built}
    stem = "run" if isinstance(config, Mapping) else Path(config).stem
    with Locks() as locks:
        made = broadcast_from_first(
            lambda: record.new_folder(Path(out), stem if name is None else name)
        )
        folder = made[-1]
        folders = method_folders(folder, resolved)
        with leaving_in_order(folder, folders, made):
            said = [*overrides, *(f"{place}={value!r}" for place, value in settings.items())]
            broadcast_from_first(lambda: begin(folder, resolved, said, locks))
            return _go_on(folder, folders, experiments, progress, locks)


def resume(
    folder: str | PathLike[str],
    *overrides: str,
    rounds: int | None = None,
    progress: Progress | None = None,
    walks: str | PathLike[str] | None = None,
) -> Result:
    """Goes on with a run from its last checkpoints; a finished one is only reported.

    Args:
      folder: a run folder, or one method's folder of a comparison.
      overrides: ``"rounds=…"``, to train longer, and where files are that were moved, as
        ``"data.source.path=…"``; anything else is another run.
      rounds: the same from Python.
      progress: is told what happens; None is silent.
      walks: as for ``run``; a method that has begun keeps its walk.

    Raises:
      FloralError: if the folder is no run, is being written to by another command, or is not of
        this config and these data.
    """
    check_devices()
    folder = Path(folder)
    overrides = (*overrides, *(() if rounds is None else (f"rounds={rounds}",)))
    progress = _of_the_first(progress)
    with Locks() as locks:
        resolved, finished = broadcast_from_first(lambda: found(folder, overrides, locks))
        folders = method_folders(folder, resolved)
        timings = _noting(walks, progress)
        with naming_what_moved(folder, resolved):
            experiments = build_all(
                resolved, folder=folder, begun=folders, finished=finished, timings=timings
            )
        with leaving_in_order(folder, folders):
            broadcast_from_first(lambda: reopen(folder, resolved, overrides))
            return _go_on(folder, folders, experiments, progress, locks, resumed=True)


def _of_the_first(progress: Progress | None) -> Progress:
    return progress if progress is not None and is_first() else Silent()


def _noting(walks: str | PathLike[str] | None, progress: Progress) -> Callable[[str], Timings]:
    """The timings of each method, by its name."""
    return lambda name: remembered(walks, lambda line: progress.note(f"{name}: {line}"))


def _go_on(
    folder: Path,
    folders: Mapping[str, Path],
    experiments: Mapping[str, Experiment],
    progress: Progress,
    locks: Locks,
    *,
    resumed: bool = False,
) -> Result:
    """Runs what is not finished, in order, and reports on all methods."""
    progress.begin(folder)
    summaries: dict[str, dict[str, Any]] = {}
    try:
        with progress:
            for name, place in folders.items():
                if name in experiments:
                    begun = checkpoint.latest_round(place / "checkpoints")
                    trials = tried(place) or {"chosen": 0}
                    if resumed and begun is None and place.is_dir() and "chosen" in trials:
                        progress.note(f"{name}: nothing was saved yet; it starts from round 1")
                    _run_one(name, experiments[name], place, folder, progress, locks)
                summaries[name] = broadcast_from_first(lambda place=place: read_summary(place))
    except KeyboardInterrupt:
        raise Interrupted(str(folder)) from None
    report, figure = broadcast_from_first(lambda: write_report(folder, summaries, folders))
    return Result(folder, dict(folders), summaries, figure, report)


def _run_one(
    name: str,
    experiment: Experiment,
    place: Path,
    folder: Path,
    progress: Progress,
    locks: Locks,
) -> None:
    broadcast_from_first(lambda: make_own(place, experiment, folder, locks))
    begun = broadcast_from_first(lambda: checkpoint.latest_round(place / "checkpoints"))
    source = None if begun else source_of(experiment, folder)
    progress.start(name, experiment, begun or 0)
    summary = run_method(
        experiment,
        place,
        source=source,
        tick=progress.tick,
        evaluating=progress.evaluating,
        say=lambda line: progress.note(f"{name}: {line}"),
    )
    progress.finish(name, summary)
