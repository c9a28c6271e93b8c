"""What a person sees while runs go on: a live bar on a terminal, a line an evaluation elsewhere."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from floral.experiment.build import Experiment
from floral.experiment.report import advice

__all__ = ["Console", "Progress", "Silent"]


class Progress(Protocol):
    """Is told what happens."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: Any) -> None: ...
    def note(self, line: str) -> None: ...
    def begin(self, folder: Path) -> None: ...
    def start(self, name: str, experiment: Experiment, begun: int) -> None: ...
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

    def tick(self, taken: int, line: Mapping[str, Any]) -> None:
        return None

    def finish(self, name: str, summary: Mapping[str, Any]) -> None:
        return None


class Console:
    """A bar for every method on a terminal; where there is none, a line for every evaluation."""

    def __init__(self, told: Callable[[Path], None] = lambda folder: None) -> None:
        """Args: ``told (run folder)``: called once there is one."""
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._told = told
        self._console = RichConsole()
        self._bars = RichProgress(
            TextColumn("[bold]{task.description:<16}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: Any = None
        self._name = ""
        self._rounds = 0
        self._numbers = ""

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
        self._name, self._rounds, self._numbers = name, experiment.rounds, ""
        self._task = self._bars.add_task(
            name, total=experiment.rounds, completed=begun, numbers="compiling"
        )
        if not self._console.is_terminal:
            again = f", from round {begun}" if begun else ""
            print(f"{name}: {experiment.rounds} rounds{again}", flush=True)

    def tick(self, taken: int, line: Mapping[str, Any]) -> None:
        if "evaluation" in line:
            self._numbers = _short(line["evaluation"])
            if not self._console.is_terminal:
                print(f"{self._name}: round {taken}/{self._rounds}  {self._numbers}", flush=True)
        text = f"train loss {line['train']['loss']:.4f}  {self._numbers}"
        self._bars.update(self._task, completed=taken, numbers=text)

    def finish(self, name: str, summary: Mapping[str, Any]) -> None:
        if not self._console.is_terminal:
            print(f"{name}: done in {summary['seconds']:.1f} s", flush=True)
        told = advice(summary)
        if told is not None:
            self.note(f"{name}: {told}")


def _short(evaluation: Mapping[str, Any]) -> str:
    words = []
    for group in ("validation", "test", "unseen"):
        if group in evaluation:
            numbers = evaluation[group]
            if "accuracy" in numbers:
                words.append(f"{group} {numbers['accuracy']['mean']:.1%}")
            else:
                words.append(f"{group} loss {numbers['loss']['mean']:.3g}")
    return "  ".join(words)
