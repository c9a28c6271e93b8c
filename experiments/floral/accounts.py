"""Which account of FLoRAL comes nearest to the published table: the released code's, or the text's.

    python experiments/floral/accounts.py

The released code departs from the paper's text in how far the server moves adaptors (a tenth of the
way) and in noise on logits, besides a floor under weights and biases that start at random. Every
published FLoRAL cell of MNIST stands beside five accounts: the released code, without its noise,
with a bank that moves all the way, with both of these, and the text. Known groups have no noise.
The last rows add up absolute differences over the cells that all accounts have, and count those
beyond two standard errors.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cells import Cells, Seeds, accuracies
from kept import read_cells
from provenance import marks
from table import FAR, spread

from floral.metrics import over_seeds, welch
from floral.records.record import read_json
from floral.text_table import markdown

__all__ = ["ACCOUNTS", "Total", "accounts", "agreeing", "totals"]

HERE = Path(__file__).parent
ROWS = {
    "floral": "FLoRAL(1%), learned mixtures",
    "floral_known": "FLoRAL(1%), known groups",
    "floral_10": "FLoRAL(10%), learned mixtures",
    "floral_10_known": "FLoRAL(10%), known groups",
}
ACCOUNTS = {
    "released code": ("", ""),
    "without noise": ("_quiet", ""),
    "bank moves all the way": ("_whole", "_whole"),
    "both": ("_whole_quiet", "_whole"),
    "the paper's text": None,
}
"""How the method's name ends in ``released_variants``: learned mixtures, and known groups."""


def runs_of(account: str, task: str, method: str, kept: Mapping[str, Cells]) -> Seeds:
    """The runs of an account's cell; none where there are none."""
    ends = ACCOUNTS[account]
    if ends is None:
        section = "as_published"
    else:
        end = ends[method.endswith("known")]
        section, method = ("released_variants", method + end) if end else ("as_released", method)
    return kept.get(section, {}).get(task, {}).get(method, {})


def accounts(kept: Mapping[str, Cells], published: Mapping[str, Any]) -> str:
    """The table, as Markdown."""
    rows = []
    for task, method, theirs in published_cells(published):
        found = [runs_of(account, task, method, kept) for account in ACCOUNTS]
        cells = [beside(runs, theirs) for runs in found]
        column, shown = published["tasks"][task], f"{theirs[0]:.1f} ± {theirs[1]:.1f}"
        rows.append([column, ROWS[method], shown, *cells])
    sums = totals(kept, published)
    over = f"{sums[0].cells} cells that all have"
    gaps, far = [f"{total.gap:.1f}" for total in sums], [str(total.far) for total in sums]
    rows.append(["sum of absolute differences", over, "", *gaps])
    rows.append([f"beyond {FAR:g} standard errors", over, "", *far])
    return markdown(["task", "method", "published", *ACCOUNTS], rows, texts=2)


class Total(NamedTuple):
    """An account over the cells that all accounts have.

    Attributes:
      cells: how many these are.
      gap: the sum of absolute differences from the publication, in points.
      far: how many are beyond two standard errors.
    """

    cells: int
    gap: float
    far: int


def totals(kept: Mapping[str, Cells], published: Mapping[str, Any]) -> list[Total]:
    """Of every account, in the order of `ACCOUNTS`."""
    shared = []
    for task, method, theirs in published_cells(published):
        found = [runs_of(account, task, method, kept) for account in ACCOUNTS]
        if all(found):
            shared.append([gap_of(runs, theirs) for runs in found])
    sides = zip(*shared, strict=True) if shared else [[] for _ in ACCOUNTS]
    return [
        Total(len(shared), sum(abs(gap) for gap, _ in side), sum(far for _, far in side))
        for side in map(list, sides)
    ]


def agreeing(cells: Cells, published: Mapping[str, Any], which: str) -> tuple[int, int]:
    """How many of a section's cells are within two standard errors of the publication, and of
    how many."""
    far = []
    for task, column in published["tasks"].items():
        place = published["columns"].index(column)
        for method, counterpart in published["counterparts"][which].items():
            runs = cells.get(task, {}).get(method, {})
            if runs:
                theirs = (*published["rows"][counterpart["row"]][place], published["seeds"])
                far.append(gap_of(runs, theirs)[1])
    return len(far) - sum(far), len(far)


def published_cells(
    published: Mapping[str, Any],
) -> Iterator[tuple[str, str, tuple[float, float, int]]]:
    """Task, method and published mean, standard deviation and seeds of every FLoRAL cell."""
    for task, column in published["tasks"].items():
        place = published["columns"].index(column)
        for method, row in ROWS.items():
            yield task, method, (*published["rows"][row][place], published["seeds"])


def gap_of(runs: Seeds, theirs: tuple[float, float, int]) -> tuple[float, bool]:
    """Measured less published, and whether that is far; never of one seed."""
    values = list(accuracies(runs).values())
    if len(values) < 2:
        return values[0] - theirs[0], False
    ours = over_seeds(values)
    found = welch((ours.mean, ours.sd, ours.size), theirs)
    return found.mean, abs(found.mean) > FAR * found.error


def beside(runs: Seeds, theirs: tuple[float, float, int]) -> str:
    """Mean ± standard deviation, seeds, and the difference from the publication."""
    if not runs:
        return "–"
    gap, far = gap_of(runs, theirs)
    text = f"**{gap:+.1f}**" if far else f"{gap:+.1f}"
    return f"{spread(accuracies(runs).values())}{marks(runs.values())} ({len(runs)}) {text}"


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    sections = ("as_released", "released_variants", "as_published")
    kept = {name: read_cells(HERE / f"results/{name}.json") for name in sections}
    print(accounts(kept, read_json(HERE / "published.json")))


if __name__ == "__main__":
    main()
