"""RESULTS.md: what the project's configs of the paper's experiments came to, beside the paper.

    python experiments/floral/results.py --keep as_published runs/as_published/*
    python experiments/floral/results.py

With ``--keep`` the finished methods of run folders are written to ``results/<name>.json``, where
runs of earlier calls stay. Every call writes ``RESULTS.md`` anew from these files,
``published.json`` and ``explanations.md``, which alone is written by hand.
"""

import argparse
import json
from pathlib import Path

from cells import Cells, collect
from table import beside, table

from floral.errors import ConfigError
from floral.experiment.record import read_json
from floral.experiment.yaml_file import write_atomically

__all__ = ["results"]

HERE = Path(__file__).parent
SECTIONS = {
    "as_published": "The paper's Table 1, with what its code does (`configs/floral/as_published/`)",
    "ours": "Ours (`configs/floral/mnist_*.yaml`)",
    "mixtures": "What finds mixtures where data are scarce (`configs/floral/mixtures_5.yaml`)",
    "grid": "How many adaptors, and of what rank (`configs/floral/grid_5.yaml`)",
    "uneven": "Groups of unlike sizes (`configs/floral/mnist_*_5.yaml data.shift.sizes=[…]`, "
    "with adaptors in both layers)",
}
BESIDE = ("as_published", "ours")  # sections whose methods the publication has too


def read_cells(path: Path) -> Cells:
    """The cells of a file; none where there is no such file."""
    if not path.is_file():
        return {}
    return {
        task: {
            method: {int(seed): numbers for seed, numbers in seeds.items()}
            for method, seeds in methods.items()
        }
        for task, methods in read_json(path).items()
    }


def joined(old: Cells, new: Cells) -> Cells:
    """The cells of both; new runs take the place of old ones."""
    cells = {task: dict(methods) for task, methods in old.items()}
    for task, methods in new.items():
        for method, seeds in methods.items():
            kept = cells.setdefault(task, {}).get(method, {})
            cells[task][method] = dict(sorted({**kept, **seeds}.items()))
    return cells


def hours(cells: Cells) -> float:
    """How long all runs of the cells took together."""
    runs = [
        run for methods in cells.values() for seeds in methods.values() for run in seeds.values()
    ]
    return sum(run["seconds"] for run in runs) / 3600


def results(folder: Path, explanations: str) -> str:
    """RESULTS.md, from the files of a folder of results and what is to be said of them."""
    published = read_json(HERE / "published.json")
    known = list(published["tasks"])

    def published_first(task: str) -> tuple[int, str]:
        return (known.index(task) if task in known else len(known), task)

    parts = [
        "# The paper's experiments, run\n",
        "Made by `python experiments/floral/results.py`; only the explanations at its end are "
        "typed. Test accuracy in per cent after the last round, mean ± standard deviation over "
        "seeds of the mean over clients; what has no ± is of one seed. In brackets the clients "
        "whose largest weight names their true group. CIFAR-10 and CIFAR-100: **not run**, the "
        "data could not be had; their configs are whole, and tested on made images.\n",
    ]
    spent = 0.0
    for name, title in SECTIONS.items():
        kept = read_cells(folder / f"{name}.json")
        if not kept:
            continue
        cells = {task: kept[task] for task in sorted(kept, key=published_first)}
        parts += [f"## {title}\n", table(cells) + "\n"]
        if name in BESIDE:
            parts.append(beside(cells, published, name) + "\n")
        parts.append(f"These runs took {hours(cells):.1f} hours in all, on one or two CPU cores.\n")
        spent += hours(cells)
    if spent:
        parts.append(f"All tables above: {spent:.1f} hours.\n")
    return "\n".join([*parts, explanations])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="finished runs to keep")
    parser.add_argument("--keep", choices=SECTIONS, help="what the folders are runs of")
    arguments = parser.parse_args()
    if bool(arguments.folders) != (arguments.keep is not None):
        parser.error("run folders and --keep go together: say what they are runs of")
    folder = HERE / "results"
    if arguments.keep is not None:
        path = folder / f"{arguments.keep}.json"
        try:
            cells = joined(read_cells(path), collect(arguments.folders))
        except ConfigError as error:
            parser.error(str(error))
        folder.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(cells, indent=1) + "\n")
    explanations = (HERE / "explanations.md").read_text(encoding="utf-8")
    write_atomically(HERE / "RESULTS.md", results(folder, explanations))


if __name__ == "__main__":
    main()
