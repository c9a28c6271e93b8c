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
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from floral.errors import ConfigError
from floral.experiment.history import CHOICES
from floral.experiment.record import read_json, read_lines
from floral.experiment.yaml_file import load
from floral.metrics import between_seeds, over_seeds, welch

Seeds = dict[int, dict[str, float]]
"""By seed: accuracy and, with mixtures, agreement."""

Cells = dict[str, dict[str, Seeds]]
"""By task and method."""

PAIRS = (("floral", "known_clusters"), ("floral", "gradient"))
FAR = 2.0  # standard errors


def collect(folders: Iterable[Path], *, at: str = "last", number: str = "mean") -> Cells:
    """What the finished methods of run folders came to.

    Raises:
      ConfigError: if two runs of a cell have the same seed, or differ in more than their seeds.
    """
    cells: Cells = {}
    kept: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        name = task(load(folder / "config.yaml"))
        for path in sorted(folder.glob("*/summary.json")):
            place, seed = path.parent, read_json(path)["seed"]
            settings = but_seed(load(place / "config.yaml"))
            first, expected = kept.setdefault((name, place.name), (place, settings))
            if settings != expected:
                other = [key for key in settings if settings[key] != expected.get(key)]
                raise ConfigError(
                    f"{place}: differs from {first} in {', '.join(other) or 'its keys'}, and not "
                    "in its seed alone; make a table of each"
                )
            seeds = cells.setdefault(name, {}).setdefault(place.name, {})
            if seed in seeds:
                raise ConfigError(f"{place}: there is another run of {name} with seed {seed}")
            seeds[seed] = ended(place, at, number)
    return cells


def but_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what differs from seed to seed: the data's seed follows the run's."""
    return {
        key: but_seed(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in ("seed", "start_from")
    }


def ended(place: Path, at: str, number: str) -> dict[str, float]:
    """A method's accuracy and agreement."""
    try:
        numbers = CHOICES[at](read_lines(place / "metrics.jsonl"))
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    accuracy = numbers["test"]["accuracy"]
    if number not in accuracy:
        raise ConfigError(f"{place}: recorded no {number!r}, but {', '.join(accuracy)}")
    agreement = (numbers.get("mixture") or {}).get("agreement")
    return {"accuracy": accuracy[number]} | ({} if agreement is None else {"agreement": agreement})


def task(config: Mapping[str, Any]) -> str:
    """A name for what a config trains on."""
    data = config["data"]
    images = data["source"].get("variant", "digits")
    kept = data.get("keep", 1.0)
    return f"{images}, {data['shift']['kind']}" + ("" if kept == 1.0 else f", {kept:.0%}")


def accuracies(seeds: Seeds) -> dict[int, float]:
    """By seed, in per cent."""
    return {seed: 100 * numbers["accuracy"] for seed, numbers in seeds.items()}


def spread(values: Iterable[float]) -> str:
    """Mean and standard deviation; the mean alone of one seed."""
    values = list(values)
    if len(values) < 2:
        return f"{values[0]:.1f}"
    found = over_seeds(values)
    return f"{found.mean:.1f} ± {found.sd:.1f}"


def cell(seeds: Seeds) -> str:
    """Accuracy over seeds, and the agreement of mixtures."""
    text = spread(accuracies(seeds).values())
    found = [numbers["agreement"] for numbers in seeds.values() if "agreement" in numbers]
    return f"{text} ({100 * statistics.mean(found):.0f})" if found else text


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


def probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(cells: Cells) -> str:
    """The Markdown table."""
    names = list(dict.fromkeys(name for methods in cells.values() for name in methods))
    seeds = {t: max(len(s) for s in methods.values()) for t, methods in cells.items()}
    rows = [
        [f"`{name}`", *(cell(m[name]) if name in m else "–" for m in cells.values())]
        for name in names
    ]
    rows += [
        [f"`{one}` less `{other}`, paired", *(difference(m, one, other) for m in cells.values())]
        for one, other in PAIRS
    ]
    heads = [f"{t} ({seeds[t]} seed{'s' if seeds[t] > 1 else ''})" for t in cells]
    return markdown(["method", *heads], rows, texts=1)


def beside(cells: Cells, published: Mapping[str, Any]) -> str:
    """Every cell that a publication has too, as a Markdown table, and what to know about it.

    Args:
      cells: what was measured.
      published: as in ``published.json``: under ``counterparts`` the row that stands for a method,
        and where the two are not the same method, in what it ``differs``.
    """
    rows, notes = [], list[str]()
    for name, column in published["tasks"].items():
        for method, counterpart in published["counterparts"].items():
            if method not in cells.get(name, {}):
                continue
            label, differs = f"`{method}`", counterpart.get("differs")
            if differs is not None:
                notes += [differs] if differs not in notes else []
                label += f" ({notes.index(differs) + 1})"
            place = published["columns"].index(column)
            theirs = (*published["rows"][counterpart["row"]][place], published["seeds"])
            values = list(accuracies(cells[name][method]).values())
            rows.append([column, label, counterpart["row"], *compared(values, theirs)])
    head = ["task", "method", "as", "measured", "published", "difference", "in s.e.", "p"]
    lines = [
        f"Published: {published['source']}; {published['protocol']}.",
        f"In brackets how many seeds; bold beyond {FAR:g} standard errors of the difference. With "
        "three seeds on each side chance alone takes one cell of five to nine there, as p tells.",
        *(f"({index}) {note}." for index, note in enumerate(notes, 1)),
    ]
    return markdown(head, rows, texts=3) + "\n\n" + "\n".join(lines)


def compared(values: list[float], theirs: tuple[float, float, int]) -> list[str]:
    """Measured, published, difference, in standard errors, p; the last two of several seeds."""
    mean, sd, count = theirs
    shown = [f"{spread(values)} ({len(values)})", f"{mean:.1f} ± {sd:.1f} ({count})"]
    if len(values) < 2:
        return [*shown, f"{values[0] - mean:+.1f}", "–", "–"]
    ours = over_seeds(values)
    found = welch((ours.mean, ours.sd, ours.size), theirs)
    if found.error == 0:
        return [*shown, f"{found.mean:+.1f}", "–", "–"]
    errors = found.mean / found.error
    text = f"**{errors:+.1f}**" if abs(errors) > FAR else f"{errors:+.1f}"
    return [*shown, f"{found.mean:+.1f}", text, probability(found.p)]


def markdown(head: list[str], rows: list[list[str]], *, texts: int) -> str:
    """A table whose first columns are texts and whose others are numbers."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--at", choices=CHOICES, default="last", help="which rounds count")
    parser.add_argument("--number", default="mean", help="which number of clients' accuracies")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    parser.add_argument("--published", type=Path, help="also print a table beside these numbers")
    arguments = parser.parse_args()
    try:
        cells = collect(arguments.folders, at=arguments.at, number=arguments.number)
        published = None if arguments.published is None else read_json(arguments.published)
    except ConfigError as error:
        parser.error(str(error))
    if arguments.json is not None:
        unfinished = arguments.json.with_suffix(".new")
        unfinished.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(arguments.json)
    print(table(cells))
    if published is not None:
        print(f"\n{beside(cells, published)}")


if __name__ == "__main__":
    main()
