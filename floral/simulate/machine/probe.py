"""A walk chosen by trial: a few numbers of clients side by side, each timed on real rounds.

Rules of thumb know the backend and what clients train, but not the caches of this machine, nor how
well its kernels take many small products at once. A trial knows, and takes some rounds and as many
compilations as there are numbers.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from floral.simulate.machine.host_memory import device_memory
from floral.simulate.machine.memory import check_alone
from floral.simulate.state import SimulationState
from floral.simulate.trainer import Trainer
from floral.typing import Key

__all__ = ["Probe", "Timings", "make_probe", "trial_chunks", "untimed"]

_TURNS = 3
_SHARE_OF_DEVICE = 1 / 2  # where the user gives no limit


class Probe(NamedTuple):
    """A walk that is yet to be timed.

    Attributes:
      program: SHA-256, in hex, of the round, its devices and JAX's versions: of equal ones the
        fastest walk is the same.
      measure: ``(clock=time.perf_counter) -> {clients side by side: seconds of a round}``; compiles
        and runs. Of several processes each calls it, and all get what the first measured.
    """

    program: str
    measure: Callable[..., dict[int, float]]


Timings = Callable[[Probe], Mapping[int, float]]
"""Seconds of a round by clients side by side: measured, remembered, or none at all."""


def untimed(probe: Probe) -> Mapping[int, float]:
    """No timings."""
    return {}


def trial_chunks(share: int) -> tuple[int, ...]:
    """The numbers of clients side by side that are tried: 1, 4, 16, ... and the whole share.

    A number is lowered where as many chunks can then be more alike, lest the last is mostly empty.

    Args:
      share: clients of a cohort on one device.

    Example:
      >>> trial_chunks(1), trial_chunks(50)
      ((1,), (1, 4, 13, 50))
    """
    tried, chunk = {share}, 1
    while chunk < share:
        tried.add(-(-share // -(-share // chunk)))
        chunk *= 4
    return tuple(sorted(tried))


def make_probe(
    trainer_of: Callable[[int], Trainer],
    needed: Callable[[int], int],
    init: Callable[[Key], SimulationState],
    struct: SimulationState,
    *,
    share: int,
    memory: int | None,
    mesh: Mesh,
) -> Probe:
    """The probe of one simulator.

    Args:
      trainer_of: the trainer of a number of clients side by side, the same whenever it is asked.
      needed: bytes of a device that its round takes; compiles it.
      init: a state to be thrown away: the rounds that are timed are its first.
      struct: its structs, on their devices.
      share: clients of a cohort on one device.
      memory: bytes of a device; numbers that need more are not tried. None is half of what it has.
      mesh: the devices.
    """

    def fitting() -> list[int]:
        limit = _of_the_first([_half(mesh) if memory is None else memory])[0]
        check_alone(needed(1), limit)
        chunks = trial_chunks(share)
        large = (index for index, chunk in enumerate(chunks) if needed(chunk) > limit)
        return [*chunks[: next(large, len(chunks))]]

    def measure(clock: Callable[[], float] = time.perf_counter) -> dict[int, float]:
        chunks = fitting()
        state = init(jax.random.key(0))

        def seconds(chunk: int) -> float:
            nonlocal state
            take = trainer_of(chunk).ready(state)
            begun = clock()
            state, _ = jax.block_until_ready(take())
            return clock() - begun

        for chunk in chunks:
            seconds(chunk)  # the first round compiles
        turns = [[seconds(chunk) for chunk in chunks] for _ in range(_TURNS)]
        medians = [statistics.median(times) for times in zip(*turns, strict=True)]
        return dict(zip(chunks, _of_the_first(medians), strict=True))

    program = trainer_of(1).lower(struct).as_text()
    return Probe(_digest(program, share, memory, mesh), measure)


def _half(mesh: Mesh) -> int:
    """Bytes that a device may take where no one says; those of a CPU share its memory."""
    device = mesh.local_devices[0]
    sharing = len(mesh.local_devices) if device.platform == "cpu" else 1
    return int(_SHARE_OF_DEVICE * device_memory(device)) // sharing


def _digest(program: str, share: int, memory: int | None, mesh: Mesh) -> str:
    device: Any = mesh.devices.flat[0]
    told = [device.platform, device.device_kind, mesh.size, jax.process_count(), share, memory]
    versions = [jax.__version__, version("jaxlib")]
    return hashlib.sha256(json.dumps([*told, *versions, program]).encode()).hexdigest()


def _of_the_first(numbers: list[float]) -> list[float]:
    """What process 0 has: processes that tried different numbers would wait for one another."""
    if jax.process_count() == 1:
        return numbers
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return np.asarray(broadcast_one_to_all(np.asarray(numbers, np.float32))).tolist()
