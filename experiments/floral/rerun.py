"""Runs what RESULTS.md shows, one cell after another, and keeps each with what made it.

    python experiments/floral/fetch.py mnist fashion_mnist
    python experiments/floral/rerun.py --list
    nice -n 10 python experiments/floral/rerun.py --hours 2
    python experiments/floral/rerun.py --only as_released/mnist_label_shift_5/floral/0

A cell is one method with one seed, named ``section/task/method/seed``; ``--only`` takes the start
of names. What ``results/`` already has with what made it is skipped, so the same command goes on
where it was stopped. ``--changed`` runs again what was made from a config of another digest, for
which a new setting with a default is enough. Cells come in the order of their worth (`PLAN`). All
clients are evaluated once, after the last round, which changes no number; the grid, which chooses a
method on the way, is evaluated as its config says.
"""

import argparse
import gc
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from cells import Cells, numbers, task
from choose import trained
from kept import keep, read_cells
from provenance import digest, traceable

import floral
from floral.config.reading.resolve import methods, read
from floral.records.history import CHOICES
from floral.records.record import read_json, read_lines
from floral.reports import seeds

__all__ = ["PLAN", "Batch", "Cell", "cells_of", "changed", "missing"]

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs/floral"
THREE, TEN = range(3), range(10)


class Batch(NamedTuple):
    """Methods of a config with some seeds.

    Attributes:
      section: whose ``results/<section>.json`` keeps them.
      name: of the task, in the names of cells.
      config: under ``configs/floral``.
      methods: which of the config's; all if empty.
      seeds: of each.
      overrides: of the config.
      once: whether to evaluate after the last round alone.
      split: on what they are evaluated.
    """

    section: str
    name: str
    config: str
    methods: tuple[str, ...] = ()
    seeds: range = THREE
    overrides: tuple[str, ...] = ()
    once: bool = True
    split: str = "test"


class Cell(NamedTuple):
    """One method with one seed: its place in ``results/<section>.json``, and its config.

    ``chosen`` says that ``choose.py`` chooses among such, of whose course more is kept then.
    """

    name: str
    section: str
    task: str
    method: str
    seed: int
    split: str
    chosen: bool
    config: dict[str, Any]


BANKS = ("floral", "floral_known", "floral_10", "floral_10_known")
QUIET = ("floral_quiet", "floral_whole_quiet", "floral_10_quiet", "floral_10_whole_quiet")
WHOLE = ("floral_whole", "floral_10_whole", "floral_known_whole", "floral_10_known_whole")
FASHION = "data.source.variant=fashion"


def released(shift: str, five: str, images: str, seeds: range = THREE) -> list[Batch]:
    """FLoRAL as released, and without noise, with either rate of the bank."""
    over = (FASHION,) if images == "fashion" else ()
    name, config = f"{images}_{shift}{five}", f"as_released/mnist_{shift}{five}.yaml"
    variants = f"as_released/bank_rate_and_noise{five}.yaml"
    shifted = (*over, f"data.shift.kind={shift}")
    return [
        Batch("as_released", name, config, BANKS, seeds, over),
        Batch("released_variants", name, variants, QUIET, seeds, shifted),
    ]


def published(shift: str, five: str, images: str, methods: tuple[str, ...] = ()) -> list[Batch]:
    """The paper's rows."""
    over = (FASHION,) if images == "fashion" else ()
    config = f"as_published/mnist_{shift}{five}.yaml"
    return [Batch("as_published", f"{images}_{shift}{five}", config, methods, overrides=over)]


def whole(shift: str, five: str, images: str, seeds: range = THREE) -> list[Batch]:
    """FLoRAL as released but for the rate of the bank."""
    over = (*((FASHION,) if images == "fashion" else ()), f"data.shift.kind={shift}")
    variants = f"as_released/bank_rate_and_noise{five}.yaml"
    return [Batch("released_variants", f"{images}_{shift}{five}", variants, WHOLE, seeds, over)]


SHIFTS = ("label_shift", "rotate")


def ours(section: str, config: str, shift: str, **settings: Any) -> Batch:
    """A config of ours with either shift."""
    shifted = (f"data.shift.kind={shift}", *settings.pop("overrides", ()))
    name = f"mnist_{shift}_5" + settings.pop("suffix", "")
    return Batch(section, name, config, overrides=shifted, **settings)


PLAN = (
    *(batch for shift in SHIFTS for batch in released(shift, "_5", "mnist")),
    *(batch for shift in SHIFTS for batch in published(shift, "_5", "mnist", BANKS)),
    *(ours("bank_rate", "bank_rate_5.yaml", shift, split="validation") for shift in SHIFTS),
    *released("label_shift", "_5", "mnist", TEN),
    *whole("label_shift", "_5", "mnist", TEN),
    *(batch for shift in SHIFTS for batch in released(shift, "", "mnist")),
    *(batch for shift in SHIFTS for batch in published(shift, "", "mnist", BANKS)),
    *(
        Batch("ours", f"{images}_{shift}", f"mnist_{shift}.yaml", ("ensemble",), overrides=over)
        for images, over in (("mnist", ()), ("fashion", (FASHION,)))
        for shift in SHIFTS
    ),
    *(ours("grid", "grid_5.yaml", shift, once=False) for shift in SHIFTS),
    *(
        ours(
            "uneven", "uneven_5.yaml", shift, overrides=(f"data.shift.sizes={sizes}",), suffix=name
        )
        for name, sizes in {"_5_3": [5, 3, 1, 1], "_17_1": [17, 1, 1, 1]}.items()
        for shift in SHIFTS
    ),
    *(ours("mixtures", "mixtures_5.yaml", shift) for shift in SHIFTS),
    *(
        batch
        for images in ("mnist", "fashion")
        for five in ("_5", "")
        for shift in SHIFTS
        for part in (released, published, whole)
        for batch in part(shift, five, images)
    ),
)


def cells_of(batch: Batch) -> Iterator[Cell]:
    """A batch's cells, seed by seed."""
    for seed in batch.seeds:
        config = read(CONFIGS / batch.config, [*batch.overrides, f"seed={seed}"])
        for method, settings in methods(config).items():
            if batch.methods and method not in batch.methods:
                continue
            if batch.once:
                last = {"every": settings["rounds"]}
                settings = {
                    **settings,
                    "evaluate": {**settings["evaluate"], **last, "diagnose_clients": 0},
                    "checkpoint": {**settings["checkpoint"], **last},
                }
            name = f"{batch.section}/{batch.name}/{method}/{seed}"
            place = (batch.section, task(config), method, seed)
            yield Cell(name, *place, batch.split, not batch.once, settings)


def missing(kept: Cells, cell: Cell) -> bool:
    """Whether a section lacks a cell, or has one of unknown origin."""
    found = kept.get(cell.task, {}).get(cell.method, {}).get(cell.seed)
    return found is None or not traceable(found)


def changed(kept: Cells, cell: Cell) -> bool:
    """Whether a section has a cell from a config of another digest."""
    found = kept.get(cell.task, {}).get(cell.method, {}).get(cell.seed)
    return found is not None and found.get("made", {}).get("config") != digest(cell.config)


def run(cell: Cell) -> dict[str, Any]:
    """Trains a cell and returns what is kept of it."""
    out = Path(tempfile.mkdtemp(prefix="floral-rerun-"))
    try:
        folder = floral.run(cell.config, out=out, name="run").folder
        place = folder if (folder / "summary.json").is_file() else folder / cell.method
        last = CHOICES["last"](read_lines(place / "metrics.jsonl"))
        ended = seeds.FinishedRun(
            place,
            "accuracy",
            last[cell.split]["accuracy"]["mean"],
            (last.get("mixture") or {}).get("agreement"),
            read_json(place / "summary.json")["seconds"],
        )
        found = numbers(ended, f"python experiments/floral/rerun.py --only {cell.name}")
        return found | {"choice": trained(place)._asdict()} if cell.chosen else found
    finally:
        shutil.rmtree(out)
        jax.clear_caches()  # each cell compiles its own programs: they would fill the memory
        gc.collect()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="how the names of cells begin")
    parser.add_argument("--hours", type=float, help="begin no cell after so many")
    parser.add_argument("--changed", action="store_true", help="also what has another config now")
    parser.add_argument("--list", action="store_true", help="only name what is to be run")
    given = parser.parse_args()
    began, done = time.monotonic(), set[str]()
    for batch in PLAN:
        path = HERE / f"results/{batch.section}.json"
        for cell in cells_of(batch):
            if not cell.name.startswith(given.only) or cell.name in done:
                continue
            done.add(cell.name)
            kept = read_cells(path)
            if not (missing(kept, cell) or (given.changed and changed(kept, cell))):
                continue
            if given.list:
                print(cell.name)
                continue
            if given.hours is not None and time.monotonic() - began > 3600 * given.hours:
                return
            found = run(cell)
            keep(path, {cell.task: {cell.method: {cell.seed: found}}})
            print(
                f"{cell.name}: {100 * found['accuracy']:.1f}, {found['seconds']:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
