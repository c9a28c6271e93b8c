"""The MNIST runs side by side: methods over tasks, pair by pair, and beside published numbers.

    for seed in 0 1 2; do floral run configs/floral/mnist_rotate.yaml seed=$seed; done
    python experiments/floral/table.py runs/mnist_rotate* --json results.json \\
        --published experiments/floral/published.json

Runs of one task that differ in their seed alone make a cell: the last round's test accuracy in per
cent, mean over seeds of the mean over clients of each client's own model on its own images, with
the standard deviation over seeds, and in brackets the clients whose largest weight names their true
group. The last rows are differences paired by seed, with a 95 % t interval and the p-value of the
paired t test. Unfinished methods are left out.

``--at`` takes another round: the one that validated best, or the mean over the last of 50 bins, as
published. ``--number`` takes another number of the clients: ``of_examples`` counts each image
alike, ``worst_decile`` the worst-served clients alone.

``--published`` prints a second table, cell by cell: what was measured, what a publication has, the
difference, and how many of its standard errors that is, √(sd₁²/n₁ + sd₂²/n₂); bold beyond two.
``--rows as_published`` and ``as_released`` are for the configs of those folders, whose methods are
the publication's own.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cells import Cells, Seeds, accuracies, collect

from floral.config.reading.yaml_file import write_atomically
from floral.errors import ConfigError
from floral.metrics import between_seeds, over_seeds, welch
from floral.records.history import CHOICES
from floral.records.record import read_json
from floral.reports.comparison import probability
from floral.text_table import markdown

__all__ = ["beside", "spread", "table"]

PAIRS = (
    ("floral", "known_clusters"),
    ("floral", "gradient"),
    ("floral", "fedavg"),
    ("floral", "local_adaptor"),
    ("floral", "ensemble"),
    ("floral", "both_layers"),
    ("both_layers", "both_layers_known"),
    ("both_layers", "gradient"),
    ("wide", "ensemble"),
    ("floral", "rate_05"),
    ("floral", "rate_03"),
    ("floral", "rate_01"),
)
FAR = 2.0  # standard errors
COUNTERPARTS = ("ours", "as_published", "as_released", "released_variants")

Mark = Callable[[Iterable[Mapping[str, Any]]], str]
"""What stands behind a number over these runs, such as ``provenance.marks``."""


def unmarked(runs: Iterable[Mapping[str, Any]]) -> str:
    """No mark."""
    return ""


def spread(values: Iterable[float]) -> str:
    """Mean and standard deviation; the mean alone of one seed."""
    values = list(values)
    if len(values) < 2:
        return f"{values[0]:.1f}"
    found = over_seeds(values)
    return f"{found.mean:.1f} ± {found.sd:.1f}"


def cell(seeds: Seeds, mark: Mark) -> str:
    """Accuracy over seeds with its mark, and the agreement of mixtures."""
    text = spread(accuracies(seeds).values()) + mark(seeds.values())
    found = [numbers["agreement"] for numbers in seeds.values() if "agreement" in numbers]
    return f"{text} ({100 * statistics.mean(found):.0f})" if found else text


def told(runs: Seeds, usual: int, mark: Mark) -> str:
    """A cell, and how many seeds it has if not as many as others of its task."""
    text = cell(runs, mark)
    return text if len(runs) == usual else f"{text}, n = {len(runs)}"


def difference(methods: Mapping[str, Seeds], one: str, other: str) -> str:
    """One method's accuracy less another's, over the seeds that both have."""
    left, right = (accuracies(methods.get(name, {})) for name in (one, other))
    both = left.keys() & right.keys()
    if not both:
        return "–"
    left, right = ({seed: values[seed] for seed in both} for values in (left, right))
    if len(both) < 2:
        (seed,) = both
        return f"{left[seed] - right[seed]:+.1f}"
    found = between_seeds(left, right)
    return (
        f"{found.mean:+.1f} ± {found.sd:.1f} [{found.low:+.1f}, {found.high:+.1f}], "
        f"p {probability(found.p)}"
    )


def table(cells: Cells, mark: Mark = unmarked) -> str:
    """The Markdown table."""
    names = list(dict.fromkeys(name for methods in cells.values() for name in methods))
    seeds = {t: max(len(s) for s in methods.values()) for t, methods in cells.items()}
    rows = [
        [
            f"`{name}`",
            *(told(m[name], seeds[t], mark) if name in m else "–" for t, m in cells.items()),
        ]
        for name in names
    ]
    rows += [
        [f"`{one}` less `{other}`, paired", *(difference(m, one, other) for m in cells.values())]
        for one, other in PAIRS
        if any({one, other} <= m.keys() for m in cells.values())
    ]
    heads = [f"{t} ({seeds[t]} seed{'s' if seeds[t] > 1 else ''})" for t in cells]
    return markdown(["method", *heads], rows)


def beside(
    cells: Cells, published: Mapping[str, Any], which: str = "ours", mark: Mark = unmarked
) -> str:
    """Every cell that a publication has too, as a Markdown table, and what to know about it.

    Args:
      cells: what was measured.
      published: as in ``published.json``: under ``counterparts`` and the configs' name the row
        that stands for a method, and where the two are not the same, in what it ``differs``.
      which: whose methods the cells' are, one of ``COUNTERPARTS``.
      mark: what stands behind a measured number.
    """
    rows, notes = [], list[str]()
    for name, column in published["tasks"].items():
        for method, counterpart in published["counterparts"][which].items():
            if method not in cells.get(name, {}):
                continue
            label, differs = f"`{method}`", counterpart.get("differs")
            if differs is not None:
                notes += [differs] if differs not in notes else []
                label += f" ({notes.index(differs) + 1})"
            place = published["columns"].index(column)
            theirs = (*published["rows"][counterpart["row"]][place], published["seeds"])
            values = list(accuracies(cells[name][method]).values())
            marked = mark(cells[name][method].values())
            rows.append([column, label, counterpart["row"], *compared(values, theirs, marked)])
    head = ["task", "method", "as", "measured", "published", "difference", "in s.e.", "p"]
    lines = [
        f"Published: {published['source']}; {published['protocol']}.",
        f"In brackets how many seeds; bold beyond {FAR:g} standard errors of the difference. With "
        "three seeds on each side chance alone takes one cell of five to nine there, as p tells.",
        *(f"({index}) {note}." for index, note in enumerate(notes, 1)),
    ]
    return markdown(head, rows, texts=3) + "\n\n" + "\n".join(lines)


def compared(values: list[float], theirs: tuple[float, float, int], marked: str = "") -> list[str]:
    """Measured, published, difference, in standard errors, p; the last two of several seeds."""
    mean, sd, count = theirs
    shown = [f"{spread(values)}{marked} ({len(values)})", f"{mean:.1f} ± {sd:.1f} ({count})"]
    if len(values) < 2:
        return [*shown, f"{values[0] - mean:+.1f}", "–", "–"]
    ours = over_seeds(values)
    found = welch((ours.mean, ours.sd, ours.size), theirs)
    if found.error == 0:
        return [*shown, f"{found.mean:+.1f}", "–", "–"]
    errors = found.mean / found.error
    text = f"**{errors:+.1f}**" if abs(errors) > FAR else f"{errors:+.1f}"
    return [*shown, f"{found.mean:+.1f}", text, probability(found.p)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--at", choices=CHOICES, default="last", help="which rounds count")
    parser.add_argument("--number", default="mean", help="which number of clients' accuracies")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    parser.add_argument("--published", type=Path, help="also print a table beside these numbers")
    parser.add_argument("--rows", choices=COUNTERPARTS, default="ours")
    arguments = parser.parse_args()
    try:
        cells = collect(arguments.folders, at=arguments.at, number=arguments.number)
        published = None if arguments.published is None else read_json(arguments.published)
    except ConfigError as error:
        parser.error(str(error))
    if arguments.json is not None:
        write_atomically(arguments.json, json.dumps(cells, indent=1) + "\n")
    print(table(cells))
    if published is not None:
        print(f"\n{beside(cells, published, arguments.rows)}")


if __name__ == "__main__":
    main()
