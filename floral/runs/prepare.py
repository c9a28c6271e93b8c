"""The methods of a config, all built before any is trained: what does not fit is said at once."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax

from floral.check import did_you_mean
from floral.config.build import Experiment, build
from floral.config.reading.resolve import methods
from floral.errors import ConfigError, FloralError
from floral.records import checkpoint
from floral.records.load import load_run, saved_chunk, start_folder
from floral.records.state import start_state
from floral.simulate.machine.probe import Timings, untimed
from floral.typing import PyTree

__all__ = ["build_all", "source_of"]


def build_all(
    config: Mapping[str, Any],
    *,
    folder: Path | None = None,
    begun: Mapping[str, Path] | None = None,
    finished: Collection[str] = (),
    timings: Callable[[str], Timings] = lambda name: untimed,
) -> dict[str, Experiment]:
    """Every method's parts; methods whose data are configured alike share them.

    Args:
      config: the whole config, as ``read`` gives it.
      folder: the run folder that is gone on with; None for a new run.
      begun: its methods' own folders.
      finished: methods to leave out.
      timings: by the name of a method, what the rounds of a timed walk take.

    Raises:
      FloralError: naming the part that does not fit, and the compared method.
    """
    experiments: dict[str, Experiment] = {}
    for name, method in methods(config).items():
        if name in finished:
            continue
        place = (begun or {}).get(name)
        alike = (e for e in experiments.values() if e.config["data"] == method["data"])
        try:
            experiment = build(
                method,
                like=next(alike, None),
                chunk=None if place is None else saved_chunk(place),
                donate=True,
                timings=timings(name),
            )
            if place is None or checkpoint.latest_round(place / "checkpoints") is None:
                _check_start(name, experiment, experiments, folder)
        except FloralError as error:
            if name not in (config.get("compare") or {}):
                raise
            raise type(error)(*(f"compare.{name}: {said}" for said in error.args)) from error
        experiments[name] = experiment
    return experiments


def source_of(experiment: Experiment, folder: Path | None) -> PyTree:
    """The server that a method starts from; None to start from the beginning.

    Raises:
      ConfigError: if no such run is there.
    """
    start = experiment.config["start_from"]
    if start is None:
        return None
    place = start_folder(start, folder)
    if place is None:
        raise ConfigError(f"start_from: {start!r} is no run folder")
    return load_run(place)[1].server


def _check_start(
    name: str, experiment: Experiment, earlier: Mapping[str, Experiment], folder: Path | None
) -> None:
    start = experiment.config["start_from"]
    if start is None:
        return
    if start in earlier:
        source = jax.eval_shape(lambda: start_state(earlier[start])).server
    elif start_folder(start, folder) is not None:
        source = source_of(experiment, folder)
    else:
        known = ", ".join(earlier) or "none"
        raise ConfigError(
            f"start_from: {start!r} is neither a method that comes before {name!r} (there is "
            f"{known}) nor a run folder{did_you_mean(start, earlier)}"
        )
    jax.eval_shape(lambda server: start_state(experiment, server), source)
