"""Learning curves of several seeds: a line for the mean, a band for the deviation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from floral.config.reading.yaml_file import load
from floral.records.intact import finished_lines
from floral.reports.plot import axis_label, line_styles, rounds_before, scaled
from floral.reports.seeds import Tasks

__all__ = ["SeedCurve", "seed_curves", "seeds_figure"]

_CROWDED = 6  # methods that one panel holds


class SeedCurve(NamedTuple):
    """One method over its seeds.

    Attributes:
      rounds: [T] rounds that all seeds evaluated.
      values: [seeds, T], NaN where a number was not finite.
      quantity: ``accuracy`` or ``loss``.
      start: what it starts from, another run or method; None from the beginning.
    """

    rounds: np.ndarray
    values: np.ndarray
    quantity: str
    start: str | None


def seed_curves(tasks: Tasks, number: str) -> dict[str, dict[str, SeedCurve]]:
    """The curves on test data of every task's methods, read from their run folders.

    Args:
      tasks: by task, method and seed.
      number: which number over clients.
    """
    return {
        task: {
            method: _curve([end.place for end in seeds.values()], first.quantity, number)
            for method, seeds in methods.items()
            for first in [next(iter(seeds.values()))]
        }
        for task, methods in tasks.items()
    }


def _curve(places: list[Any], quantity: str, number: str) -> SeedCurve:
    each = []
    for place in places:
        evaluated = (line for line in finished_lines(place) if "evaluation" in line)
        each.append(
            {
                line["round"]: line["evaluation"]["test"][quantity][number]
                for line in evaluated
                if "test" in line["evaluation"]
            }
        )
    rounds = sorted(set.intersection(*(set(points) for points in each)))
    values = np.array([[points[r] for r in rounds] for points in each], float)
    start = load(places[0] / "config.yaml").get("start_from")
    return SeedCurve(np.array(rounds), values, quantity, None if start is None else str(start))


def seeds_figure(tasks: Mapping[str, Mapping[str, SeedCurve]], *, number: str = "mean") -> Any:
    """A row of panels a task: one for all methods, or one for each where they would be crowded.

    Bands are one standard deviation over seeds to either side, where there are several. A method
    that starts from another is dotted, and drawn after the other's rounds. In a panel of its own
    the others are drawn in grey.

    Args:
      tasks: by task and method.
      number: which number over clients, for the axis.
    """
    from matplotlib.figure import Figure

    crowded = max(len(methods) for methods in tasks.values()) > _CROWDED
    columns = 4 if crowded else 1
    rows = sum(-(-len(methods) // columns) if crowded else 1 for methods in tasks.values())
    size = (3.4 * columns, 2.8 * rows) if crowded else (7.5, 4.6 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    row = 0
    for task, unmoved in tasks.items():
        curves = _one_after_another(unmoved)
        starts = {name: str(c.start) for name, c in curves.items() if c.start is not None}
        styles = line_styles(curves, starts)
        label = axis_label(next(iter(curves.values())).quantity, "test")
        label = label if number == "mean" else f"{label}, {number}"
        if not crowded:
            axis = axes[row, 0]
            for name, curve in curves.items():
                _draw(axis, curve, styles[name])
            _finish(axis, task, label)
            # Beside the curves, which it then never covers.
            axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
            row += 1
            continue
        here = axes[row : row + -(-len(curves) // columns)]
        for axis, (name, curve) in zip(here.flat, curves.items(), strict=False):
            for other in curves.values():
                _draw(axis, other, {"color": "0.85", "linewidth": 1.0}, band=False)
            _draw(axis, curve, styles[name])
            _finish(axis, styles[name]["label"], label)
        for axis in here.flat[len(curves) :]:
            axis.set_visible(False)
        _share_scale(here.flat[: len(curves)])
        row += len(here)
    return figure


def _one_after_another(curves: Mapping[str, SeedCurve]) -> dict[str, SeedCurve]:
    """The curves, each after the rounds of the one that it starts from."""
    ends = {name: int(curve.rounds.max(initial=0)) for name, curve in curves.items()}
    starts = {name: curve.start for name, curve in curves.items() if curve.start is not None}
    before = rounds_before(ends, starts)
    return {
        name: curve._replace(rounds=curve.rounds + before[name]) for name, curve in curves.items()
    }


def _draw(axis: Any, curve: SeedCurve, style: Mapping[str, Any], *, band: bool = True) -> None:
    values = scaled(curve.values, curve.quantity)
    mean = values.mean(axis=0)
    axis.plot(curve.rounds, mean, marker="o" if len(mean) < 3 else None, markersize=3, **style)
    if band and len(values) > 1:
        deviation = values.std(axis=0, ddof=1)
        axis.fill_between(
            curve.rounds, mean - deviation, mean + deviation, color=style["color"], alpha=0.2, lw=0
        )


def _finish(axis: Any, title: str, label: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("round", fontsize=8)
    axis.set_ylabel(label, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)


def _share_scale(axes: Any) -> None:
    low, high = zip(*(axis.get_ylim() for axis in axes), strict=True)
    for axis in axes:
        axis.set_ylim(min(low), max(high))
