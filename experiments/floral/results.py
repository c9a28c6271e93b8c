"""RESULTS.md: what the project's configs of the paper's experiments came to, beside the paper.

    python experiments/floral/results.py --keep ours runs/mnist_rotate-* \\
        --command "floral run configs/floral/mnist_rotate.yaml seed=SEED"
    python experiments/floral/results.py

With ``--keep`` the finished methods of run folders are written to ``results/<name>.json``, with
what made them (``provenance.py``); runs of earlier calls stay there. ``rerun.py`` runs and keeps in
one. Every call writes ``RESULTS.md`` anew from these files, ``published.json`` and
``explanations.md``, which alone is written by hand.
"""

import argparse
from pathlib import Path

from accounts import accounts
from cells import Cells, collect
from kept import keep, read_cells
from prose import filled
from provenance import legend, marks
from table import beside, table

from floral.config.reading.yaml_file import write_atomically
from floral.errors import ConfigError
from floral.records.record import read_json

__all__ = ["results"]

HERE = Path(__file__).parent
SECTIONS = {
    "as_released": "The paper's Table 1, by the released code (`configs/floral/as_released/`)",
    "released_variants": "The released code without its bank rate, its noise, or both "
    "(`configs/floral/as_released/bank_rate_and_noise*.yaml`)",
    "as_published": "The paper's Table 1, by its text (`configs/floral/as_published/`)",
    "ours": "Ours (`configs/floral/mnist_*.yaml`)",
    "mixtures": "What finds mixtures where data are scarce (`configs/floral/mixtures_5.yaml`)",
    "grid": "How many adaptors, and of what rank (`configs/floral/grid_5.yaml`)",
    "uneven": "Groups of unlike sizes (`configs/floral/uneven_5.yaml`)",
    "bank_rate": "How far the server moves adaptors: accuracy on *validation* data "
    "(`configs/floral/bank_rate_5.yaml`)",
}
BESIDE = (
    "as_released",
    "released_variants",
    "as_published",
    "ours",
)  # sections whose methods the publication has too


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
        "Made by `python experiments/floral/results.py`, which also puts the numbers into the "
        "explanations at its end. Test accuracy in per cent after the last round, mean ± standard "
        "deviation over seeds of the mean over clients; what has no ± is of one seed, and n says "
        "how many seeds a cell has if not as many as the head of its column. In brackets the "
        "clients whose largest weight names their true group. CIFAR-10 and CIFAR-100: **not run**, "
        "the data could not be had; their configs are whole, and tested on made images.\n",
    ]
    spent = 0.0
    sections = {name: read_cells(folder / f"{name}.json") for name in SECTIONS}
    for name, kept in sections.items():
        if not kept:
            continue
        title = SECTIONS[name]
        cells = {task: kept[task] for task in sorted(kept, key=published_first)}
        parts += [f"## {title}\n", table(cells, marks) + "\n"]
        if name in BESIDE:
            parts.append(beside(cells, published, name, marks) + "\n")
        parts += [f"{line}\n" for line in legend(kept)]
        parts.append(f"These runs took {hours(cells):.1f} hours in all, on one or two CPU cores.\n")
        spent += hours(cells)
    if spent:
        parts.append(f"All tables above: {spent:.1f} hours.\n")
        parts.append("## Which account of FLoRAL fits the publication (`accounts.py`)\n")
        parts.append(accounts(sections, published) + "\n")
    return "\n".join([*parts, filled(explanations, sections, published)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="finished runs to keep")
    parser.add_argument("--keep", choices=SECTIONS, help="what the folders are runs of")
    parser.add_argument("--command", help="what ran the folders")
    arguments = parser.parse_args()
    given = {bool(arguments.folders), arguments.keep is not None, arguments.command is not None}
    if len(given) > 1:
        parser.error(
            "folders, --keep and --command go together: say what they are, and what ran them"
        )
    folder = HERE / "results"
    if arguments.keep is not None:
        path = folder / f"{arguments.keep}.json"
        try:
            keep(path, collect(arguments.folders, command=arguments.command))
        except ConfigError as error:
            parser.error(str(error))
    explanations = (HERE / "explanations.md").read_text(encoding="utf-8")
    write_atomically(HERE / "RESULTS.md", results(folder, explanations))


if __name__ == "__main__":
    main()
