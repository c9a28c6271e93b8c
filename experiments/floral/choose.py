"""How many adaptors and of what rank, chosen without an oracle, beside the whole grid.

    python experiments/floral/rerun.py --only grid
    python experiments/floral/choose.py
    python experiments/floral/choose.py runs/grid_5*

Of what is kept in ``results/grid.json``, or of run folders of one task. Choices among the former
are kept in ``results/claims/choose.json``, seed by seed.

The way to choose: train a bank of eight at both ranks, which rests the adaptors beyond the groups
that the data show (``find_count``), for a share of the rounds; go on with the one that validates
better there. Printed for every seed: what that comes to on test data, the best cell of the grid on
test data, which no one could have known, and the choice's operations as a share of the grid's; the
difference of the two over seeds; then the grid itself.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cells import Cells, Seeds
from kept import keep, read_cells
from provenance import digest
from table import spread

from floral.errors import ConfigError
from floral.records.record import read_json, read_lines
from floral.text_table import markdown

__all__ = ["CHOSEN", "Choice", "Trained", "choose", "trained"]

RESULTS = Path(__file__).parent / "results"
KEPT, CHOSEN = RESULTS / "grid.json", RESULTS / "claims/choose.json"
SHARE = 0.2  # of the rounds, to choose in; choices by another are not kept

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


class Trained(NamedTuple):
    """A method's run.

    Attributes:
      rounds: how many it had.
      test: its last test accuracy, in per cent.
      operations: of its training.
      groups: how many groups its data showed; 0 if nobody looked.
      validated: validation accuracy by round.
    """

    rounds: int
    test: float
    operations: float
    groups: int
    validated: dict[int, float]


def choose(source: Path | Mapping[str, Trained], *, share: float = SHARE) -> Choice:
    """The choice in a run of ``configs/floral/grid_5.yaml``.

    Args:
      source: its folder with every method finished, or its methods.
      share: of the rounds that both ranks are trained for.
    """
    runs = folder_runs(source) if isinstance(source, Path) else source
    when = share * runs["floral"].rounds
    chosen = max(COUNTED, key=lambda name: validated(name, runs[name], when))
    oracle = max(cells(), key=lambda name: runs[name].test)
    spent = share * sum(runs[name].operations for name in COUNTED)
    spent += (1 - share) * runs[chosen].operations
    return Choice(
        chosen=chosen,
        groups=runs[chosen].groups,
        test=runs[chosen].test,
        oracle=oracle,
        oracle_test=runs[oracle].test,
        cost=spent / sum(runs[name].operations for name in cells()),
    )


def cells() -> list[str]:
    return [f"c{count}_{budget}" for budget in BUDGETS for count in COUNTS]


def trained(place: Path) -> Trained:
    """A method's run, from its folder.

    Raises:
      ConfigError: if it is not finished.
    """
    if not (place / "summary.json").is_file():
        raise ConfigError(f"{place}: not finished; go on with floral resume {place.parent}")
    summary = read_json(place / "summary.json")
    lines = [line for line in read_lines(place / "metrics.jsonl") if "evaluation" in line]
    return Trained(
        rounds=summary["rounds"],
        test=100 * summary["last"]["test"]["accuracy"]["mean"],
        operations=summary["costs"]["operations"],
        groups=int((summary["last"].get("mixture") or {}).get("groups") or 0),
        validated={
            line["round"]: line["evaluation"]["validation"]["accuracy"]["mean"] for line in lines
        },
    )


def folder_runs(folder: Path) -> dict[str, Trained]:
    return {name: trained(folder / name) for name in (*cells(), *COUNTED)}


def kept_runs(kept: Cells) -> dict[str, dict[int, dict[str, Trained]]]:
    """By task and seed the runs of a kept grid, where every method has what a choice needs."""
    found = {}
    for task, methods in kept.items():
        names = (*cells(), *COUNTED)
        whole = [
            seed
            for seed in methods.get("floral", {})
            if all("choice" in methods.get(name, {}).get(seed, {}) for name in names)
        ]
        found[task] = {
            seed: {name: restored(methods[name][seed]["choice"]) for name in names}
            for seed in whole
        }
    return {task: runs for task, runs in found.items() if runs}


def restored(choice: Mapping[str, Any]) -> Trained:
    """What `Trained` was before JSON made words of its rounds."""
    by_round = {int(when): value for when, value in choice["validated"].items()}
    return Trained(**{**choice, "validated": by_round})


def made(methods: Mapping[str, Seeds], seed: int) -> dict[str, Any]:
    """What made a seed's choice: what made the runs that it is of, taken together."""
    runs = {name: methods[name][seed] for name in (*cells(), *COUNTED)}
    of = {name: run["made"] for name, run in runs.items()}
    return {
        "seconds": round(sum(run["seconds"] for run in runs.values()), 1),
        "made": {
            "commit": ", ".join(sorted({one["commit"] for one in of.values()})),
            "config": digest({name: one["config"] for name, one in of.items()}),
            "versions": of["floral"]["versions"],
            "command": "python experiments/floral/choose.py",
        },
    }


def keep_choices(kept: Cells, share: float, path: Path = CHOSEN) -> None:
    """Writes the choices of a kept grid, by task and seed."""
    found = {
        task: {
            seed: {**choose(runs, share=share)._asdict(), **made(kept[task], seed)}
            for seed, runs in by_seed.items()
        }
        for task, by_seed in kept_runs(kept).items()
    }
    keep(path, {task: {"choice": seeds} for task, seeds in found.items()})


def validated(name: str, run: Trained, when: float) -> float:
    """Validation accuracy at the last evaluation up to a round."""
    before = [taken for taken in run.validated if taken <= when]
    if not before:
        raise ConfigError(f"{name}: nothing was evaluated up to round {when:g}")
    return run.validated[max(before)]


def report(sources: Mapping[str, Path | Mapping[str, Trained]], share: float) -> str:
    """All tables of one task, as Markdown."""
    runs = {
        name: folder_runs(source) if isinstance(source, Path) else source
        for name, source in sources.items()
    }
    choices = {name: choose(methods, share=share) for name, methods in runs.items()}
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
    gaps = spread(c.test - c.oracle_test for c in choices.values())
    grid = [
        [f"{budget} %"]
        + [spread(methods[f"c{c}_{budget}"].test for methods in runs.values()) for c in COUNTS]
        + [spread(methods[name].test for methods in runs.values())]
        for budget, name in zip(BUDGETS, COUNTED, strict=True)
    ]
    counts = ["rank's budget", *(f"C = {count}" for count in COUNTS), "counted, of 8"]
    difference = f"Difference over seeds: {gaps} points."
    return f"{markdown(head, rows, texts=2)}\n\n{difference}\n\n{markdown(counts, grid)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="runs of one task, seed by seed")
    parser.add_argument("--share", type=float, default=SHARE, help="of the rounds, to choose in")
    given = parser.parse_args()
    try:
        if given.folders:
            print(report({folder.name: folder for folder in given.folders}, given.share))
            return
        kept = read_cells(KEPT)
        found = kept_runs(kept)
        if not found:
            parser.error(
                f"{KEPT}: no run with what a choice needs; rerun.py --only grid makes them"
            )
        if given.share == SHARE:
            keep_choices(kept, given.share)
        for task, runs in found.items():
            named = {f"seed {seed}": methods for seed, methods in runs.items()}
            print(f"{task}\n\n{report(named, given.share)}\n")
    except ConfigError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
