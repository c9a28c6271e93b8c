"""Clients' examples that stay on the host: each cohort is fetched when its turn comes.

Only arrays' slices are read, client by client, so an array may as well be a file mapped into
memory or a generator; with several processes each reads what its own devices need. What is done
for a cohort takes the time of the cohort, however large the population is.
"""

import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from floral.data import FederatedDataset
from floral.data.storage.aligned import aligned_zeros
from floral.errors import DataError
from floral.simulate.clients import Holdings
from floral.simulate.shard import sharded

__all__ = ["Feed", "Prefetch"]

_UNREADABLE = (EOFError, OSError, ValueError)  # as files, mappings and rows of no one shape raise
_PATIENCE = 2.0  # seconds that a process waits at its end for a fetch that no one will use


class Feed:
    """Puts clients' examples on the devices that walk them.

    The room on a device is what the largest clients would take, whoever comes: a program is
    compiled once for each number of clients. A client without examples starts at the device's first
    row, which is a real example whoever comes: its computations, which nobody reads, stay finite.
    """

    def __init__(self, dataset: FederatedDataset, mesh: Mesh):
        self._dataset = dataset
        self._mesh = mesh
        self._rooms: dict[tuple[str, int], int] = {}

    def __call__(self, split: str, ids: np.ndarray) -> Holdings:
        """What these clients [K] hold of a split; K a multiple of the devices, N for nobody.

        Raises:
          DataError: if a client's rows cannot be read; it names the client, split and field, as
            a note does on whatever else is raised where they are made.
        """
        fields = self._dataset.splits[split].examples
        by_device = ids.reshape(self._mesh.size, -1)
        sizes = self._sizes(split, by_device)
        starts = np.where(sizes > 0, np.cumsum(sizes, axis=1) - sizes, 0).astype(np.int32)
        room = self._room(split, by_device.shape[1])
        here = jax.process_index()
        pieces: dict[str, list[jax.Array]] = {field: [] for field in fields}
        for place, device in enumerate(self._mesh.devices.flat):
            if device.process_index != here:
                continue
            rows = {f: aligned_zeros((room, *a.shape[1:]), a.dtype) for f, a in fields.items()}
            for client, start, size in zip(
                by_device[place], starts[place], sizes[place], strict=True
            ):
                if size:
                    self._read(split, client, {f: r[start : start + size] for f, r in rows.items()})
            if room and not sizes[place].any():
                self._read_first(split, {f: r[:1] for f, r in rows.items()})
            for field, flat in rows.items():
                pieces[field].append(jax.device_put(flat, device))
        examples = {
            field: jax.make_array_from_single_device_arrays(
                (self._mesh.size * room, *array.shape[1:]), sharded(self._mesh), pieces[field]
            )
            for field, array in fields.items()
        }
        return Holdings(examples, self._spread(starts.reshape(-1)), self._spread(sizes.reshape(-1)))

    def _read_first(self, split: str, into: Mapping[str, np.ndarray]) -> None:
        """Reads one example of the first client that has any."""
        client = int(np.argmax(self._dataset.splits[split].sizes > 0))
        self._read(split, client, into, limit=1)

    def _read(
        self, split: str, client: int, into: Mapping[str, np.ndarray], limit: int | None = None
    ) -> None:
        """Reads all fields of a client, one after another: what makes rows makes them together."""
        part = self._dataset.splits[split]
        first, last = part.offsets[client], part.offsets[client + 1]
        last = last if limit is None else min(last, first + limit)
        for field, rows in into.items():
            with _Reading(f"client {client}, split {split!r}: {field!r}"):
                read = np.asarray(part.examples[field][first:last])
            if read.shape != rows.shape:
                raise DataError(
                    f"client {client}, split {split!r}: {field!r} has shape {list(read.shape)}, "
                    f"expected {list(rows.shape)}"
                )
            rows[...] = read

    def _sizes(self, split: str, ids: np.ndarray) -> np.ndarray:
        """How many examples each client has, int32; none for N."""
        offsets, count = self._dataset.splits[split].offsets, self._dataset.num_clients
        known = np.minimum(ids, count - 1)
        return np.where(ids < count, offsets[known + 1] - offsets[known], 0).astype(np.int32)

    def _room(self, split: str, count: int) -> int:
        """The examples of so many of the largest clients."""
        if (split, count) not in self._rooms:
            sizes = self._dataset.splits[split].sizes
            least = max(0, len(sizes) - count)
            self._rooms[split, count] = int(np.partition(sizes, least)[least:].sum())
        return self._rooms[split, count]

    def _spread(self, values: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(
            values.shape, sharded(self._mesh), lambda index: values[index]
        )


class _Reading:
    """Names the rows that were being read when something failed.

    What cannot be read is a DataError; any other error, of the code that makes the rows, stays what
    it is and has a note.
    """

    def __init__(self, rows: str):
        self._rows = rows

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, _UNREADABLE):
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"{self._rows} cannot be read: {reason}") from error
        if error is not None:
            error.add_note(f"{self._rows} was being read")


class Prefetch:
    """The cohort of the next round, fetched in a thread while this round trains.

    What goes wrong there is raised where the cohort is asked for, and nowhere if it never is. A
    process that ends waits for a fetch a moment only: the thread is a daemon. There is one for all
    fetches, since the memory that a thread has used serves its next fetch, but no other thread's.
    """

    def __init__(self, draw: Callable[[Any, int], np.ndarray], fetch: Callable[[Any], Any]):
        """Args: ``draw (key, round) -> ids`` on the host, and ``fetch (ids) -> cohort``."""
        self._draw = draw
        self._fetch = fetch
        self._ahead: dict[tuple[bytes, int], Future[Any]] = {}
        self._tasks: SimpleQueue[Any] = SimpleQueue()
        self._worker: Thread | None = None
        weakref.finalize(self, _end, self._tasks, self._ahead)

    def __call__(self, key: jax.Array, round_index: int) -> Any:
        """The cohort of this round; the next one is begun."""
        words = np.asarray(jax.random.key_data(key)).tobytes()
        now, following = (words, round_index), (words, round_index + 1)
        if now not in self._ahead:
            self._ahead[now] = self._begin(key, round_index)
        ready = self._ahead[now]
        wait([ready])
        del self._ahead[now]
        cohort = ready.result()
        for other in self._ahead.keys() - {following}:  # of another state
            self._ahead.pop(other).cancel()
        if following not in self._ahead:
            self._ahead[following] = self._begin(key, round_index + 1)
        return cohort

    def alone(self, key: jax.Array, round_index: int) -> Any:
        """The cohort of this round, fetched now; no other is begun."""
        return self._prepare(key, round_index)

    def _begin(self, key: jax.Array, round_index: int) -> Future[Any]:
        if self._worker is None:
            arguments = (self._tasks,)
            self._worker = Thread(target=_work, args=arguments, name="floral-feed", daemon=True)
            self._worker.start()
        future: Future[Any] = Future()
        self._tasks.put((future, partial(self._prepare, key, round_index)))
        return future

    def _prepare(self, key: jax.Array, round_index: int) -> Any:
        return self._fetch(self._draw(key, round_index))


def _work(tasks: "SimpleQueue[Any]") -> None:
    """Does one task after another until there is None; idle, it holds on to nothing."""
    while (task := tasks.get()) is not None:
        future, do = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(do())
            except BaseException as error:
                future.set_exception(error)
        del task, future, do


def _end(tasks: "SimpleQueue[Any]", ahead: Mapping[Any, Future[Any]]) -> None:
    """At the end of a process: a thread stopped amid a fetch may take the process down with it."""
    tasks.put(None)
    wait(ahead.values(), timeout=_PATIENCE)
