"""Clients' examples that stay on the host: each cohort is fetched when its turn comes.

Only arrays' slices are read, client by client, so an array may as well be a file mapped into
memory or a generator; with several processes each reads what its own devices need.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from floral.data import FederatedDataset
from floral.simulate.clients import Holdings
from floral.simulate.round import Cohort
from floral.simulate.shard import replicate, sharded

__all__ = ["Feed", "Prefetch"]


class Feed:
    """Puts clients' examples on the devices that walk them.

    The room on a device is what the largest clients would take, whoever comes: a program is
    compiled once for each number of clients.
    """

    def __init__(self, dataset: FederatedDataset, mesh: Mesh):
        self._dataset = dataset
        self._mesh = mesh

    def __call__(self, split: str, ids: np.ndarray) -> Holdings:
        """What these clients [K] hold of a split; K a multiple of the devices, N for nobody."""
        part = self._dataset.splits[split]
        by_device = ids.reshape(self._mesh.size, -1)
        starts, sizes = self._layout(split, by_device)
        room = int(np.sort(part.sizes)[::-1][: by_device.shape[1]].sum())
        here = jax.process_index()
        examples = {}
        for field, array in part.examples.items():
            pieces = []
            for place, device in enumerate(self._mesh.devices.flat):
                if device.process_index != here:
                    continue
                flat = np.zeros((room, *array.shape[1:]), array.dtype)
                for client, start, size in zip(
                    by_device[place], starts[place], sizes[place], strict=True
                ):
                    first = part.offsets[client] if size else 0
                    flat[start : start + size] = array[first : first + size]
                pieces.append(jax.device_put(flat, device))
            shape = (self._mesh.size * room, *array.shape[1:])
            examples[field] = jax.make_array_from_single_device_arrays(
                shape, sharded(self._mesh), pieces
            )
        return Holdings(examples, self._spread(starts.reshape(-1)), self._spread(sizes.reshape(-1)))

    def cohort(self, ids: np.ndarray) -> Cohort:
        """A cohort and its training examples."""
        return Cohort(replicate(ids.astype(np.int32), self._mesh), self("train", ids))

    def _layout(self, split: str, by_device: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each client's examples start on its device, and how many there are."""
        known = np.append(self._dataset.splits[split].sizes, 0)
        sizes = known[np.minimum(by_device, len(known) - 1)]
        starts = np.cumsum(sizes, axis=1) - sizes
        return starts.astype(np.int32), sizes.astype(np.int32)

    def _spread(self, values: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(
            values.shape, sharded(self._mesh), lambda index: values[index]
        )


class Prefetch:
    """The cohort of the next round, fetched while this round trains."""

    def __init__(self, draw: Callable[[Any, int], np.ndarray], fetch: Callable[[Any], Any]):
        """Args: ``draw (key, round) -> ids`` on the host, and ``fetch (ids) -> cohort``."""
        self._draw = draw
        self._fetch = fetch
        self._ahead: dict[tuple[bytes, int], Future[Any]] = {}
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="floral-feed")

    def __call__(self, key: jax.Array, round_index: int) -> Any:
        """The cohort of this round; the next one is begun."""
        words = np.asarray(jax.random.key_data(key)).tobytes()
        ready = self._ahead.pop((words, round_index), None)
        cohort = self._prepare(key, round_index) if ready is None else ready.result()
        for future in self._ahead.values():
            future.cancel()
        self._ahead = {
            (words, round_index + 1): self._worker.submit(self._prepare, key, round_index + 1)
        }
        return cohort

    def _prepare(self, key: jax.Array, round_index: int) -> Any:
        return self._fetch(self._draw(key, round_index))
