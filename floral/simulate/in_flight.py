"""A bound on the rounds that wait on a CPU's devices.

JAX returns from a compiled call before it has run, and the host may call on. XLA's devices of a CPU
share one pool of threads: of some 60 rounds that wait, those of one device can take all threads
while a sum over devices waits for the other, and the process hangs. A loop that never reads a
result gets there.
"""

from collections import deque

import jax
from jax.core import Tracer
from jax.sharding import Mesh

from floral.typing import PyTree

__all__ = ["InFlight"]

_MOST = 2  # one that runs and one that follows it at once; each of many simulators has so many


class InFlight:
    """Lets the host be no more than two calls ahead where devices of a CPU sum over one another."""

    def __init__(self, mesh: Mesh):
        on_cpu = all(device.platform == "cpu" for device in mesh.devices.flat)
        self._bounded = on_cpu and mesh.size > 1
        self._ahead: deque[jax.Array] = deque()

    def add(self, results: PyTree) -> None:
        """Notes a call that was just made; waits for the one that is two calls older.

        Args:
          results: of the call, arrays that no later call takes the memory of; a call that was only
            traced has none and is not noted.
        """
        first = jax.tree.leaves(results)[0]
        if not self._bounded or isinstance(first, Tracer):
            return
        self._ahead.append(first)
        if len(self._ahead) > _MOST:
            oldest = self._ahead.popleft()
            if not oldest.is_deleted():  # the caller may have given its memory away
                oldest.block_until_ready()
