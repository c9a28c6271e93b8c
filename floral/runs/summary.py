"""What a run came to, as ``summary.json`` has it: made from what the run recorded."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from floral.config.build import Experiment
from floral.config.early_stopping import stopped_line
from floral.records import record
from floral.reports.advice import advice_for, facts_of
from floral.runs.restarts import tried
from floral.simulate import SimulationState

__all__ = ["first_non_finite", "summarize"]


def summarize(experiment: Experiment, folder: Path, state: SimulationState) -> dict[str, Any]:
    """Writes ``summary.json`` of a run that is done; returns it.

    ``seconds`` is all wall time, trials of restarts included. ``timing`` has its parts, the seconds
    of ``compile``, ``train`` and ``evaluate`` (the rest went into saving and into trials), and
    ``rounds_per_second``, of training alone.
    """
    lines = record.read_lines(folder / "metrics.jsonl")
    times = record.read_lines(folder / "timing.jsonl")
    evaluations = {line["round"]: line["evaluation"] for line in lines if "evaluation" in line}
    taken = int(state.round)
    best = int(state.best.round) if state.best else 0  # 0: no round has been best
    summary = {
        "rounds": taken,
        "seed": experiment.config["seed"],
        "last": evaluations[taken],
        "best": {"round": best, **evaluations[best]} if best else None,
        "costs": experiment.simulator.costs._asdict(),
        "seconds": sum(line["seconds"] for line in times),
        "timing": _timing(times, taken),
    }
    if experiment.stopping is not None and taken < experiment.rounds:
        patience = experiment.stopping.patience
        summary["stopped"] = {"round": taken, "of": experiment.rounds, "patience": patience}
    if (broken := first_non_finite(lines)) is not None:
        broken |= _evaluated_client(folder, broken)
        names = experiment.dataset.client_names
        if names is not None and "client" in broken:
            broken["client"] = str(names[broken["client"]])
        if dropping := sum(line.get("train", {}).get("dropped", 0) > 0 for line in lines):
            broken["dropped_in_rounds"] = dropping
        summary["non_finite"] = broken
    if (restarts := tried(folder)) is not None:
        summary["restarts"] = restarts
        summary["seconds"] += sum(restarts["seconds"])
    if "uplink" in lines[-1]:
        summary["uplink"] = lines[-1]["uplink"]
    stopped = [stopped_line(summary["stopped"])] if "stopped" in summary else []
    summary["advice"] = stopped + advice_for(facts_of(experiment), summary, lines)
    record.write_json(folder / "summary.json", summary)
    return record.read_json(folder / "summary.json")


def first_non_finite(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The first round with a value that is not finite: ``round``, ``what`` and, where a client's
    training had it, the id of one such ``client``; None if all values are finite."""
    for line in lines:
        train = line.get("train", {})  # round 0 is evaluated alone
        if train.get("non_finite"):
            what = "update" if _finite(train.get("loss", 0.0)) else "loss"
            known = {"client": train["first_non_finite"]} if "first_non_finite" in train else {}
            return {"round": line["round"], "what": what, **known}
        if not _finite(train.get("loss", 0.0)):
            return {"round": line["round"], "what": "loss"}
        for group in ("validation", "test", "unseen"):
            numbers = line.get("evaluation", {}).get(group)
            if numbers and not _finite(numbers["loss"]["mean"]):
                return {"round": line["round"], "what": f"{group} loss"}
    return None


def _evaluated_client(folder: Path, broken: Mapping[str, Any]) -> dict[str, int]:
    """``client``, the first whose loss an evaluation found not finite; nothing otherwise."""
    group, _, what = broken["what"].partition(" ")
    tables = {taken: path for path, taken in record.client_tables(folder).items()}
    if what != "loss" or broken["round"] not in tables:
        return {}
    table = record.read_clients(tables[broken["round"]])
    column = "validation_loss" if group == "validation" else "test_loss"
    asked = table["unseen"] == (group == "unseen")
    wrong = asked & ~np.isfinite(table[column])
    if f"{column.partition('_')[0]}_examples" in table:
        wrong &= table[f"{column.partition('_')[0]}_examples"] > 0
    return {"client": int(table["client"][wrong][0])} if wrong.any() else {}


def _finite(value: float | None) -> bool:
    """JSON has null for what is not finite."""
    return value is not None and math.isfinite(value)


def _timing(times: Sequence[Mapping[str, Any]], rounds: int) -> dict[str, float]:
    parts = {
        part: sum(line.get(part, 0.0) for line in times)
        for part in ("compile", "train", "evaluate")
    }
    train = parts["train"]
    return {**parts, "rounds_per_second": rounds / train if train > 0 else 0.0}
