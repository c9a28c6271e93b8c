"""A round's line in ``metrics.jsonl``: what clients and the reducer reported, by namespace.

    {"round": 7,
     "train": {"loss": 0.41, "examples": 640, "clients": 10},
     "uplink": {"averaging_gap": 0.02},
     "evaluation": {"validation": {…}, "test": {…}, "unseen": {…}, "mixture": {…}}}

``train`` is what ``client_update`` reports, summed over the round's clients: ``<name>_sum`` as
``<name>``, divided by ``examples``; any other number as its sum. Where clients had values that are
not finite, it also has how many (``non_finite``) and the id of one (``first_non_finite``, -1 where
it is not known). With ``uplink.non_finite: drop`` it has how many were left out (``dropped``).
``uplink`` is what the reducer reports, if anything.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from floral.simulate.checks.reported import shown_name

__all__ = ["round_line"]


def round_line(taken: int, sums: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The line of one of several rounds.

    Args:
      taken: rounds taken, this one included.
      sums: the simulator's metrics of all of them, each [count].
      index: which of them.
    """
    own = {name: values[index] for name, values in sums.items() if name != "uplink"}
    clients = int(own.pop("cohort"))
    broken = {
        name: int(own.pop(name))
        for name in ("non_finite", "first_non_finite", "dropped")
        if name in own
    }
    if broken.get("first_non_finite", -1) < 0:  # none's: finite updates whose sum overflows
        broken.pop("first_non_finite", None)
    train: dict[str, Any] = {}
    for name, value in own.items():
        shown = shown_name(name)
        if shown != name:
            train[shown] = float(value) / max(int(own["examples"]), 1)
        else:
            train[name] = _plain(value)
    train["clients"] = clients
    if broken.get("non_finite"):
        train |= broken
    line: dict[str, Any] = {"round": taken, "train": train}
    if told := sums.get("uplink"):
        line["uplink"] = {name: _plain(values[index]) for name, values in told.items()}
    return line


def _plain(value: np.ndarray) -> float | int:
    """As JSON has it; counts stay whole."""
    return float(value) if np.issubdtype(value.dtype, np.floating) else int(value)
