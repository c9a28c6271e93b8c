"""Where the seconds of a run go: compiling, training, evaluating and saving told apart."""

import contextlib
import time
from collections.abc import Iterator

import jax

__all__ = ["Clocks"]


class Clocks:
    """Seconds by part of a run, since they were last taken.

    Compilation is what JAX itself reports (tracing, lowering, XLA), whatever part it happens in:
    a part's own seconds are without it.

    Example:
      >>> with Clocks().running() as clocks:
      ...     with clocks.of("train"):
      ...         _ = jax.jit(lambda x: x + 1)(1.0).block_until_ready()
      >>> sorted(clocks.take())
      ['compile', 'train']
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._compiled: list[tuple[float, float]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator["Clocks"]:
        """Listens to JAX's own reports meanwhile."""
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        try:
            yield self
        finally:
            jax.monitoring.unregister_event_duration_listener(self._heard)

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Counts what happens meanwhile as a part's; parts do not nest."""
        before, start = len(self._compiled), time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            compiling = min(spent, _union(self._compiled[before:]))
            del self._compiled[before:]
            self._add("compile", compiling)
            self._add(part, spent - compiling)

    def take(self) -> dict[str, float]:
        """Seconds by part since the last call; parts without any are left out."""
        taken, self._seconds = self._seconds, {}
        return taken

    def _add(self, part: str, seconds: float) -> None:
        if seconds > 0:
            self._seconds[part] = self._seconds.get(part, 0.0) + seconds

    def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            self._compiled.append((now - duration_secs, now))


def _union(spans: list[tuple[float, float]]) -> float:
    """Seconds that spans cover together: a program is traced within the trace of another."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
