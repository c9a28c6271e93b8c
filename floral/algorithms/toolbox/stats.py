"""A model's statistics (batch norm's running moments) on their way from client to server.

Floats are averaged over clients; integer counters are never averaged and stay the server's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral import tree
from floral.messages import Reduced, evidence
from floral.typing import PyTree

__all__ = ["OwnStats", "average_stats", "own_stats", "stats_update"]


class OwnStats(NamedTuple):
    """Which of a model's statistics live in a client's row, under ``"stats"``.

    Attributes:
      kept: whether any do.
      split: ``(stats) -> (the client's own, the shared ones)``.
      whole: ``(row, shared) -> stats``.
      into: ``(row, stats) -> row`` with its own of them, if it keeps any.
    """

    kept: bool
    split: Callable[[PyTree], tuple[PyTree, PyTree]]
    whole: Callable[[PyTree, PyTree], PyTree]
    into: Callable[[PyTree, PyTree], PyTree]


def own_stats(mask: PyTree) -> OwnStats:
    """For Python booleans over the statistics, True where one is a client's own."""
    kept = any(jax.tree.leaves(mask))
    if not kept:
        return OwnStats(
            kept=False,
            split=lambda stats: ((), stats),
            whole=lambda row, shared: shared,
            into=lambda row, stats: row,
        )
    return OwnStats(
        kept=True,
        split=lambda stats: tree.split(stats, mask),
        whole=lambda row, shared: tree.combine(row["stats"], shared),
        into=lambda row, stats: {**row, "stats": tree.split(stats, mask)[0]},
    )


def _averaged(stats: PyTree) -> PyTree:
    """The float statistics, None in place of the integer counters."""
    mask = jax.tree.map(lambda leaf: bool(jnp.issubdtype(leaf.dtype, jnp.inexact)), stats)
    return tree.split(stats, mask)[0]


def stats_update(stats: PyTree, new_stats: PyTree) -> dict[str, PyTree]:
    """``{"stats": old - new}``, a part of an update; empty for a model without statistics."""
    old, new = _averaged(stats), _averaged(new_stats)
    return {"stats": tree.subtract(old, new)} if jax.tree.leaves(old) else {}


def average_stats(stats: PyTree, reduced: Reduced) -> PyTree:
    """The server's next statistics; as they are where none were uploaded, or by no one."""
    if "stats" not in reduced.update:
        return stats
    floats = _averaged(stats)
    moved = tree.subtract(floats, reduced.update["stats"])
    trusted = evidence(reduced.weight["stats"])
    return tree.combine(tree.select(trusted, moved, floats), stats)
