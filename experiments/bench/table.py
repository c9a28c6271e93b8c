"""The speed benchmark's table: this toolkit beside the others, taking turns on one machine.

    python experiments/bench/table.py                    # about half an hour, mostly making venvs
    python experiments/bench/table.py --models mlp --peers jax_by_hand torch_loop

Every toolkit runs the same task (``task.py``) in an environment of its own (``environments.py``),
one round each in turn (``workers.py``). The floor is that of ``floor.py``. Writes ``results.json``
and ``results.md`` beside the task's cache; a table of samples taken beside other load says so in
every row that has too few quiet ones, and such rows are not to be quoted.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import environments
import floor
import task
import workers

from floral.text_table import markdown

__all__ = ["HEAD", "compare", "own", "rows"]

HERE = Path(__file__).parent
ENOUGH = 3  # quiet samples for a row that may be quoted
HEAD = ["toolkit", "round, ms", "lowest to highest", "× floral", "× floor", "CPU, ms"]
HEAD += ["evaluation, ms", "first round, s", "loss differs by", "quiet samples"]


def own() -> workers.Worker:
    """This toolkit's worker, in the environment that runs this script."""
    return workers.Worker("floral", Path(sys.executable), HERE / "peers" / "floral_run.py")


def compare(
    model: str, peers: list[str], *, cores: int, repeats: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """What each toolkit's round and evaluation took; the floor beside them."""
    everyone = [own(), *(workers.peer(name, folder) for name in peers)]
    measured = workers.measure(
        everyone,
        model=model,
        cores=cores,
        repeats=repeats,
        rounds=5 if model == "mlp" else 1,
        evaluate=True,
        folder=folder,
    )
    return {
        name: {
            "round": workers.summary(result["round"]),
            "evaluate": workers.summary(result["evaluate"]),
            "first": result["ready"]["first_round_s"],
            "versions": result["ready"]["versions"],
            "losses": result["losses"],
        }
        for name, result in measured.items()
    }


def rows(results: dict[str, Any], *, floor_s: float) -> list[list[str]]:
    """One row a toolkit: its times, and how often as long as this toolkit's and the floor."""
    ours = results["floral"]
    table = []
    for name, result in results.items():
        took, evaluated = result["round"], result["evaluate"]
        loss = (
            max(abs(a - b) for a, b in zip(result["losses"], ours["losses"], strict=True))
            if None not in result["losses"]
            else None
        )
        table.append(
            [
                name,
                f"{1e3 * took['median']:.1f}",
                f"{1e3 * took['lowest']:.1f} to {1e3 * took['highest']:.1f}",
                f"{took['median'] / ours['round']['median']:.2f}",
                f"{took['median'] / floor_s:.2f}",
                f"{1e3 * took['cpu']:.0f}",
                "–" if evaluated is None else f"{1e3 * evaluated['median']:.0f}",
                f"{result['first']:.1f}",
                "–" if loss is None else f"{loss:.0e}",
                f"{took['quotable']} of {took['samples']}"
                + ("" if took["quotable"] >= ENOUGH else ", not to be quoted"),
            ]
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="the speed benchmark's table")
    parser.add_argument("--models", nargs="+", default=["mlp", "cnn"], choices=tuple(task.MODELS))
    parser.add_argument("--peers", nargs="*", default=list(workers.PEERS), choices=workers.PEERS)
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=task.CACHE)
    given = parser.parse_args()
    for name in given.peers:
        environments.python(name, given.folder)  # made before anything is measured
    rate = floor.product_rate()
    results: dict[str, Any] = {"rate": rate}
    sections = [f"Products run at {rate / 1e9:.0f} GFLOP/s a core.\n"]
    for model in given.models:
        for cores in given.cores:
            found = compare(
                model, given.peers, cores=cores, repeats=given.repeats, folder=given.folder
            )
            results[f"{model}, {cores}"] = found
            least = floor.operations(model) / rate / cores
            title = f"{model}, {cores} cores, floor {1e3 * least:.1f} ms"
            sections.append(f"{title}\n\n{markdown(HEAD, rows(found, floor_s=least))}\n")
            print(sections[-1], flush=True)
    for name, text in (
        ("results.json", json.dumps(results, indent=1)),
        ("results.md", "\n".join(sections)),
    ):
        unfinished = given.folder / f"{name}.new"
        unfinished.write_text(text + "\n")
        unfinished.replace(given.folder / name)


if __name__ == "__main__":
    main()
