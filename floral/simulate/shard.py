"""A cohort over devices: who goes where, and one function on every device at once.

The state is replicated; a cohort's clients are dealt to the devices by size, so that all finish
together and clients that stand side by side are alike.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from floral.typing import Array, PyTree

__all__ = [
    "AXIS",
    "deal",
    "make_mesh",
    "on_each_device",
    "replicate",
    "replicated",
    "sharded",
    "share_of",
    "summed",
    "summed_as_one",
]

AXIS = "clients"
"""The name of the mesh axis that a cohort is spread over."""


def make_mesh(devices: Sequence[Any]) -> Mesh:
    """The devices in a row."""
    return Mesh(np.asarray(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The tree on every device of the mesh; untouched where it is there, or is being traced."""
    target = replicated(mesh)
    leaves = jax.tree.leaves(tree)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return tree
    if all(isinstance(leaf, jax.Array) and leaf.sharding == target for leaf in leaves):
        return tree
    if target.is_fully_addressable:
        return jax.device_put(tree, target)
    return jax.tree.map(lambda leaf: _spread_out(leaf, target), tree)


def _spread_out(leaf: Any, target: NamedSharding) -> jax.Array:
    """A value that every process holds, as one array over the devices of all.

    Nothing is sent, nor checked: a thread may do this while another runs collectives.
    """
    if isinstance(leaf, jax.Array):
        if leaf.sharding == target:
            return leaf
        if not leaf.is_fully_replicated:
            return jax.jit(_same, out_shardings=target)(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = _spread_out(jax.random.key_data(leaf), target)
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    value = np.asarray(leaf)
    value = value.astype(jax.dtypes.canonicalize_dtype(value.dtype), copy=False)
    return jax.make_array_from_callback(value.shape, target, lambda index: value[index])


def _same(leaf: Array) -> Array:
    return leaf


def share_of(cohort: int, devices: int, chunk: int = 1) -> int:
    """Places on one device for a cohort: its share in whole chunks."""
    return -(-cohort // (devices * chunk)) * chunk


def deal(sizes: Array | np.ndarray, devices: int, share: int, chunk: int = 1) -> Any:
    """An order of the places of a cohort, device after device, that shares out the work.

    Chunks of clients of about one size, the largest first, are dealt back and forth: a chunk waits
    little for its longest client, and the devices for the slowest of them.

    Args:
      sizes: [devices * share], examples of each place, 0 for an empty one; an array of NumPy's is
        dealt on the host, one of JAX's on its device.
      devices: how many.
      share: places on each, a multiple of the chunk.
      chunk: clients side by side.

    Returns:
      [devices * share] integers, a permutation, as an array of the same kind.

    Example:
      >>> deal(jnp.array([5, 9, 0, 7]), 2, 2).tolist()
      [1, 2, 3, 0]
    """
    xp = sizes.__array_namespace__()
    largest_first = xp.argsort(-sizes, stable=True)
    turns = largest_first.reshape(share // chunk, devices, chunk)
    backwards = xp.arange(share // chunk)[:, None, None] % 2 == 1
    back_and_forth = xp.where(backwards, turns[:, ::-1], turns)
    return back_and_forth.transpose(1, 0, 2).reshape(-1)


def on_each_device(
    function: Callable[..., Any], mesh: Mesh, *, split: Sequence[Any], joined: Any
) -> Callable[..., Any]:
    """A function run on every device, on its own share of some arguments.

    Args:
      function: what each device does.
      mesh: the devices; with one of them the function is returned as it is.
      split: for each argument a prefix of bools: whether leading axes are split over the devices;
        what is not is whole everywhere.
      joined: a prefix of the results of bools: whether shares are joined along their leading axes;
        what is not must come out alike on all devices.
    """
    if mesh.size == 1:
        return function

    def specs(splits: Any) -> Any:
        return jax.tree.map(lambda yes: PartitionSpec(AXIS) if yes else PartitionSpec(), splits)

    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=tuple(specs(splits) for splits in split),
        out_specs=specs(joined),
        # A user's own loops need not say which of their carries vary from device to device.
        check_vma=False,
    )


def summed(tree: PyTree, mesh: Mesh) -> PyTree:
    """The sum over devices of what each holds, on all of them; inside ``on_each_device``.

    Between processes every array that is sent costs a message and its wait, whatever its size, so
    arrays of one type go as one.
    """
    if mesh.size == 1:
        return tree
    return summed_as_one(tree) if mesh.is_multi_process else jax.lax.psum(tree, AXIS)


def summed_as_one(tree: PyTree) -> PyTree:
    """``psum`` over ``AXIS`` of arrays that are first joined to one of each type."""
    leaves, treedef = jax.tree.flatten(tree)
    found = list(leaves)
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        places = [place for place, leaf in enumerate(leaves) if leaf.dtype == dtype]
        ends = np.cumsum([leaves[place].size for place in places])
        joined = jnp.concatenate([leaves[place].ravel() for place in places])
        parts = jnp.split(jax.lax.psum(joined, AXIS), ends[:-1])
        for place, part in zip(places, parts, strict=True):
            found[place] = part.reshape(leaves[place].shape)
    return jax.tree.unflatten(treedef, found)
