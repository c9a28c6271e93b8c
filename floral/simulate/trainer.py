"""Rounds, compiled: one at a time or many in one call, from data on the devices or on the host."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from floral import check
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching
from floral.simulate.clients import DeviceData
from floral.simulate.feed import Feed, Prefetch
from floral.simulate.in_flight import InFlight
from floral.simulate.round import Cohort, make_draw, make_round
from floral.simulate.sampling import Sampler
from floral.simulate.shard import replicate, replicated, sharded
from floral.simulate.state import SimulationState, parts_of_state
from floral.simulate.table import check_current, check_state, read_rows, without_round, write_rows
from floral.typing import PyTree
from floral.uplink.base import Uplink

__all__ = ["Trainer"]

_ROOM = 128  # rounds in one compiled call


class Trainer:
    """Takes rounds; a simulator's own, made by ``make_simulator``.

    Where data live on the devices a round draws its cohort itself, and many rounds are one call.
    Where they live on the host, the cohort of the next round is drawn and fetched while this one
    trains, and rounds are calls of their own. So they are where clients' rows live on the host:
    a cohort's are read once the round before has written its own.
    """

    def __init__(
        self,
        algorithm: FederatedAlgorithm,
        uplink: Uplink,
        sampler: Sampler,
        batching: Batching,
        mesh: Mesh,
        data: DeviceData,
        feed: Feed | None,
        struct: SimulationState,
        *,
        max_size: int,
        chunk: int,
        donate: bool,
        rows_on_host: bool,
        prepare: Callable[[Callable[..., Any]], Callable[..., Any]],
    ):
        self._mesh = mesh
        self._data = data
        self._in_flight = InFlight(mesh)
        self._struct = struct
        draw = make_draw(sampler, devices=mesh.size, chunk=chunk)
        take = make_round(
            algorithm,
            uplink,
            draw,
            batching,
            mesh,
            max_size=max_size,
            chunk=chunk,
            by_place=rows_on_host,
        )
        donated = (0,) if donate else ()

        def many(state, data, count):
            _, struct = jax.eval_shape(take, state, data)
            history = jax.tree.map(lambda leaf: jnp.zeros((_ROOM, *leaf.shape), leaf.dtype), struct)

            def again(index, carry):
                state, history = carry
                state, metrics = take(state, data)
                return state, jax.tree.map(lambda h, new: h.at[index].set(new), history, metrics)

            return jax.lax.fori_loop(0, count, again, (state, history))

        # Whole everywhere, lest the compiler leaves a part where another process cannot read it.
        everywhere = replicated(mesh)
        rows_at = sharded(mesh) if rows_on_host else everywhere
        self._one = jax.jit(
            prepare(take),
            donate_argnums=donated,
            out_shardings=(parts_of_state(rows=rows_at, rest=everywhere), everywhere),
        )
        self._many = jax.jit(prepare(many), donate_argnums=donated, out_shardings=everywhere)
        self._host = jax.local_devices(backend="cpu")[0]
        self._rows_on_host = rows_on_host
        self._fetch = partial(_cohort_of, feed, mesh)
        self._prefetch = None
        if feed is not None or rows_on_host:
            self._prefetch = Prefetch(self._host_draw(draw), self._fetch)

    def round(self, state: SimulationState) -> tuple[SimulationState, dict[str, Any]]:
        """One round: the next state, and its metrics as sums and counts."""
        return self._round_of(state, self._prefetch)()

    def ready(self, state: SimulationState) -> Callable[[], tuple[SimulationState, dict[str, Any]]]:
        """A round that is yet to be called, its cohort fetched: none of another is begun."""
        fetch = None if self._prefetch is None else self._prefetch.alone
        return self._round_of(state, fetch)

    def _round_of(
        self, state: SimulationState, fetch: Callable[[jax.Array, int], Cohort] | None
    ) -> Callable[[], tuple[SimulationState, dict[str, Any]]]:
        check_state(state)
        table = state.table
        own, best = self._ready(state)
        cohort = None if fetch is None else fetch(self._host_key(own.key), int(own.round))

        def take() -> tuple[SimulationState, dict[str, Any]]:
            if cohort is not None and self._rows_on_host:
                after, metrics = self._between(table, own, cohort)
            else:
                after, metrics = self._one(own, self._data, cohort)
            self._in_flight.add(metrics)
            return after._replace(best=best), metrics

        return take

    def _between(
        self, table: PyTree, state: SimulationState, cohort: Cohort
    ) -> tuple[SimulationState, dict[str, Any]]:
        """A round between reading its cohort's rows from the host and writing them there."""
        ids, taken = np.asarray(cohort.ids), int(table["round"])
        rows = jax.device_put(read_rows(table, ids), sharded(self._mesh))
        state, metrics = self._one(state._replace(table=rows), self._data, cohort)
        write_rows(table, ids, state.table, taken + 1)
        return state._replace(table=table), metrics

    def rounds(self, state: SimulationState, count: int) -> tuple[SimulationState, dict[str, Any]]:
        """``count`` rounds, in as few compiled calls as may be; metrics have a leading axis.

        Where data or rows live on the host, each round is a call of its own.
        """
        check.positive_int(count=count)
        if self._prefetch is not None:
            taken = []
            for _ in range(count):
                state, metrics = self.round(state)
                taken.append(metrics)
            return state, jax.tree.map(lambda *values: jnp.stack(values), *taken)
        state, best = self._ready(state)
        blocks = []
        for first in range(0, count, _ROOM):
            size = min(_ROOM, count - first)
            state, history = self._many(state, self._data, np.int32(size))
            self._in_flight.add(history)
            blocks.append(jax.tree.map(lambda leaf, size=size: leaf[:size], history))
        joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *blocks)
        return state._replace(best=best), joined

    def lower(self, state: SimulationState) -> jax.stages.Lowered:
        """A round of this state, or of its structs, not yet compiled."""
        return self._one.lower(*self.arguments(state))

    def arguments(
        self, state: SimulationState
    ) -> tuple[SimulationState, DeviceData, Cohort | None]:
        """What a round of this state, or of its structs, is called with, its cohort of nobody."""
        cohort = None
        if self._prefetch is not None:
            nobody = self._data.offsets["train"].shape[0] - 1
            ids = np.full(jax.eval_shape(self._draw_struct).shape, nobody, np.int32)
            cohort = self._fetch(ids)
            if self._rows_on_host:
                state = state._replace(table=self._rows_struct(state.table, len(ids)))
        return state._replace(best=()), self._data, cohort

    def _rows_struct(self, table: PyTree, count: int) -> PyTree:
        return jax.tree.map(
            lambda column: jax.ShapeDtypeStruct(
                (count, *column.shape[1:]), column.dtype, sharding=sharded(self._mesh)
            ),
            without_round(table),
        )

    def _ready(self, state: SimulationState) -> tuple[SimulationState, PyTree]:
        """The state on the devices, without the best snapshot, which no round reads or may take,
        and without rows that live on the host."""
        check_current(state, self._struct, host=self._rows_on_host)
        best = state.best
        if self._rows_on_host:
            state = state._replace(table=())
        return replicate(state._replace(best=()), self._mesh), best

    def _host_draw(self, draw: Callable[..., Any]) -> Callable[[jax.Array, int], np.ndarray]:
        """The draw on the host's own device, which does not wait for the round that trains."""
        data = jax.device_put(
            jax.tree.map(np.asarray, self._data._replace(examples={}, traits={})), self._host
        )
        draw_on_host = jax.jit(draw)
        self._draw_struct = lambda: draw(jax.random.key(0), jnp.zeros((), jnp.int32), data)

        def ids(key: jax.Array, round_index: int) -> np.ndarray:
            here = jax.device_put(np.int32(round_index), self._host)
            return np.asarray(draw_on_host(key, here, data))

        return ids

    def _host_key(self, key: jax.Array) -> jax.Array:
        """The key on the host's own device: one of a state may be gone once its round has begun."""
        words = jax.device_put(np.asarray(jax.random.key_data(key)), self._host)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))


def _cohort_of(feed: Feed | None, mesh: Mesh, ids: np.ndarray) -> Cohort:
    """A cohort as a round takes it, with its examples where these live on the host."""
    held = None if feed is None else feed("train", ids)
    return Cohort(replicate(ids.astype(np.int32), mesh), held)
