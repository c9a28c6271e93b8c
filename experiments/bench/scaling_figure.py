"""The figure of ``scaling.py``: a round's time over each quantity that was swept.

    python experiments/bench/scaling.py --json scaling.json
    python experiments/bench/scaling_figure.py scaling.json scaling.png

Both axes are logarithmic, with a grey line for growth in proportion, or for a time shared out in
proportion; sweeps over names are bars.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from scaling import METHODS, SWEEPS

from floral.reports.plot import PALETTE

LABELS = {
    "population": "clients in the population",
    "cohort": "clients in a round",
    "adaptors": "adaptors C",
    "rank": "adaptors' share of the weights",
    "width": "hidden units",
    "batch": "examples in a batch",
    "model": "model",
    "devices": "devices (cores) of one process",
    "processes": "processes of one device",
}


def panel(axes: Any, over: str, rows: list[dict[str, Any]]) -> None:
    """One sweep."""
    name, methods = SWEEPS[over][0], list(dict.fromkeys(row["method"] for row in rows))
    named = isinstance(rows[0][name], str)
    shared = over in ("devices", "processes")
    for place, method in enumerate(methods):
        color = PALETTE[METHODS.index(method)]
        own = [row for row in rows if row["method"] == method]
        times = [1e3 * row["seconds"] for row in own]
        if named:
            width = 0.8 / len(methods)
            places = [i + width * (place - (len(methods) - 1) / 2) for i in range(len(own))]
            axes.bar(places, times, width, color=color, label=method)
            axes.set_xticks(range(len(own)), [row[name] for row in own], rotation=20)
        else:
            values = [row[name] for row in own]
            axes.plot(values, times, "o-", color=color, label=method)
            if place == 0:
                steps = [value / values[0] for value in values]
                line = [times[0] / step if shared else times[0] * step for step in steps]
                axes.plot(values, line, ":", color="0.6", zorder=0)
            axes.set_xscale("log")
    values = [row[name] for row in rows]
    if not named:
        axes.set_xlim(0.8 * min(values), 1.25 * max(values))
    if shared or over == "adaptors":
        axes.set_xticks(sorted(set(values)), [f"{v:g}" for v in sorted(set(values))], minor=False)
        axes.minorticks_off()
    axes.set_yscale("log")
    times = [1e3 * row["seconds"] for row in rows]
    axes.set_ylim(min(times) / 2, 2 * max(times))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(LABELS[over])
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("measured", type=Path, help="what scaling.py --json wrote")
    parser.add_argument("figure", type=Path, help="a png, svg or pdf to be written")
    arguments = parser.parse_args()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sweeps = json.loads(arguments.measured.read_text(encoding="utf-8"))["sweeps"]
    columns = min(3, len(sweeps))
    lines = -(-len(sweeps) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place < len(sweeps):
            over = list(sweeps)[place]
            panel(axes, over, sweeps[over])
        else:
            axes.set_axis_off()
    for line in grid:
        line[0].set_ylabel("a round, ms")
    grid[0, 0].legend(frameon=False, fontsize="small")
    figure.savefig(arguments.figure, dpi=150)


if __name__ == "__main__":
    main()
