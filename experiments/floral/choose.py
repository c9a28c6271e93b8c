"""How many adaptors and of what rank, chosen without an oracle, beside the whole grid.

    for seed in 0 1 2; do floral run configs/floral/grid_5.yaml seed=$seed; done
    python experiments/floral/choose.py runs/grid_5*

The way to choose: train a bank of eight at both ranks, which rests the adaptors beyond the groups
that the data show (``find_count``), for a share of the rounds; go on with the one that validates
better there. Printed for every seed: what that comes to on test data, the best cell of the grid on
test data, which no one could have known, and the choice's operations as a share of the grid's. Then
the grid itself, mean over seeds.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from table import spread

from floral.errors import ConfigError
from floral.experiment.record import read_json, read_lines
from floral.text_table import markdown

__all__ = ["Choice", "choose"]

COUNTED = ("floral", "found_10")  # eight adaptors, those that are not needed at rest
COUNTS, BUDGETS = (1, 2, 4, 8), (1, 10)


class Choice(NamedTuple):
    """One seed's.

    Attributes:
      chosen: the method that was gone on with.
      groups: how many groups its data showed.
      test: its last test accuracy, in per cent.
      oracle: the cell of the grid whose last test accuracy is largest.
      oracle_test: that accuracy.
      cost: operations of choosing and training, over those of all cells of the grid.
    """

    chosen: str
    groups: int
    test: float
    oracle: str
    oracle_test: float
    cost: float


def choose(folder: Path, *, share: float = 0.2) -> Choice:
    """The choice in a run folder of ``configs/floral/grid_5.yaml``.

    Args:
      folder: with every method finished.
      share: of the rounds that both ranks are trained for.
    """
    grid = {name: ended(folder / name) for name in cells()}
    tried = {name: ended(folder / name) for name in COUNTED}
    when = share * tried["floral"]["rounds"]
    chosen = max(COUNTED, key=lambda name: validated(folder / name, when))
    oracle = max(grid, key=lambda name: tested(grid[name]))
    work = {name: run["costs"]["operations"] for name, run in (grid | tried).items()}
    spent = share * sum(work[name] for name in COUNTED) + (1 - share) * work[chosen]
    return Choice(
        chosen=chosen,
        groups=int(tried[chosen]["last"]["mixture"]["groups"]),
        test=tested(tried[chosen]),
        oracle=oracle,
        oracle_test=tested(grid[oracle]),
        cost=spent / sum(work[name] for name in grid),
    )


def cells() -> list[str]:
    return [f"c{count}_{budget}" for budget in BUDGETS for count in COUNTS]


def ended(place: Path) -> dict[str, Any]:
    if not (place / "summary.json").is_file():
        raise ConfigError(f"{place}: not finished; go on with floral resume {place.parent}")
    return read_json(place / "summary.json")


def tested(run: dict[str, Any]) -> float:
    return 100 * run["last"]["test"]["accuracy"]["mean"]


def validated(place: Path, when: float) -> float:
    """Validation accuracy at the last evaluation up to a round."""
    lines = [line for line in read_lines(place / "metrics.jsonl") if "evaluation" in line]
    before = [line["evaluation"] for line in lines if line["round"] <= when]
    if not before:
        raise ConfigError(f"{place}: nothing was evaluated up to round {when:g}")
    return before[-1]["validation"]["accuracy"]["mean"]


def report(folders: list[Path], share: float) -> str:
    """Both tables, as Markdown."""
    choices = {folder.name: choose(folder, share=share) for folder in folders}
    rows = [
        [
            name,
            f"`{c.chosen}`, {c.groups} groups",
            f"{c.test:.1f}",
            f"`{c.oracle}`",
            f"{c.oracle_test:.1f}",
            f"{c.test - c.oracle_test:+.1f}",
            f"{c.cost:.0%}",
        ]
        for name, c in choices.items()
    ]
    head = ["run", "chosen", "test", "best of the grid", "test", "difference", "cost"]
    grid = [
        [f"{budget} %"]
        + [spread([tested(ended(f / f"c{c}_{budget}")) for f in folders]) for c in COUNTS]
        + [spread([tested(ended(f / name)) for f in folders])]
        for budget, name in zip(BUDGETS, COUNTED, strict=True)
    ]
    counts = ["rank's budget", *(f"C = {count}" for count in COUNTS), "counted, of 8"]
    return f"{markdown(head, rows, texts=2)}\n\n{markdown(counts, grid)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="runs of one task, seed by seed")
    parser.add_argument("--share", type=float, default=0.2, help="of the rounds, to choose in")
    arguments = parser.parse_args()
    try:
        print(report(arguments.folders, arguments.share))
    except ConfigError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
