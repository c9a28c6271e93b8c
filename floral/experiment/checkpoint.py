"""The whole state of a run on disk, through orbax.

A checkpoint is written beside the last one and becomes visible only once it is whole, so a run
that is killed while it saves goes on from the one before.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from floral.errors import ConfigError
from floral.simulate import SimulationState

__all__ = ["latest_round", "restore", "save"]


def _manager(folder: Path, keep: int | None = None) -> Any:
    import orbax.checkpoint as ocp

    return ocp.CheckpointManager(
        folder.resolve(),
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False
        ),
    )


def save(folder: Path, state: SimulationState, *, keep: int) -> None:
    """Saves the state under its round, and drops all but the ``keep`` latest."""
    import orbax.checkpoint as ocp

    taken = int(state.round)
    if latest_round(folder) == taken:
        return
    with _manager(folder, keep) as manager:
        manager.save(taken, args=ocp.args.StandardSave(_saved(state)), force=True)


def latest_round(folder: Path) -> int | None:
    """The round of the newest whole checkpoint; None if there is none."""
    if not folder.is_dir():
        return None
    rounds = [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()]
    return max(rounds, default=None)


def restore(folder: Path, round_index: int, like: SimulationState) -> SimulationState:
    """The state that was saved under a round.

    Args:
      folder: the run's checkpoint folder.
      round_index: as ``latest_round`` gives it.
      like: structs, or a state, of the same shapes.

    Raises:
      ConfigError: if the checkpoint is damaged, or was saved by another experiment.
    """
    import orbax.checkpoint as ocp

    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _saved(like))
    place = folder / str(round_index)
    try:
        with _manager(folder) as manager:
            found = manager.restore(round_index, args=ocp.args.StandardRestore(target))
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{place}: the checkpoint is damaged or of another experiment ({reason}); delete that "
            "folder to go on from the checkpoint before it, or from the start"
        ) from error
    return like._replace(**jax.tree.map(_uncommitted, found))


def _uncommitted(leaf: jax.Array) -> jax.Array:
    """The array free to move, as a run's own are: one tied to its device, as orbax gives it, would
    compile every function a second time."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jnp.asarray(np.asarray(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jnp.asarray(np.asarray(leaf))


def _saved(state: SimulationState) -> dict[str, Any]:
    """The fields that hold anything: orbax keeps no empty ones."""
    return {name: value for name, value in state._asdict().items() if jax.tree.leaves(value)}
