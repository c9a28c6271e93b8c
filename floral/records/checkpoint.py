"""The whole state of a run on disk, through orbax.

A checkpoint is written beside the last one and becomes visible only once it is whole, so a run
that is killed while it saves goes on from the one before. It holds plain arrays and no word of the
devices or processes that made them, so that any others may go on from it; all processes of a run
save and restore together, in a folder that all of them see.

Clients' rows that live on the host are written beside it, piece by piece. Wherever rows lived when
they were saved, they are restored to where they live now.
"""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from floral.errors import ConfigError
from floral.files import touching
from floral.processes.agreement import broadcast_from_first, is_first
from floral.records.rows import drop_rows, load_rows, save_rows
from floral.simulate import SimulationState
from floral.simulate.table import copy_table, on_host, without_round
from floral.tree import paths
from floral.typing import PyTree

__all__ = ["latest_round", "restore", "save", "saved_rounds"]

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_ROOM = 2**18  # bytes for the names and shapes of what is saved, in files of their own
_ROWS = "rows"  # the folder of those that live on the host, beside the checkpoints


def _manager(folder: Path, keep: int | None = None) -> Any:
    import orbax.checkpoint as ocp

    return ocp.CheckpointManager(
        folder.resolve(),
        item_handlers=ocp.StandardCheckpointHandler(),
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False
        ),
    )


def save(folder: Path, state: SimulationState, *, keep: int) -> None:
    """Saves the state under its round, and drops all but the ``keep`` latest.

    Raises:
      FileError: if it cannot be written; what was saved before is whole.
    """
    import orbax.checkpoint as ocp

    taken = int(state.round)
    if broadcast_from_first(lambda: latest_round(folder)) == taken:
        return
    with touching(folder, "write"), _as_os_error():
        if on_host(state.table):
            save_rows(folder / _ROWS / str(taken), _tables(state))
            state = _without_tables(state)
        held = jax.tree.map(_on_host, _held(state))
        _check_room(folder, held)
        with _manager(folder, keep) as manager:
            manager.save(taken, args=ocp.args.StandardSave(held), force=True)
        if is_first():
            drop_rows(folder / _ROWS, saved_rounds(folder))


def _check_room(folder: Path, held: PyTree) -> None:
    """Raises OSError before anything is written, where it cannot all be: of a write that fails half
    way, the library's threads print a traceback each."""
    needed = _ROOM + sum(leaf.nbytes for leaf in jax.tree.leaves(held))
    place = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
    if shutil.disk_usage(place).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _as_os_error() -> Iterator[None]:
    """While it lasts, an error of the library that writes arrays is raised as what the system told
    it, where that is known: it raises ValueError for all, and logs each traceback as well."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except ValueError as error:
        for number in _REFUSALS:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number)) from error
        raise
    finally:
        logger.setLevel(before)


def latest_round(folder: Path) -> int | None:
    """The round of the newest whole checkpoint; None if there is none."""
    return max(saved_rounds(folder), default=None)


def saved_rounds(folder: Path) -> list[int]:
    """The rounds of all whole checkpoints, in order."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(entry.name) for entry in entries if entry.name.isdecimal())


def restore(
    folder: Path,
    round_index: int,
    like: SimulationState,
    new_table: Callable[[], PyTree] | None = None,
) -> SimulationState:
    """The state that was saved under a round.

    Args:
      folder: the run's checkpoint folder.
      round_index: as ``latest_round`` gives it.
      like: structs, or a state, of the same shapes.
      new_table: the simulator's own, for rows that live on the host; None where they do not.

    Raises:
      ConfigError: if the checkpoint is damaged, or was saved by another experiment.
    """
    import orbax.checkpoint as ocp

    place, rows = folder / str(round_index), folder / _ROWS / str(round_index)
    tables = _tables(like)
    beside = rows.is_dir()
    wanted = _held(_without_tables(like) if beside else _with_tables(like, tables))
    target = jax.tree.map(_host_struct, wanted)
    try:
        with _manager(folder) as manager:
            _check_form(manager.item_metadata(round_index), target)
            found = manager.restore(round_index, args=ocp.args.StandardRestore(target))
        saved = like._replace(**found)
        columns = load_rows(rows, tables) if beside else _tables(saved)
        rest = jax.tree.map(_free, _held(_without_tables(like)), _held(_without_tables(saved)))
        state = _without_tables(like)._replace(**rest)
        of_rounds = {"table": state.round, **({"best": state.best.round} if state.best else {})}
        restored = {
            name: _placed(tables[name], columns[name], of_rounds[name], new_table)
            for name in tables
        }
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{place}: the checkpoint is damaged, or of another experiment or version ({reason}); "
            "delete that folder to go on from the checkpoint before it, or from the start"
        ) from error
    return _with_tables(state, restored)


def _tables(state: SimulationState) -> dict[str, PyTree]:
    """The columns of clients' rows: those of now, and those of the best round."""
    tables = {"table": without_round(state.table)}
    return tables | ({"best": without_round(state.best.table)} if state.best else {})


def _with_tables(state: SimulationState, tables: Mapping[str, PyTree]) -> SimulationState:
    best = state.best._replace(table=tables["best"]) if state.best else state.best
    return state._replace(table=tables["table"], best=best)


def _without_tables(state: SimulationState) -> SimulationState:
    return _with_tables(state, {"table": (), "best": ()})


def _placed(
    like: PyTree, columns: PyTree, round_index: Any, new_table: Callable[[], PyTree] | None
) -> PyTree:
    """Clients' rows where they live: on the devices, or on the host in a table of their own."""
    if new_table is None:
        return jax.tree.map(_free, like, columns)
    table = new_table()
    copy_table({**columns, "round": np.asarray(round_index)}, into=table)
    return table


def _held(state: SimulationState) -> dict[str, PyTree]:
    """The fields that hold anything: orbax keeps no empty ones."""
    return {name: value for name, value in state._asdict().items() if jax.tree.leaves(value)}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _on_host(leaf: jax.Array) -> np.ndarray:
    """A leaf that is whole on every process, as it is saved; random keys as their numbers."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _host_struct(leaf: Any) -> np.ndarray:
    """What tells orbax to restore the leaf as an array of numpy's; takes no memory."""
    struct = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return np.broadcast_to(np.zeros((), struct.dtype), struct.shape)


def _check_form(saved: Any, target: PyTree) -> None:
    """Raises ValueError unless a checkpoint's own account of itself has the target's leaves; orbax
    would cast what is of another dtype."""
    found = {} if saved is None else paths(saved.tree)
    expected = paths(target)
    for path in expected | found:
        here, wanted = _form(found.get(path)), _form(expected.get(path))
        if here != wanted:
            raise ValueError(f"{path}: {here} is saved, not {wanted}")


def _form(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"


def _free(leaf: Any, found: np.ndarray) -> jax.Array:
    """The array on the default device and free to move, as a run's own are: one tied to a device
    would compile every function a second time."""
    array = jnp.asarray(found)
    return jax.random.wrap_key_data(array, impl=_kind_of(leaf)) if _is_key(leaf) else array


def _kind_of(key: Any) -> Any:
    """The generator of a key, or of its struct, which JAX tells of keys alone."""
    kinds = []
    jax.eval_shape(lambda traced: kinds.append(jax.random.key_impl(traced)), key)
    return kinds[0]
