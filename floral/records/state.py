"""A run's state between rounds: its start, its best snapshot, and whether it is whole."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from floral import check
from floral.config.build import Experiment
from floral.errors import ConfigError
from floral.simulate import SimulationState, start_key
from floral.simulate.table import copy_table, is_current, on_host
from floral.typing import PyTree

__all__ = ["Best", "is_whole", "keep_best", "start_state"]


class Best(NamedTuple):
    """The snapshot that validated best.

    Attributes:
      round: int32; 0 if none has been taken.
      score: float32, minus infinity at first.
      server: the server at that round.
      table: the clients' rows at that round; on the host, the next one that is best goes over them.
    """

    round: jax.Array
    score: jax.Array
    server: PyTree
    table: PyTree


def start_state(
    experiment: Experiment, source: PyTree = None, *, start: int = 0
) -> SimulationState:
    """The state before the first round.

    Args:
      experiment: what is run.
      source: another run's server, whose base, bank or models this one starts from.
      start: which of the starts that ``restarts`` may try.

    Raises:
      ConfigError: if the source has none of them, or if groups would be found anew for its bank.
      SpecError: if what it has is of other shapes.
    """
    key = start_key(jax.random.key(experiment.config["seed"]), start)
    state = experiment.simulator.init(key)
    if source is not None:
        state = state._replace(server=_adopt(state.server, source))
    validates = "validation" in experiment.dataset.splits
    if not validates:
        return state
    minus_infinity = jnp.asarray(-jnp.inf, jnp.float32)
    # Rows on the host may be too many to copy before there is need; nothing reads those of round 0.
    empty = None if isinstance(state.round, Tracer) else experiment.simulator.new_table
    table = _copied(state.table) if empty is None else empty()
    none_yet = jnp.zeros((), jnp.int32)
    return state._replace(best=Best(none_yet, minus_infinity, _copied(state.server), table))


def keep_best(state: SimulationState, value: float | None) -> SimulationState:
    """The state, with itself as the best snapshot if it scores higher than the one before.

    Args:
      state: of a run; one that never validates holds no snapshot and stays as it is.
      value: its score; None if there was nothing to validate on. One that is not finite is never
        best.
    """
    if value is None or not math.isfinite(value) or not state.best:
        return state
    score_now = jnp.asarray(value, jnp.float32)
    if not score_now > state.best.score:  # both rounded alike: of equal rounds the first is best
        return state
    if on_host(state.table):
        table = state.best.table
        copy_table(state.table, into=table)
    else:
        table = _copied(state.table)
    return state._replace(best=Best(_copied(state.round), score_now, _copied(state.server), table))


def is_whole(state: SimulationState) -> bool:
    """Whether no round has taken the state's memory or written its rows."""
    arrays = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    if any(array.is_deleted() for array in arrays):
        return False
    best_is = not state.best or is_current(state.best.table, state.best.round)
    return best_is and is_current(state.table, state.round)


def _adopt(server: Any, source: Any) -> Any:
    """The server with every model part that the source has too; optimizer states stay new."""
    parts = ("base", "bank", "fixed", "models", "params", "stats", "active")
    shared = [part for part in parts if hasattr(server, part) and hasattr(source, part)]
    if not {"base", "bank", "models", "params"} & set(shared):
        raise ConfigError(
            f"start_from: a {type(source).__name__} has no part that a "
            f"{type(server).__name__} could start from"
        )
    clustering = getattr(getattr(server, "inference", None), "clustering", ())
    if clustering != () and {"bank", "models"} & set(shared):
        raise ConfigError(
            "start_from: discriminants would number the groups that they find otherwise than the "
            "bank is that the run starts from; set mixing to softmax or exponential_weights"
        )
    # A copy: rounds take the memory of what they start from, and each restart starts from it anew.
    taken = {part: _copied(getattr(source, part)) for part in shared}
    for part, values in taken.items():
        check.same_structure(getattr(server, part), values, what=f"start_from: {part}")
    return server._replace(**taken)


def _copied(tree: PyTree) -> PyTree:
    """A copy, which the next rounds will not take the memory of."""
    return jax.tree.map(jnp.copy, tree)
