"""Files of kept cells: ``results/<section>.json``, a line a cell."""

import json
from pathlib import Path

from cells import Cells

from floral.config.reading.yaml_file import write_atomically
from floral.records.record import read_json

__all__ = ["joined", "keep", "read_cells"]


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


def keep(path: Path, new: Cells) -> None:
    """Joins cells to those of a file: a line a cell, tasks and methods in the order of coming."""
    cells = joined(read_cells(path), new)
    tasks = []
    for task, methods in cells.items():
        lines = [
            f"  {json.dumps(method)}: {{\n"
            + ",\n".join(
                f"   {json.dumps(str(seed))}: {json.dumps(run)}" for seed, run in runs.items()
            )
            + "\n  }"
            for method, runs in methods.items()
        ]
        tasks.append(f" {json.dumps(task)}: {{\n" + ",\n".join(lines) + "\n }")
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, "{\n" + ",\n".join(tasks) + "\n}\n")
