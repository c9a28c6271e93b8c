"""Numbers in prose: read from what is kept when the page is made, never typed.

``explanations.md`` names a number in double braces and ``results.py`` puts it there::

    {{ as_released | shift5 | floral }}             mean ± standard deviation over seeds, in %
    {{ as_released | shift5 | floral | mean }}      the mean alone
    {{ as_released | shift5 | floral | seeds }}     how many seeds
    {{ as_released | shift5 | floral | groups }}    % of clients in their true group
    {{ ours | shift5 | floral | less gradient }}    the difference, paired by seed
    {{ grid | shift5 | found_10 | less best }}      from the best of the grid, seed by seed
    {{ range | ours | floral | less fedavg }}       its least and its largest mean over tasks
    {{ published | shift5 | FLoRAL(1%), learned mixtures }}
    {{ agree | as_released }}                       how many cells agree with the publication
    {{ account | released code }}                   its sum of absolute differences, in points

A number of runs that do not say what made them carries the mark that it has in tables. `TASKS` are
the short names of tasks.
"""

import re
import statistics
from collections.abc import Mapping
from typing import Any

from accounts import ACCOUNTS, agreeing, totals
from cells import Cells, Seeds, accuracies
from provenance import marks
from table import spread

from floral import check
from floral.errors import ConfigError

__all__ = ["TASKS", "filled", "typed"]

TASKS = {
    "rotate": "digits, rotate",
    "shift": "digits, label_shift",
    "rotate5": "digits, rotate, 5%",
    "shift5": "digits, label_shift, 5%",
    "fashion rotate": "fashion, rotate",
    "fashion shift": "fashion, label_shift",
    "fashion rotate5": "fashion, rotate, 5%",
    "fashion shift5": "fashion, label_shift, 5%",
}
PLACE = re.compile(r"\{\{([^{}]*)\}\}")
TYPED = re.compile(r"[-−+]?\d+\.\d+|\d ± ?\d")


def filled(text: str, kept: Mapping[str, Cells], published: Mapping[str, Any]) -> str:
    """The text with its numbers.

    Args:
      text: as ``explanations.md``.
      kept: cells by section.
      published: as ``published.json``.

    Raises:
      ConfigError: for a number that nothing kept has.
    """

    def number(place: re.Match[str]) -> str:
        asked = [" ".join(part.split()) for part in place[1].split("|")]
        if asked[0] == "agree":
            near, count = agreeing(_of(kept, asked[1], place), published, asked[1])
            return f"{near} of {count}"
        if asked[0] == "account":
            found = dict(zip(ACCOUNTS, totals(kept, published), strict=True))
            return f"{_of(found, asked[1], place).gap:.1f}"
        if asked[0] == "range":
            return _range(_of(kept, asked[1], place), asked[2], asked[3].removeprefix("less "))
        section, task, row, *what = asked
        if section == "published":
            column = published["columns"].index(published["tasks"][_of(TASKS, task, place)])
            mean, sd = _of(published["rows"], row, place)[column]
            return f"{mean:.1f} ± {sd:.1f}"
        methods = _of(_of(kept, section, place), TASKS.get(task, task), place)
        return _shown(methods, row, " ".join(what), place)

    return PLACE.sub(number, text)


def _shown(methods: Mapping[str, Seeds], row: str, what: str, place: re.Match[str]) -> str:
    """A number of a method's runs, with its marks."""
    runs = _of(methods, row, place)
    if what == "":
        return spread(accuracies(runs).values()) + marks(runs.values())
    if what == "mean":
        return f"{statistics.mean(accuracies(runs).values()):.1f}" + marks(runs.values())
    if what == "seeds":
        return str(len(runs))
    if what == "groups":
        return f"{100 * statistics.mean(run['agreement'] for run in runs.values()):.0f}"
    if what.startswith("less "):
        other = what.removeprefix("less ")
        beside = _best(methods) if other == "best" else _of(methods, other, place)
        ours, theirs = accuracies(runs), accuracies(beside)
        gaps = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
        mean, sd = statistics.mean(gaps), statistics.stdev(gaps) if len(gaps) > 1 else None
        text = signed(mean) if sd is None else f"{signed(mean)} ± {sd:.1f}"
        return text + marks([*runs.values(), *beside.values()])
    raise ConfigError(
        f"explanations.md: {place[0]} asks for {what!r}, which is no number of a cell"
    )


def _range(cells: Cells, one: str, other: str) -> str:
    """The least and the largest mean difference over the tasks that have both methods."""
    runs = [
        (methods[one], methods[other])
        for methods in cells.values()
        if {one, other} <= methods.keys()
    ]
    means = [
        statistics.mean(
            accuracies(ours)[seed] - accuracies(theirs)[seed]
            for seed in ours.keys() & theirs.keys()
        )
        for ours, theirs in runs
    ]
    marked = marks(run for pair in runs for seeds in pair for run in seeds.values())
    return f"{signed(min(means))} to {signed(max(means))}{marked}"


def signed(value: float) -> str:
    """With one decimal; what rounds to zero is +0.0."""
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")


def _best(methods: Mapping[str, Seeds]) -> Seeds:
    """Seed by seed the best cell of the grid, whose methods are called by their count."""
    grid = [runs for name, runs in methods.items() if re.fullmatch(r"c\d+_\d+", name)]
    return {
        seed: max((runs[seed] for runs in grid), key=lambda run: run["accuracy"])
        for seed in grid[0]
    }


def _of(known: Mapping[str, Any], name: str, place: re.Match[str]) -> Any:
    if name not in known:
        raise ConfigError(
            f"explanations.md: {place[0]} names {name!r}, which nothing kept has"
            + check.did_you_mean(name, known)
        )
    return known[name]


def typed(text: str) -> list[str]:
    """The numbers of a text that are typed, if they have decimals or a deviation."""
    return TYPED.findall(PLACE.sub("", text))
