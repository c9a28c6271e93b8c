"""A profile of one block of rounds, taken while a run goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax

from floral.config.build import Experiment
from floral.runs.progress import Progress

__all__ = ["Profiled"]


class Profiled:
    """Tells another what happens, and profiles each method's rounds after its first.

    The first round compiles. What is taken next, rounds of one compiled call with the evaluation
    and the checkpoint that may be due after them, is written under ``profile/<method>`` of the run
    folder, to be opened with TensorBoard's profiler or Perfetto.

    Args:
      told: whom to tell.
    """

    def __init__(self, told: Progress):
        self._told = told
        self._folder = Path()
        self._name = ""
        self._seen = 0
        self._tracing = False

    def __enter__(self) -> Self:
        self._told.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop()
        self._told.__exit__(*error)

    def note(self, line: str) -> None:
        self._told.note(line)

    def begin(self, folder: Path) -> None:
        self._folder = folder
        self._told.begin(folder)

    def start(self, name: str, experiment: Experiment, begun: int) -> None:
        self._name, self._seen = name, 0
        self._told.start(name, experiment, begun)

    def evaluating(self, taken: int) -> None:
        self._told.evaluating(taken)

    def tick(self, taken: int, line: Mapping[str, Any]) -> None:
        self._told.tick(taken, line)
        self._seen += 1
        if self._seen == 1:
            jax.profiler.start_trace(self._folder / "profile" / self._name)
            self._tracing = True
        else:
            self._stop()

    def finish(self, name: str, summary: Mapping[str, Any]) -> None:
        self._stop()
        self._told.finish(name, summary)

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
