"""How long the first round takes: from nothing, and from a folder of compiled programs.

    python experiments/bench/first_round.py     # a minute; a Markdown table

Each figure is of a fresh process that does the task of ``task.py`` in this toolkit: the time of its
first round, compilation included, when JAX has started and the data are in memory. ``cold`` has no
cache of compilations, ``warm`` the one that an earlier process left, as every run of the command
line has by default. Medians over processes.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import task
import workers

from floral.text_table import markdown

__all__ = ["first_round"]

SCRIPT = Path(__file__).parent / "peers" / "floral_run.py"


def first_round(model: str, *, cache: Path | None, cores: int, folder: Path) -> float:
    """Seconds of the first round of a fresh process.

    Args:
      model: ``mlp`` or ``cnn``.
      cache: where compiled programs are kept; None for nowhere.
      cores: that it may use.
      folder: where the task and the logs are kept.
    """
    own = () if cache is None else ("--warm", str(cache))
    worker = workers.Worker("floral", Path(sys.executable), SCRIPT, own)
    measured = workers.measure([worker], model=model, cores=cores, repeats=0, folder=folder)
    return measured["floral"]["ready"]["first_round_s"]


def table(figures: dict[str, dict[str, float]]) -> str:
    """A Markdown table of seconds."""
    rows = [
        [model, *(f"{row[how]:.1f}" for how in ("cold", "warm"))] for model, row in figures.items()
    ]
    return markdown(["model", "cold, s", "warm, s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="processes for each figure")
    parser.add_argument("--folder", type=Path, default=task.CACHE)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for model in task.MODELS:
        with tempfile.TemporaryDirectory() as cache:
            settings = {"cores": given.cores, "folder": given.folder}
            first_round(model, cache=Path(cache), **settings)  # fills it
            figures[model] = {
                name: statistics.median(
                    first_round(model, cache=where, **settings) for _ in range(given.repeats)
                )
                for name, where in (("cold", None), ("warm", Path(cache)))
            }
    print(table(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
