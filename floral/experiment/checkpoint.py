"""The whole state of a run on disk, through orbax.

A checkpoint is written beside the last one and becomes visible only once it is whole, so a run
that is killed while it saves goes on from the one before. It holds plain arrays and no word of the
devices or processes that made them, so that any others may go on from it; all processes of a run
save and restore together, in a folder that all of them see.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from floral.errors import ConfigError
from floral.experiment.processes import told
from floral.simulate import SimulationState
from floral.typing import PyTree

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
    if told(lambda: latest_round(folder)) == taken:
        return
    held = jax.tree.map(_on_host, _held(state))
    with _manager(folder, keep) as manager:
        manager.save(taken, args=ocp.args.StandardSave(held), force=True)


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

    wanted = _held(like)
    target = jax.tree.map(_host_struct, wanted)
    place = folder / str(round_index)
    try:
        with _manager(folder) as manager:
            found = manager.restore(round_index, args=ocp.args.StandardRestore(target))
        restored = jax.tree.map(_in_the_form_of, wanted, found)
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{place}: the checkpoint is damaged or of another experiment ({reason}); delete that "
            "folder to go on from the checkpoint before it, or from the start"
        ) from error
    return like._replace(**restored)


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


def _in_the_form_of(leaf: Any, found: np.ndarray) -> jax.Array:
    """The array on the default device and free to move, as a run's own are: one tied to a device
    would compile every function a second time."""
    expected = _host_struct(leaf)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(f"{found.dtype}{found.shape} is saved, not {leaf.dtype}{leaf.shape}")
    array = jnp.asarray(found)
    return jax.random.wrap_key_data(array, impl=_kind_of(leaf)) if _is_key(leaf) else array


def _kind_of(key: Any) -> Any:
    """The generator of a key, or of its struct, which JAX tells of keys alone."""
    kinds = []
    jax.eval_shape(lambda traced: kinds.append(jax.random.key_impl(traced)), key)
    return kinds[0]
