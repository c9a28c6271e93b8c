"""What the scripts of single claims share: one measurement a seed, kept once it is made.

A script's numbers stand in ``results/claims/<name>.json``, a line a seed with what made it
(``provenance.py``). A second call measures only seeds that are missing there, or that other
settings made.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from provenance import digest, made_here

from floral.config.reading.yaml_file import write_atomically
from floral.processes.startup import cache_folder
from floral.records.record import read_json

__all__ = ["FOLDER", "kept", "measured", "run"]

FOLDER = Path(__file__).parent / "results/claims"

Numbers = Mapping[str, Any]


def kept(name: str, folder: Path = FOLDER) -> dict[int, dict[str, Any]]:
    """By seed what was measured; empty where nothing was."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return {}
    return {int(seed): numbers for seed, numbers in read_json(path).items()}


def measured(
    name: str,
    seeds: Sequence[int],
    measure: Callable[[int], Numbers],
    settings: Mapping[str, Any],
    *,
    folder: Path = FOLDER,
) -> dict[int, dict[str, Any]]:
    """By seed what ``measure`` gives, from the kept file or anew; each is kept once it is made.

    Args:
      name: of the script and the file.
      seeds: that are wanted; others of the file stay.
      measure: ``(seed) -> numbers``, plain values.
      settings: all that decides the numbers, but the seed.
      folder: of the file.
    """
    found = kept(name, folder)
    for seed in seeds:
        config = {**settings, "seed": seed}
        if seed in found and found[seed]["made"]["config"] == digest(config):
            continue
        start = time.perf_counter()
        numbers = dict(measure(seed))
        made = made_here(config, f"python experiments/floral/{name}.py --seeds {seed}")
        seconds = round(time.perf_counter() - start, 1)
        found[seed] = {**numbers, "seconds": seconds, "made": made}
        lines = [f" {json.dumps(str(one))}: {json.dumps(found[one])}" for one in sorted(found)]
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{name}.json", "{\n" + ",\n".join(lines) + "\n}\n")
        print(f"seed {seed}: {seconds:.0f} s", flush=True)
    return {seed: found[seed] for seed in seeds}


def run(
    name: str,
    doc: str,
    measure: Callable[[int], Numbers],
    settings: Mapping[str, Any],
    report: Callable[[Mapping[int, Numbers]], str],
    *,
    seeds: Sequence[int] = range(10),
) -> None:
    """The command line of a script: measures ``--seeds`` and prints the report of them."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--out", type=Path, default=FOLDER, help="a folder for the numbers")
    arguments = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(cache_folder(os.environ) / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    print(report(measured(name, arguments.seeds, measure, settings, folder=arguments.out)))
