"""What a round needs of memory, as the compiler counts it, and the chunk that fits a limit.

Not counted is what kernels allocate for themselves while they run. On a CPU that is little but for
two kinds: products that XLA hands to YNNPACK, as it does by default, and convolutions of many
clients side by side, each with kernels of its own. ``experiments/bench/memory.py`` measures both.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from floral import tree
from floral.errors import SpecError
from floral.simulate.clients import DeviceData
from floral.typing import PyTree

__all__ = ["Memory", "check_alone", "largest_chunk", "predicted"]


class Memory(NamedTuple):
    """Bytes of a round, summed over this process's devices unless said otherwise.

    Attributes:
      population: the clients' data on the devices; a CPU's devices share one copy.
      state: the state that a round is given.
      outputs: the state and metrics that it returns, where they take no memory of the state's.
      temporaries: all it needs besides.
      cohorts: where the population stays on the host, the examples of two cohorts: of the one that
        trains, and of the next, which is fetched meanwhile. While it is fetched, an accelerator's
        host holds them as well.
      host: the table of clients' rows, where that lies in the host's memory.
      device: the whole of one device, which must fit into it.
    """

    population: int
    state: int
    outputs: int
    temporaries: int
    cohorts: int
    host: int
    device: int

    @property
    def peak(self) -> int:
        """The most that is held at one time."""
        on_devices = self.population + self.state + self.outputs + self.temporaries
        return on_devices + self.cohorts + self.host


def predicted(
    compiled: jax.stages.Compiled,
    data: DeviceData,
    state: PyTree,
    *,
    devices: int,
    shared: bool,
    cohort: PyTree = None,
    host: int = 0,
) -> Memory:
    """The memory of a compiled round.

    Args:
      compiled: the round.
      data: the population on the devices.
      state: what the round is given, arrays or structs on their devices.
      devices: how many of them are this process's.
      shared: whether they share the population's memory, as those of a CPU do.
      cohort: a round's cohort, where it is an argument of the round.
      host: bytes on the host besides.

    Raises:
      SpecError: on a backend that counts no memory.
    """
    counted = compiled.memory_analysis()
    if counted is None:
        raise SpecError("this backend does not tell how much memory a compiled round needs")
    population = tree.num_bytes(data)
    fetched = _bytes_of_a_device(cohort)
    # Not the compiler's count of arguments: it leaves out those that the round does not read.
    held = _bytes_of_a_device(state)
    new = counted.output_size_in_bytes - counted.alias_size_in_bytes
    return Memory(
        population=population * (1 if shared else devices),
        state=held * devices,
        outputs=new * devices,
        temporaries=counted.temp_size_in_bytes * devices,
        cohorts=2 * fetched * devices,
        host=host,
        device=population + held + new + counted.temp_size_in_bytes + 2 * fetched,
    )


def largest_chunk(needed: Callable[[int], int], *, share: int, limit: int) -> int:
    """The most clients side by side whose round fits: two trials, one guess, and its proof.

    Memory grows linearly with the clients side by side; a guess that does not fit is halved.

    Args:
      needed: bytes of a device's round by clients side by side; each call compiles.
      share: clients of a cohort on one device.
      limit: bytes of a device.

    Raises:
      SpecError: if not even one client fits.

    Example:
      >>> largest_chunk(lambda chunk: 100 + 30 * chunk, share=50, limit=1000)
      30
    """
    alone = needed(1)
    check_alone(alone, limit)
    if share == 1:
        return 1
    each = needed(2) - alone
    chunk = min(share, 1 + (limit - alone) // each) if each > 0 else share
    while chunk > 1 and needed(chunk) > limit:
        chunk //= 2
    return chunk


def check_alone(alone: int, limit: float) -> None:
    """Raises SpecError if a round of one client at a time needs more than the limit, in bytes."""
    if alone > limit:
        raise SpecError(
            f"execution.memory: a round of one client at a time needs {_mebibytes(alone)} of a "
            f"device, more than the limit of {_mebibytes(limit)}"
        )


def _bytes_of_a_device(arrays: PyTree) -> int:
    """What one device holds of arrays, or structs, that are spread over several."""
    return tree.num_bytes(
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype),
            arrays,
        )
    )


def _mebibytes(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"
