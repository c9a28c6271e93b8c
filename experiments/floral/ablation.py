"""The figure of what finds mixtures: accuracy and groups found by every way, task by task.

    floral run configs/floral/mixtures_5.yaml seed=0
    floral run configs/floral/mixtures_5.yaml seed=0 data.shift.kind=rotate
    python experiments/floral/results.py --keep mixtures runs/mixtures_5*
    python experiments/floral/ablation.py --out figures

Reads ``results/mixtures.json`` and writes ``mixtures.png``: a row a way, a dot a seed,
a bar at their mean, and at the right edge the clients in their true group.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from cells import Cells, Seeds, accuracies
from kept import read_cells

from floral.reports.plot import PALETTE, save_figure

__all__ = ["figure"]

KNOWN = "known_clusters"


def figure(cells: Cells):
    """One panel a task; ways in the order of the first task's means."""
    from matplotlib.figure import Figure

    tasks = list(cells)
    first = cells[tasks[0]]
    ways = sorted(first, key=lambda way: statistics.mean(accuracies(first[way]).values()))
    page = Figure(figsize=(1.6 + 4.4 * len(tasks), 0.9 + 0.3 * len(ways)), layout="constrained")
    panels = page.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        for place, way in enumerate(ways):
            if way in cells[task]:
                draw(panel, place, cells[task][way], known=way == KNOWN)
        if KNOWN in cells[task]:
            mean = statistics.mean(accuracies(cells[task][KNOWN]).values())
            panel.axvline(mean, color="0.6", linewidth=1, linestyle=":", zorder=0)
        panel.set(xlabel="test accuracy, %", title=task)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="0.92")
        panel.set_axisbelow(True)
        panel.text(1.0, len(ways) - 0.3, "in their group", fontsize=8, **beyond(panel))
    panels[0].set_yticks(range(len(ways)), [way.replace("_", " ") for way in ways])
    panels[0].set_ylim(-0.6, len(ways) + 0.1)
    return page


def draw(panel, place: int, seeds: Seeds, *, known: bool) -> None:
    """A way's seeds, their mean, and the share of clients in their true group."""
    values = list(accuracies(seeds).values())
    color = PALETTE[6] if known else PALETTE[0]
    panel.plot(values, [place] * len(values), "o", color=color, markersize=4, alpha=0.7)
    panel.plot([statistics.mean(values)], [place], "|", color=color, markersize=13)
    found = [100 * run["agreement"] for run in seeds.values() if "agreement" in run]
    if found and not known:
        share = f"{statistics.mean(found):.0f} %"
        panel.text(1.03, place, share, fontsize=8, **beyond(panel))


def beyond(panel) -> dict[str, Any]:
    """How text stands beside a panel: places across in shares of it, up in its data."""
    return {"va": "center", "transform": panel.get_yaxis_transform()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the figure")
    arguments = parser.parse_args()
    cells = read_cells(Path(__file__).parent / "results/mixtures.json")
    if not cells:
        parser.error("no results/mixtures.json: keep some runs with results.py first")
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(save_figure(figure(cells), arguments.out / "mixtures.png"))


if __name__ == "__main__":
    main()
