"""What a person sees while runs go on: a live bar on a terminal, a line an evaluation elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from floral.config.build import Experiment

__all__ = ["Console", "Pace", "Progress", "Silent"]

_WIDE = 64  # columns from which there is room for a bar
_SILENCE = 30.0  # seconds after which a pipe gets a line, whether there was an evaluation or not


class Progress(Protocol):
    """Is told what happens."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: Any) -> None: ...
    def note(self, line: str) -> None: ...
    def begin(self, folder: Path) -> None: ...
    def start(self, name: str, experiment: Experiment, begun: int) -> None: ...
    def evaluating(self, taken: int) -> None: ...
    def tick(self, taken: int, line: Mapping[str, Any]) -> None: ...
    def finish(self, name: str, summary: Mapping[str, Any]) -> None: ...


class Silent:
    """Tells no one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def note(self, line: str) -> None:
        return None

    def begin(self, folder: Path) -> None:
        return None

    def start(self, name: str, experiment: Experiment, begun: int) -> None:
        return None

    def evaluating(self, taken: int) -> None:
        return None

    def tick(self, taken: int, line: Mapping[str, Any]) -> None:
        return None

    def finish(self, name: str, summary: Mapping[str, Any]) -> None:
        return None


class Console:
    """A bar for every method on a terminal; where there is none, lines.

    The bar keeps the count, the clock and the time to go, also while clients are evaluated, and
    leaves out the rest where a terminal is narrow. A pipe or a dumb terminal gets a line for every
    evaluation, and for rounds that take longer than half a minute without one.
    """

    def __init__(self, told: Callable[[Path], None] = lambda folder: None) -> None:
        """Args: ``told (run folder)``: called once there is one."""
        from rich.console import Console as RichConsole

        self._told = told
        self._console = RichConsole()
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._bars = _bars(self._console, live=self._live)
        self._task: Any = None
        self._pace = Pace(0, 0)
        self._name = ""
        self._rounds = 0
        self._taken = 0
        self._numbers = ""
        self._printed = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bars.stop()

    def note(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def begin(self, folder: Path) -> None:
        self._told(folder)

    def start(self, name: str, experiment: Experiment, begun: int) -> None:
        self._name, self._rounds, self._taken = name, experiment.rounds, begun
        self._numbers = ""
        self._pace, self._printed = Pace(begun, experiment.rounds), time.monotonic()
        self._task = self._bars.add_task(
            name, total=experiment.rounds, completed=begun, pace=self._pace, numbers="compiling…"
        )
        if not self._live:
            again = f", from round {begun}" if begun else ""
            print(f"{name}: {experiment.rounds} rounds{again}", flush=True)

    def evaluating(self, taken: int) -> None:
        self._show(taken, "evaluating…")

    def tick(self, taken: int, line: Mapping[str, Any]) -> None:
        loss = f"train loss {line['train'].get('loss', math.nan):.4f}"
        if "evaluation" in line:
            room = self._console.width if self._live else None
            self._numbers = _short(line["evaluation"], room)
        self._show(taken, self._numbers or loss)
        waited = time.monotonic() - self._printed > _SILENCE
        if not self._live and ("evaluation" in line or waited):
            said = self._numbers if "evaluation" in line else loss
            clock = self._pace.clock(self._taken)
            print(f"{self._name}: round {taken}/{self._rounds}  {clock}  {said}", flush=True)
            self._printed = time.monotonic()

    def finish(self, name: str, summary: Mapping[str, Any]) -> None:
        self._show(summary["rounds"], self._numbers)
        if not self._live:
            print(f"{name}: done in {summary['seconds']:.1f} s", flush=True)

    def _show(self, taken: int, text: str) -> None:
        """Of several rounds in one call the count never falls behind the evaluation after them."""
        self._taken = max(self._taken, taken)
        self._bars.update(self._task, completed=self._taken, numbers=text)


class Pace:
    """How long a run has taken, and how long it may take yet.

    Args:
      begun: rounds that were taken before.
      rounds: of the whole run.
      now: the clock, in seconds.
    """

    def __init__(self, begun: int, rounds: int, now: Callable[[], float] = time.monotonic):
        self._begun, self._rounds, self._now = begun, rounds, now
        self._start = now()
        self._first: tuple[int, float] | None = None
        self._seen: int | None = None
        self._end: float | None = None

    def clock(self, taken: int, *, short: bool = False) -> str:
        """``0:12, 0:47 to go``, in short ``0:12<0:47``.

        The time to go is told once more than the first rounds, which compile, are taken;
        evaluations so far are in it. It counts down until further rounds are.

        Example:
          >>> seconds = iter([0.0, 10.0, 14.0])
          >>> pace = Pace(0, 10, now=lambda: next(seconds))
          >>> pace.clock(1), pace.clock(5)
          ('0:10', '0:14, 0:05 to go')
        """
        now = self._now()
        if taken != self._seen:
            self._seen, self._end = taken, self._expected_end(taken, now)
        spent = _minutes(now - self._start)
        if self._end is None:
            return spent
        left = _minutes(max(0.0, self._end - now))
        return f"{spent}<{left}" if short else f"{spent}, {left} to go"

    def _expected_end(self, taken: int, now: float) -> float | None:
        if taken >= self._rounds or taken <= self._begun:
            return None
        if self._first is None:
            self._first = taken, now
            return None
        rounds, since = taken - self._first[0], now - self._first[1]
        return now + since / rounds * (self._rounds - taken)


def _minutes(seconds: float) -> str:
    """As ``0:07`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bars(console: Any, *, live: bool) -> Any:
    """The bars, with as many columns as the terminal has room for."""
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column
    from rich.text import Text

    wide = console.width >= _WIDE

    class Clock(ProgressColumn):
        """Goes on while nothing is told."""

        max_refresh = 0.5

        def render(self, task: Any) -> Text:
            return Text(task.fields["pace"].clock(int(task.completed), short=not wide))

    def whole(**options: Any) -> Column:
        return Column(no_wrap=True, overflow="ellipsis", **options)

    columns = [
        TextColumn("[bold]{task.description}", table_column=whole(max_width=16 if wide else 11)),
        *([BarColumn(bar_width=12)] if wide else []),
        MofNCompleteColumn(table_column=whole()),
        Clock(table_column=whole()),
        TextColumn("{task.fields[numbers]}", table_column=whole(ratio=1)),
    ]
    return RichProgress(*columns, console=console, disable=not live, expand=True)


def _short(evaluation: Mapping[str, Any], room: int | None) -> str:
    """What an evaluation came to; behind a bar, in so many columns, the test numbers alone."""
    groups = [group for group in ("validation", "test", "unseen") if group in evaluation]
    if room is not None:
        groups = [group for group in ("test", "validation") if group in evaluation][:1]
    words = []
    for group in groups:
        numbers = evaluation[group]
        if "accuracy" in numbers:
            words.append(f"{group} {_shown(numbers['accuracy']['mean'], '.1%')}")
        else:
            name = group if room is not None and room < _WIDE else f"{group} loss"
            words.append(f"{name} {_shown(numbers['loss']['mean'], '.3g')}")
    return "  ".join(words)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
