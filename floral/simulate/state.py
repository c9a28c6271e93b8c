"""Everything a run remembers, as one pytree, and the table of what clients keep.

Where a run's state is data, to resume is to load and go on.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floral.typing import Array, Key, PyTree

__all__ = ["SimulationState", "gather_rows", "parts_of_state", "scatter_rows"]


class SimulationState(NamedTuple):
    """All that a run must remember.

    Attributes:
      round: int32, the rounds taken.
      key: the run's key; every use derives a named stream from it.
      server: the algorithm's server state.
      table: client rows ``{"client": [N, ...], "uplink": [N, ...]}``; no leaves if stateless. On
        the host they are arrays of numpy's that rounds write in place, with ``round``, the one that
        they are of.
      uplink: ``{"reduce": ..., "server": ...}``, states of the reducer and server transforms.
      sampler: the sampler's state.
      ledger: privacy events so far.
      clock: simulated time.
      buffer: updates in flight.
      best: the snapshot that validated best.
    """

    round: Array
    key: Key
    server: Any
    table: PyTree
    uplink: PyTree
    sampler: PyTree = ()
    ledger: PyTree = ()
    clock: PyTree = ()
    buffer: PyTree = ()
    best: PyTree = ()


def parts_of_state(rows: Any, rest: Any) -> Any:
    """A prefix of a state: one value for the table, one for all else."""
    fields = dict.fromkeys(SimulationState._fields, rest)
    return SimulationState(**{**fields, "table": rows})


def gather_rows(table: PyTree, ids: Array) -> PyTree:
    """The rows of the clients ``ids`` [...]; an id of N (padding) reads the last row."""
    return jax.tree.map(lambda column: jnp.take(column, ids, axis=0, mode="clip"), table)


def scatter_rows(table: PyTree, ids: Array, rows: PyTree) -> PyTree:
    """The table with these rows written; an id of N (padding) is dropped, all else is kept."""
    return jax.tree.map(lambda column, row: column.at[ids].set(row, mode="drop"), table, rows)
