"""Clients' rows on the host: read for a cohort, written in place, in memory or in mapped files.

In place, since a round that copied the rows of everyone would cost what the population costs. A
table therefore knows the round that its rows are of, and a state of any other round is refused.
"""

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from floral import check, tree
from floral.data.storage.aligned import aligned_zeros
from floral.errors import SpecError
from floral.simulate.state import SimulationState
from floral.typing import PyTree

__all__ = [
    "check_current",
    "check_state",
    "copy_table",
    "is_current",
    "new_table",
    "on_host",
    "pieces",
    "read_rows",
    "without_round",
    "write_rows",
]

_AT_ONCE = 2**20  # bytes copied at once where they are collected on the way
_PIECE = 2**26  # bytes of one piece of a whole column
_AMID = -1  # the round of a table that is being written


def new_table(struct: PyTree, folder: Path | None = None) -> dict[str, Any]:
    """A table of zeros, which takes memory, or room on the disk, only where it is written.

    Args:
      struct: ``{"client": [N, ...], "uplink": [N, ...]}``, structs.
      folder: where its files are to lie; None is in memory. They have no name and go when the table
        does, however the process ends.

    Returns:
      The table with ``round``, int32 [], the round that its rows are of: 0.

    Raises:
      SpecError: if the folder has less room than the table takes.
    """
    make = np.zeros
    if folder is not None:
        needed, free = tree.num_bytes(struct), shutil.disk_usage(folder).free
        if needed > free:
            raise SpecError(
                f"execution.rows_folder: clients' rows take {needed:,} bytes, "
                f"{str(folder)!r} has room for {free:,}"
            )
        make = partial(_mapped, folder)
    columns = jax.tree.map(lambda leaf: make(leaf.shape, leaf.dtype), struct)
    return {**columns, "round": np.zeros((), np.int32)}


def on_host(table: PyTree) -> bool:
    """Whether a table, or one of structs, is of rows that stay on the host."""
    return isinstance(table, dict) and "round" in table


def without_round(table: PyTree) -> PyTree:
    """The columns alone, as a table on the devices has them."""
    return {name: columns for name, columns in table.items() if name != "round"}


def read_rows(table: PyTree, ids: np.ndarray) -> PyTree:
    """The rows of clients [n], copied; an id of N (padding) reads the last row."""

    def taken(column: np.ndarray) -> np.ndarray:
        rows = aligned_zeros((len(ids), *column.shape[1:]), column.dtype)
        known = np.minimum(ids, len(column) - 1)
        for places in _in_order_of_ids(known, column):
            rows[places] = column[known[places]]
        return rows

    return jax.tree.map(taken, without_round(table))


def write_rows(table: PyTree, ids: np.ndarray, rows: PyTree, round_index: int) -> None:
    """Writes the rows of clients [n] in place; an id of N (padding) is dropped.

    Args:
      table: on the host.
      ids: distinct, but for N.
      rows: leaves [n, ...], of numpy or of JAX.
      round_index: the round that the table is of from now on.
    """
    table["round"][...] = _AMID
    columns, leaves = jax.tree.leaves(without_round(table)), jax.tree.leaves(rows)
    for column, leaf in zip(columns, leaves, strict=True):
        new = np.asarray(leaf)
        for places in _in_order_of_ids(ids, column):
            column[ids[places]] = new[places]
    table["round"][...] = round_index


def copy_table(table: PyTree, into: PyTree) -> None:
    """Copies all rows of one table on the host over those of another."""
    into["round"][...] = _AMID
    here, there = (jax.tree.leaves(without_round(one)) for one in (table, into))
    for column, copy in zip(here, there, strict=True):
        for piece in pieces(column):
            copy[piece] = column[piece]
    into["round"][...] = table["round"]


def pieces(column: Any) -> Iterator[slice]:
    """Slices of rows that together are the column, each of no more than some 64 MiB."""
    together = max(1, _PIECE // _row_bytes(column))
    for first in range(0, len(column), together):
        yield slice(first, first + together)


def is_current(table: PyTree, round_index: Any) -> bool:
    """Whether the rows are those of this round; always where they are on the devices."""
    return not on_host(table) or int(table["round"]) == int(round_index)


def check_state(state: Any) -> None:
    """Raises SpecError unless this is a simulator's state."""
    check.instance_of(SimulationState, "simulator.init(jax.random.key(0))", state=state)


def check_current(state: SimulationState, struct: SimulationState, *, host: bool) -> None:
    """Refuses a state of another simulator, and one whose rows are elsewhere or gone.

    Args:
      state: what is to be used.
      struct: this simulator's state as structs, all rows on the devices.
      host: whether rows should live on the host.

    Raises:
      SpecError: also for a state that a round was taken from already.
    """
    check_state(state)
    table = state.table
    plain = on_host(table) and isinstance(table["round"], np.ndarray)
    if plain != host:
        here, there = ("host", "devices") if host else ("devices", "host")
        raise SpecError(
            f"this simulator keeps clients' rows on the {here}, the state has them on the {there}; "
            "start from this simulator's init, or set execution.rows for both alike"
        )
    if host and not is_current(table, state.round):
        held = int(table["round"])
        now = "half written by a round that broke off" if held == _AMID else f"of round {held}"
        raise SpecError(
            f"the state is of round {int(state.round)}, but its clients' rows are {now}: a round "
            "writes them in place, so go on from the state that it returned (or set "
            "execution.rows to device, where every state keeps its own)"
        )
    rows = without_round(table) if host else table
    for name, own, given in (
        ("server", struct.server, state.server),
        ("table", struct.table, rows),
        ("uplink", struct.uplink, state.uplink),
    ):
        if not _alike(own, given):
            _check_alike(name, own, given)


def _alike(own: PyTree, given: PyTree) -> bool:
    """Whether two trees have one structure, and leaves of one shape and dtype."""
    ours, structure = jax.tree.flatten(own)
    theirs, other = jax.tree.flatten(given)
    return structure == other and all(
        one.shape == np.shape(two) and one.dtype == getattr(two, "dtype", None)
        for one, two in zip(ours, theirs, strict=True)
    )


def _check_alike(name: str, own: PyTree, given: PyTree) -> None:
    """Raises SpecError unless a part of a state has the paths, shapes and dtypes of the simulator's
    own; keys may be of any generator."""
    mend = "go on from a state of this simulator, as simulator.init(jax.random.key(0)) makes"
    ours, theirs = (jax.tree.map(_without_key, one) for one in (own, given))
    rows = [{np.shape(x)[:1] for x in jax.tree.leaves(one)} for one in (ours, theirs)]
    if name == "table" and all(len(one) == 1 for one in rows) and rows[0] != rows[1]:
        (held,), (clients,) = rows[1].pop() or (1,), rows[0].pop()
        raise SpecError(
            f"state: it has rows of {held} clients, the population has {clients}; {mend}"
        )
    try:
        check.same_structure(ours, theirs, what=f"state.{name}")
    except SpecError as error:
        raise SpecError(f"{error}: the state is another simulator's; {mend}") from error


def _without_key(leaf: Any) -> Any:
    """The leaf, or for a random key the struct of a truth value of its shape."""
    if jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.dtypes.prng_key):
        return jax.ShapeDtypeStruct(np.shape(leaf), bool)
    return leaf


def _in_order_of_ids(ids: np.ndarray, column: np.ndarray) -> Iterator[np.ndarray]:
    """The places of the ids below N, in the order in which their rows lie, a few at a time."""
    order = np.argsort(ids, kind="stable")
    order = order[ids[order] < len(column)]
    together = max(1, _AT_ONCE // _row_bytes(column))
    for first in range(0, len(order), together):
        yield order[first : first + together]


def _row_bytes(column: Any) -> int:
    return max(1, column.dtype.itemsize * int(np.prod(column.shape[1:], dtype=np.int64)))


def _mapped(folder: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if not np.prod(shape, dtype=np.int64):
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, "w+", shape=shape)
