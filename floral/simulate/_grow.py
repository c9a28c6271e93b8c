"""A run whose bank grows: more adaptors, or models, from a round on.

A group that appears late finds every adaptor taken. The grown state has new adaptors beside the old
ones; clients that have a mixture keep it, those that know nothing yet start in the middle of all.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from floral import check
from floral.errors import SpecError
from floral.mixtures.base import LARGEST
from floral.simulate.simulator import Simulator
from floral.simulate.state import SimulationState
from floral.simulate.table import on_host
from floral.typing import Array, Key, PyTree

__all__ = ["grow"]


def grow(
    state: SimulationState,
    simulator: Simulator,
    key: Key,
    *,
    share: float = 0.0,
    newcomers: Sequence[int] | np.ndarray = (),
) -> SimulationState:
    r"""The state of a run with C adaptors as the start of one with more.

    The first C adaptors, base, statistics, optimizer states, round and key are those of the state,
    bit for bit. New adaptors are drawn from the key: their deltas are zero, or random where a rule
    says so, and no two of them are alike. A client whose logits are not all zero gives the new
    adaptors together the weight ``share``: each of the k new logits is
    ``logsumexp(old) + log(share / ((1 - share) k))``. At ``share=0`` its weights over the old ones,
    and so its predictions, stay what they are; its new logits then get no gradient. A client whose
    logits are all zero has k more zeros.

    Clients that join are clients of the simulator's population, which may train others than before
    (``FederatedDataset.unseen``); the number of clients stays.

    Args:
      state: of a run of `floral` or `ensemble` with C adaptors or models.
      simulator: of the same algorithm with more of them, on as many clients. Its mixing may be
        another: groups that `discriminants` found stay in clients' logits.
      key: the randomness of the new adaptors.
      share: of the new adaptors in the mixture of a client that has one, in [0, 1).
      newcomers: ids of clients that are to start on the new adaptors alone, each with the same
        weight, as one does with those who are known to be of a new group.

    Raises:
      SpecError: for a share outside [0, 1), an id that is none, clients' rows that stay on the
        host, a simulator whose mixing is `discriminants`, which find groups once, that has no more
        adaptors than the state, or differs from the state's in more than their number and mixing.
    """
    check.in_range(0.0, 1.0, share=share)
    if share == 1.0:
        raise SpecError("grow: a share of 1 leaves nothing of clients' mixtures; give less than 1")
    fresh = simulator.init(key)
    if on_host(state.table) or on_host(fresh.table):
        raise SpecError("grow: clients' rows stay on the host; set execution.rows to device")
    old, new = _count(state.server), _count(fresh.server)
    if fresh.server.inference.clustering != ():
        raise SpecError(
            "grow: discriminants find their groups once, for as many adaptors as there are; give "
            "the simulator a mixing that goes on from logits, softmax or exponential_weights"
        )
    inference = state.server.inference._replace(clustering=())
    if () in (inference.prices, fresh.server.inference.prices):
        inference = fresh.server.inference
    state = state._replace(server=state.server._replace(inference=inference))
    if new <= old:
        raise SpecError(f"grow: the simulator has {new} adaptors, the state {old}; give it more")
    server, uplink = (
        jax.tree.map_with_path(_extended(old, new, part), before, after)
        for part, before, after in (
            ("server", state.server, _like(state.server, fresh.server, "server")),
            ("uplink", state.uplink, _like(state.uplink, fresh.uplink, "uplink")),
        )
    )
    table = jax.tree.map_with_path(
        _extended(old, new, "table"), state.table, _like(state.table, fresh.table, "table")
    )
    row = table["client"]
    if isinstance(row, dict) and "mixture" in row:
        before = state.table["client"]["mixture"]
        joined = _members(newcomers, row["mixture"])
        logits = jax.tree.map(lambda one: _logits(one, new - old, share, joined), before)
        table = {**table, "client": {**row, "mixture": logits}}
    elif len(newcomers):
        raise SpecError("grow: stateless clients keep no mixture that newcomers could start with")
    return state._replace(server=server, uplink=uplink, table=table, best=())


def _count(server: Any) -> int:
    """C, of the adaptors or models that a server has."""
    if not (hasattr(server, "active") and hasattr(server, "inference")):
        raise SpecError(
            f"grow: a {type(server).__name__} has no adaptors or models to add to; the algorithms "
            "floral and ensemble do"
        )
    return server.active.shape[0]


def _like(before: PyTree, after: PyTree, part: str) -> PyTree:
    """The second tree, if the first has its structure."""
    ours, theirs = (jax.tree.structure(one) for one in (before, after))
    if ours != theirs:
        raise SpecError(
            f"grow: the simulator's {part} state has other parts than the given state's; build it "
            "with the same algorithm, model and settings, and more adaptors"
        )
    return after


def _extended(old: int, new: int, part: str) -> Any:
    """``(path, before, after) -> leaf``: the old leaf, longer by the new one's last entries along
    the axis of adaptors, if it has one."""

    def extended(path: Any, before: Array, after: Array) -> Array:
        if before.shape == after.shape and before.dtype == after.dtype:
            return before
        axes = [
            axis
            for axis, sizes in enumerate(zip(before.shape, after.shape, strict=False))
            if sizes == (old, new)
        ]
        if len(axes) != 1 or before.ndim != after.ndim or before.dtype != after.dtype:
            raise SpecError(
                f"grow: {part}{jax.tree_util.keystr(path)} is {before.dtype} of shape "
                f"{before.shape} and, in the simulator, {after.dtype} of {after.shape}; it may "
                f"differ in {new} adaptors for {old} alone"
            )
        (axis,) = axes
        added = jax.lax.slice_in_dim(after, old, new, axis=axis)
        return jnp.concatenate([before, added], axis=axis)

    return extended


def _members(newcomers: Sequence[int] | np.ndarray, logits: PyTree) -> Array:
    """[N] bool: who is a newcomer."""
    count = jax.tree.leaves(logits)[0].shape[0]
    ids = np.asarray(newcomers, np.int64)
    for client in ids[(ids < 0) | (ids >= count)][:1]:
        raise SpecError(f"grow: there is no client {client}; ids are 0 to {count - 1}")
    return jnp.zeros((count,), bool).at[ids].set(True)


def _logits(before: Array, added: int, share: float, joined: Array) -> Array:
    """Clients' logits [N, C] with entries for as many more adaptors: [N, C + k]."""
    bare = jnp.all(before == 0, axis=-1, keepdims=True)
    level = jax.nn.logsumexp(before, axis=-1, keepdims=True)
    level += jnp.log(share / ((1 - share) * added)) if share else -jnp.inf
    level = jnp.where(bare, 0.0, jnp.maximum(level, -LARGEST))
    known = jnp.concatenate([before, jnp.repeat(level, added, axis=-1)], axis=-1)
    new = jnp.arange(known.shape[-1]) >= before.shape[-1]
    return jnp.where(joined[:, None], jnp.where(new, 0.0, -LARGEST), known)
