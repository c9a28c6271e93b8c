"""The MNIST runs side by side: methods over tasks, and learned mixtures against known ones.

    for seed in 0 1 2; do floral run configs/floral/mnist_rotate.yaml seed=$seed; done
    python experiments/floral/table.py runs/mnist_rotate* --json results.json

Runs of one task that differ in their seed alone make a cell: the last round's test accuracy in per
cent, mean over seeds of the mean over clients of each client's own model on its own images, with
the standard deviation over seeds, and in brackets the clients whose largest weight names their true
group. The last row is a difference paired by seed. Unfinished methods are left out.
"""

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from floral.experiment.yaml_file import load

Cells = dict[str, dict[str, dict[int, dict[str, float]]]]
"""Task, method, seed: accuracy and, with mixtures, agreement."""


def collect(folders: Iterable[Path]) -> Cells:
    """What the finished methods of run folders ended with."""
    cells: Cells = {}
    for folder in folders:
        config = load(folder / "config.yaml")
        for path in sorted(folder.glob("*/summary.json")):
            summary = json.loads(path.read_text(encoding="utf-8"))
            ended = {"accuracy": summary["last"]["test"]["accuracy"]["mean"]}
            agreement = (summary["last"].get("mixture") or {}).get("agreement")
            if agreement is not None:
                ended["agreement"] = agreement
            methods = cells.setdefault(task(config), {})
            methods.setdefault(path.parent.name, {})[summary["seed"]] = ended
    return cells


def task(config: dict[str, Any]) -> str:
    """A name for what a config trains on."""
    data = config["data"]
    images = data["source"].get("variant", "digits")
    kept = data.get("keep", 1.0)
    return f"{images}, {data['shift']['kind']}" + ("" if kept == 1.0 else f", {kept:.0%}")


def spread(values: list[float]) -> str:
    """Mean and standard deviation, in per cent."""
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def cell(seeds: dict[int, dict[str, float]]) -> str:
    """Accuracy over seeds, and the agreement of mixtures."""
    text = spread([ended["accuracy"] for ended in seeds.values()])
    found = [ended["agreement"] for ended in seeds.values() if "agreement" in ended]
    return f"{text} ({100 * statistics.mean(found):.0f})" if found else text


def difference(methods: dict[str, dict[int, dict[str, float]]], one: str, other: str) -> str:
    """One method's accuracy less another's, over the seeds that both have."""
    both = sorted(methods.get(one, {}).keys() & methods.get(other, {}).keys())
    values = [methods[one][s]["accuracy"] - methods[other][s]["accuracy"] for s in both]
    return spread(values) if values else "–"


def table(cells: Cells) -> str:
    """The Markdown table."""
    names = list(dict.fromkeys(name for methods in cells.values() for name in methods))
    seeds = {t: max(len(s) for s in methods.values()) for t, methods in cells.items()}
    heads = [f"{t} ({seeds[t]} seeds)" for t in cells]
    lines = [f"| method | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(cells)]
    for name in names:
        row = [cell(methods[name]) if name in methods else "–" for methods in cells.values()]
        lines.append(f"| `{name}` | {' | '.join(row)} |")
    row = [difference(methods, "floral", "known_clusters") for methods in cells.values()]
    lines.append(f"| `floral` less `known_clusters`, paired | {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    arguments = parser.parse_args()
    cells = collect(arguments.folders)
    if arguments.json is not None:
        unfinished = arguments.json.with_suffix(".new")
        unfinished.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(arguments.json)
    print(table(cells))


if __name__ == "__main__":
    main()
