"""Named key streams: randomness is derived by what it is for, never by call order.

A new consumer of randomness takes a new name, and no other stream shifts.
"""

import zlib

import jax

from floral.typing import Array, Key

__all__ = ["stream"]


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
