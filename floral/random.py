"""Named key streams: randomness is derived by what it is for, never by call order.

A new consumer of randomness takes a new name, and no other stream shifts.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp

from floral.check import described
from floral.errors import SpecError
from floral.typing import Array, Key, PyTree

__all__ = ["check_key", "rekeyed", "stream"]


def check_key(key: Any) -> None:
    """Raises SpecError unless it is one typed PRNG key.

    Example:
      >>> check_key(0)
      Traceback (most recent call last):
      floral.errors.SpecError: expected a key, as jax.random.key(0), got int 0
    """
    typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if typed and key.shape == ():
        return
    old = not typed and hasattr(key, "dtype") and str(key.dtype) == "uint32" and key.shape == (2,)
    hint = "; jax.random.wrap_key_data(key) makes one of it" if old else ""
    raise SpecError(f"expected a key, as jax.random.key(0), got {described(key)}{hint}")


def stream(key: Key, name: str, *indices: int | Array) -> Key:
    """The key of the stream ``name`` at the given indices (a round, a client, …).

    Folds the CRC-32 of the name into the key, then each index in turn.

    Args:
      key: a typed key; it may go on serving other streams.
      name: what the randomness is for, such as ``"order"``.
      indices: integers, possibly traced.

    Example:
      >>> key = jax.random.key(0)
      >>> bool((stream(key, "order", 3) == stream(key, "order", 3)).all())
      True
      >>> bool((stream(key, "order", 3) == stream(key, "cohort", 3)).all())
      False
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key


def rekeyed(tree: PyTree, key: Key) -> PyTree:
    """The tree with every random key in it made the given key's own, each by its path.

    Optax keeps the key of its noise in the optimizer's state, which starts from one fixed seed:
    two clients that start anew would draw the same noise. A key of the tree is folded with bits of
    ``key``, so that its kind and its seed still count. All other leaves stay as they are.

    Args:
      tree: any state. Keys are typed, or raw as ``jax.random.PRNGKey`` has them: uint32 [..., 2]
        (or as many words as JAX's default kind of key).
      key: a typed key.

    Example:
      >>> state = {"count": jnp.zeros(()), "key": jax.random.key(7)}
      >>> one, two = (rekeyed(state, jax.random.key(seed)) for seed in (0, 1))
      >>> bool(one["key"] == two["key"]), float(one["count"])
      (False, 0.0)
    """
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape

    def own(path: tuple[Any, ...], leaf: Any) -> Any:
        dtype = jnp.result_type(leaf)
        bits = jax.random.bits(stream(key, jax.tree_util.keystr(path)), (2,))
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            return _folded(leaf, bits)
        if dtype == jnp.uint32 and jnp.shape(leaf)[-1:] == words:
            return jax.random.key_data(_folded(jax.random.wrap_key_data(leaf), bits))
        return leaf

    return jax.tree_util.tree_map_with_path(own, tree)


def _folded(keys: Key, bits: Array) -> Key:
    """Keys [...], each folded with the bits and with its own place."""

    def fold(one: Key, place: Array) -> Key:
        for number in (*bits, place):
            one = jax.random.fold_in(one, number)
        return one

    flat = keys.reshape(-1)
    return jax.vmap(fold)(flat, jnp.arange(flat.shape[0])).reshape(keys.shape)
