"""What a round needs of memory, as the compiler counts it, and the chunk that fits a limit."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from floral import tree
from floral.errors import SpecError
from floral.simulate.clients import DeviceData

__all__ = ["Memory", "largest_chunk", "predicted"]


class Memory(NamedTuple):
    """Bytes of a round, summed over this process's devices unless said otherwise.

    Attributes:
      population: the clients' data on the devices; a CPU's devices share one copy.
      state: the state that a round is given.
      outputs: the state and metrics that it returns, where they take no memory of the state's.
      temporaries: all it needs besides.
      host: what one cohort takes on the host, where the population stays there, and the table of
        clients' rows, where that lies in the host's memory.
      device: the whole of one device, which must fit into it.
    """

    population: int
    state: int
    outputs: int
    temporaries: int
    host: int
    device: int

    @property
    def peak(self) -> int:
        """The most that is held at one time."""
        return self.population + self.state + self.outputs + self.temporaries + self.host


def predicted(
    compiled: jax.stages.Compiled, data: DeviceData, *, devices: int, shared: bool, host: int = 0
) -> Memory:
    """The memory of a compiled round.

    Args:
      compiled: the round.
      data: the population on the devices.
      devices: how many of them are this process's.
      shared: whether they share the population's memory, as those of a CPU do.
      host: bytes on the host.

    Raises:
      SpecError: on a backend that counts no memory.
    """
    counted = compiled.memory_analysis()
    if counted is None:
        raise SpecError("this backend does not tell how much memory a compiled round needs")
    population = tree.num_bytes(data)
    given = counted.argument_size_in_bytes
    new = counted.output_size_in_bytes - counted.alias_size_in_bytes
    return Memory(
        population=population * (1 if shared else devices),
        state=max(0, given - population) * devices,
        outputs=new * devices,
        temporaries=counted.temp_size_in_bytes * devices,
        host=host,
        device=given + new + counted.temp_size_in_bytes,
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
    if alone > limit:
        raise SpecError(
            f"execution.memory: a round of one client at a time needs {_mebibytes(alone)} of a "
            f"device, more than the limit of {_mebibytes(limit)}"
        )
    if share == 1:
        return 1
    each = needed(2) - alone
    chunk = min(share, 1 + (limit - alone) // each) if each > 0 else share
    while chunk > 1 and needed(chunk) > limit:
        chunk //= 2
    return chunk


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
