"""RESULTS.md: what the benches came to, each bar beside what was measured.

    python experiments/bench/results.py --keep cohort cohort.json    # what cohort.py --json wrote
    python experiments/bench/results.py

With ``--keep`` a bench's figures are copied to ``results/<name>.json``; see ``KEPT`` for the names
and the commands. Every call writes ``RESULTS.md`` anew from these files and ``explanations.md``,
which alone is written by hand.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import accelerator
import authors_tasks
import cohort
import first_round
import floor
import goals
import kills
import local_step
import memory
import scaling
import table
import where

from floral.config.reading.yaml_file import write_atomically
from floral.records.record import read_json
from floral.text_table import markdown

__all__ = ["KEPT", "results"]

HERE = Path(__file__).parent


def _toolkits(kept: Mapping[str, Any]) -> str:
    parts = [f"Products run at {kept['rate'] / 1e9:.0f} GFLOP/s a core."]
    for name, least in kept["floors"].items():
        model, cores = name.split(", ")
        rows = table.rows(kept[name], floor_s=least)
        title = f"{model}, {cores} cores, floor {1e3 * least:.1f} ms"
        parts.append(f"{title}\n\n{markdown(table.HEAD, rows)}")
    return "\n\n".join(parts)


def _scaling(kept: Mapping[str, Any]) -> str:
    sweeps = kept["sweeps"].items()
    return "\n\n".join(
        f"{over}\n\n{scaling.table(over, rows, kept['rate'])}" for over, rows in sweeps
    )


KEPT: dict[str, tuple[str, str, Callable[[Any], str]]] = {
    "toolkits": ("Beside other toolkits", "table.py --cores 2", _toolkits),
    "by_hand": (
        "Beside a loop written by hand, on one core and two",
        "table.py --peers jax_by_hand",
        _toolkits,
    ),
    "where_mlp": ("Where a round of the MLP goes", "where.py --model mlp", where.table),
    "where_cnn": ("Where a round of the CNN goes", "where.py --model cnn", where.table),
    "local_step": ("What personalization costs", "local_step.py", local_step.table),
    "local_step_auto": (
        "The same, as `auto` walks clients",
        "local_step.py --walk auto",
        local_step.table,
    ),
    "local_step_10": (
        "The same, with ten adaptors of a tenth of the model",
        "local_step.py --adaptors 10 --budget 0.1",
        local_step.table,
    ),
    "authors_tasks": ("The paper's small tasks", "authors_tasks.py", authors_tasks.table),
    "cohort": ("Drawing a cohort", "cohort.py", cohort.table),
    "first_round": ("The first round", "first_round.py", first_round.table),
    "scaling": ("How it grows", "scaling.py", _scaling),
    "memory": (
        "Memory, predicted and measured",
        "memory.py",
        lambda kept: memory.table(kept["rows"]),
    ),
    "accelerator": ("On one H100", "accelerator.py", accelerator.table),
    "kills": ("Killed a hundred times", "kills.py", kills.table),
}
"""Of each file of ``results``: a title, the command that measures it, and its table."""


def read_kept(folder: Path) -> dict[str, Any]:
    """What a folder of results holds, by name; floors are worked out from the rates beside them."""
    kept = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in KEPT
        if (folder / f"{name}.json").is_file()
    }
    for found in (kept[name] for name in ("toolkits", "by_hand") if name in kept):
        models = [name for name in found if ", " in name]
        found["floors"] = {
            name: floor.operations(name.split(", ")[0]) / found["rate"] / int(name.split(", ")[1])
            for name in models
        }
    return kept


def results(kept: Mapping[str, Any], explanations: str) -> str:
    """RESULTS.md, from what was kept and what is to be said of it."""
    found = list(goals.goals(kept))
    reached = sum(goal.reached for goal in found)
    parts = [
        "# How fast, how large: the benches, run",
        "Made by `python experiments/bench/results.py` from the files in `results/`; only the "
        "explanations after the first table are typed. CPU figures are of a machine of two shared "
        "cores, each table's of one run in which everything takes turns; where nothing else is "
        "said the task is FedAvg over 1,000 clients of 60 images of 28 x 28 x 1, 100 clients a "
        "round, three steps of 20 images each, in float32.",
        "## Asked and measured",
        f"{reached} of {len(found)} bars are met.",
        markdown(["what", "asked", "measured", "met"], [goal.cells() for goal in found]),
        explanations.strip(),
    ]
    for name, (title, command, shown) in KEPT.items():
        if name in kept:
            parts += [f"## {title}", f"`python experiments/bench/{command}`", shown(kept[name])]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("figures", nargs="?", type=Path, help="what a bench wrote")
    parser.add_argument("--keep", choices=KEPT, help="which bench's it is")
    given = parser.parse_args()
    if (given.figures is None) != (given.keep is None):
        parser.error("figures and --keep go together: say which bench they are of")
    folder = HERE / "results"
    if given.keep is not None:
        folder.mkdir(exist_ok=True)
        figures = read_json(given.figures)
        write_atomically(folder / f"{given.keep}.json", json.dumps(figures, indent=1) + "\n")
    explanations = (HERE / "explanations.md").read_text(encoding="utf-8")
    write_atomically(HERE / "RESULTS.md", results(read_kept(folder), explanations))


if __name__ == "__main__":
    main()
