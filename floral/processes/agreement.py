"""Several processes that take one run together: who decides, who writes, how all agree.

Every process takes part in every round, evaluation and save. What only the host knows (the name of
a new folder, how fast rounds are, whether someone pressed Ctrl-C) is settled between them, so that
all take the same steps; files are written, and progress is shown, by process 0 alone.
"""

import functools
import pickle
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import numpy as np

from floral.errors import ConfigError, FloralError

__all__ = [
    "anyone",
    "broadcast_from_first",
    "check_devices",
    "is_distributed",
    "is_first",
    "on_first_process",
]

_ROOM = 1024  # bytes of the smallest message: few sizes are few compilations

T = TypeVar("T")
P = ParamSpec("P")


def check_devices() -> None:
    """Raises ConfigError where JAX has no device, as with ``JAX_PLATFORMS=cuda`` and no GPU."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # jax#23208: of cuda a bare assertion fails
        asked = getattr(jax.config, "jax_platforms", None)
        if asked and asked != "cpu":
            raise ConfigError(
                f"JAX_PLATFORMS={asked}: no such device here; set JAX_PLATFORMS=cpu, or unset it"
            ) from error
        reason = " ".join(str(error).split())
        raise ConfigError(f"JAX finds no device here: {reason}") from error


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is process 0, which decides and writes."""
    return jax.process_index() == 0


def on_first_process(write: Callable[P, None]) -> Callable[P, None]:
    """``write``, done by process 0 and left out by the others."""

    @functools.wraps(write)
    def first_writes(*args: P.args, **kwargs: P.kwargs) -> None:
        if is_first():
            write(*args, **kwargs)

    return first_writes


def broadcast_from_first(make: Callable[[], T]) -> T:
    """What process 0 makes, on every process; they wait for it.

    Args:
      make: called by process 0 alone; gives something that can be pickled.

    Raises:
      FloralError: on all of them, if process 0 is refused.
    """
    if not is_distributed():
        return make()
    message = b""
    if is_first():
        try:
            message = pickle.dumps((make(), None))
        except FloralError as error:
            message = pickle.dumps((None, error))
    value, error = pickle.loads(_from_the_first(message))
    if error is not None:
        raise error
    return value


def anyone(wish: bool) -> bool:
    """Whether any process wishes it; all ask at the same point."""
    if not is_distributed():
        return wish
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.any(process_allgather(np.int32(wish))))


def _from_the_first(message: bytes) -> bytes:
    from jax.experimental.multihost_utils import broadcast_one_to_all

    size = int(broadcast_one_to_all(np.int32(len(message))))
    room = np.zeros(max(_ROOM, 1 << (size - 1).bit_length()), np.uint8)
    room[: len(message)] = np.frombuffer(message, np.uint8)
    return np.asarray(broadcast_one_to_all(room))[:size].tobytes()
