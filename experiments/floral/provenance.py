"""Where a kept number comes from: commit, config, data, versions, command and seconds.

    python experiments/floral/provenance.py experiments/floral/results/*.json

A kept cell is a mapping with the numbers of one run, its ``seconds`` and, under ``made``, what made
them::

    {"accuracy": 0.87, "seconds": 21.3,
     "made": {"commit": "d02c4af7f3a1", "config": "90fe12ab34cd", "data": "77aa00bb11cc",
              "versions": {"jax": "0.10.2", ...}, "command": "floral run configs/..."}}

``made_by_run`` reads it from a run folder, ``made_here`` writes it for a script that has none.
Cells from before this was kept have no ``made``. A cell that was run with code which has since been
replaced says under ``earlier`` what that code did. Tables mark both (`marks`, `legend`). The
command prints, file by file, which commits the cells are of and how many later ones changed
``floral/``.
"""

import argparse
import collections
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from floral.config.reading.yaml_file import load
from floral.records.environment import checkout_commit
from floral.records.record import read_json
from floral.text_table import markdown

__all__ = ["cells_in", "digest", "legend", "made_by_run", "made_here", "marks", "traceable"]

VERSIONS = ("floral", "jax", "jaxlib", "flax", "optax", "numpy")
LENGTH = 12  # hex digits of a digest
UNTRACED, EARLIER = "°", "†"


def digest(config: Mapping[str, Any]) -> str:
    """Twelve hex digits of a resolved config: of all that decides its numbers.

    Checkpoints and execution decide none, and the folder of the images is another on each machine.
    """
    meaning = {
        key: value for key, value in config.items() if key not in ("checkpoint", "execution")
    }
    data = meaning.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("source"), Mapping):
        source = {key: value for key, value in data["source"].items() if key != "folder"}
        meaning["data"] = {**data, "source": source}
    text = json.dumps(meaning, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def made_by_run(place: Path, command: str) -> dict[str, Any]:
    """What made the numbers of a method's run folder.

    Args:
      place: the folder, with its ``config.yaml`` and ``environment.json``.
      command: what ran it.
    """
    environment = read_json(place / "environment.json")
    return {
        "commit": environment.get("commit"),
        "config": digest(load(place / "config.yaml")),
        "data": environment["data"][:LENGTH],
        "versions": {
            "python": environment["python"],
            **{package: environment["versions"][package] for package in VERSIONS},
        },
        "command": command,
    }


def made_here(
    config: Mapping[str, Any], command: str, *, data: str | None = None
) -> dict[str, Any]:
    """What makes the numbers of this process.

    Args:
      config: all settings that decide them, as plain values.
      command: what runs it, from the root of the repository.
      data: fingerprint of the data set, where there is one.
    """
    return {
        "commit": checkout_commit(),
        "config": digest(config),
        **({} if data is None else {"data": data[:LENGTH]}),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in VERSIONS},
        },
        "command": command,
    }


def traceable(cell: Mapping[str, Any]) -> bool:
    """Whether a cell says what made it, from code that was committed."""
    made = cell.get("made") or {}
    complete = all(made.get(key) for key in ("commit", "config", "versions", "command"))
    return complete and not made["commit"].endswith("-dirty")


def marks(cells: Iterable[Mapping[str, Any]]) -> str:
    """The marks of a number over these cells: those that any of them has."""
    cells = list(cells)
    untraced = UNTRACED if any(not traceable(cell) for cell in cells) else ""
    return untraced + (EARLIER if any("earlier" in cell for cell in cells) else "")


def legend(kept: Any) -> list[str]:
    """A line for each mark that any cell of a kept file has."""
    cells = list(cells_in(kept))
    lines = []
    if UNTRACED in marks(cells):
        lines.append(
            f"{UNTRACED} run before commit, config digest, data fingerprint, versions and command "
            "were kept."
        )
    replaced = sorted({cell["earlier"] for cell in cells if "earlier" in cell})
    if replaced:
        lines.append(
            f"{EARLIER} run with code that has since been replaced: {'; '.join(replaced)}."
        )
    return lines


def cells_in(kept: Any) -> Iterator[Mapping[str, Any]]:
    """Every cell of a kept file, however deep: the mappings that have ``seconds``."""
    if isinstance(kept, Mapping):
        if "seconds" in kept:
            yield kept
        else:
            for value in kept.values():
                yield from cells_in(value)


def later_changes(commit: str) -> str:
    """How many commits after this one changed ``floral/``, as text."""
    asked = ["git", "rev-list", "--count", f"{commit}..HEAD", "--", "floral"]
    root = Path(__file__).parents[2]
    told = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "not of this history"


def report(paths: Iterable[Path]) -> str:
    """The cells of every file by commit, as a Markdown table."""
    rows = []
    for path in paths:
        commits = collections.Counter(
            cell["made"]["commit"] if traceable(cell) else "" for cell in cells_in(read_json(path))
        )
        rows += [
            [path.name, commit or "not kept", str(count), later_changes(commit) if commit else "–"]
            for commit, count in sorted(commits.items())
        ]
    return markdown(["file", "commit", "cells", "later commits to floral/"], rows, texts=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="kept results")
    print(report(parser.parse_args().files))


if __name__ == "__main__":
    main()
