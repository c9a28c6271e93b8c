"""The state before the first round: the server's start, and every client's row from its own key.

Rows that live on the host come there a block at a time: the devices never hold them all.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh

from floral import check, tree
from floral.algorithms.base import FederatedAlgorithm
from floral.errors import SpecError
from floral.messages import Upload
from floral.models import Model
from floral.random import check_key, rekeyed, stream
from floral.simulate.checks.trainable import check_params, check_stats
from floral.simulate.clients import DeviceData
from floral.simulate.machine.execution import Execution, folder_of_rows, rows_on_host
from floral.simulate.shard import replicate
from floral.simulate.state import SimulationState, gather_rows
from floral.simulate.table import new_table, write_rows
from floral.typing import Array, Batch, Key, Params, PyTree
from floral.uplink import Uplink

__all__ = ["Server", "Start", "make_start", "server_start"]

Server = Callable[..., Any]
"""``(key, params=None) -> server state``."""

_AT_ONCE = 2**24  # bytes of clients' rows that are made at once, where these live on the host


class Start(NamedTuple):
    """How runs begin.

    Attributes:
      init: ``(key, params=None) -> SimulationState``.
      struct: that state as structs, as it is with all rows on the devices.
      new_table: ``() -> table`` of zeros for rows on the host; None where they are on the devices.
      in_memory: bytes of the host's memory that its table takes, none where that is mapped.
    """

    init: Callable[..., SimulationState]
    struct: SimulationState
    new_table: Callable[[], PyTree] | None
    in_memory: int


def server_start(algorithm: FederatedAlgorithm, model: Model, batch: Batch) -> Server:
    """The server's start from a key and perhaps given params, which replace the model's own."""

    def server(key: Key, params: Params | None = None) -> Any:
        own, stats = model.init(stream(key, "model"), batch)
        check_params(own)
        check_stats(stats)
        return algorithm.init(stream(key, "algorithm"), own if params is None else params, stats)

    return server


def make_start(
    algorithm: FederatedAlgorithm,
    uplink: Uplink,
    server: Server,
    params: Params,
    upload: Upload,
    execution: Execution,
    data: DeviceData,
    mesh: Mesh,
) -> Start:
    """How runs begin, on the devices or with rows on the host.

    Args:
      algorithm: gives clients their rows.
      uplink: gives them its own.
      server: as ``server_start`` makes it.
      params: structs of the model's params.
      upload: structs of what a client sends.
      execution: where rows live.
      data: the population.
      mesh: the devices.
    """
    num_clients = data.offsets["train"].shape[0] - 1
    rows = partial(_rows, algorithm, uplink, upload)
    given = partial(_checked, params)

    @jax.jit
    def without_rows(key, params=None):
        update = _zeros(upload.update)
        transforms = rekeyed(uplink.server.init(update), stream(key, "uplink"))
        states = {"reduce": uplink.reduce.init(update), "server": transforms}
        return SimulationState(jnp.zeros((), jnp.int32), key, server(key, params), (), states)

    @jax.jit
    def whole(key, traits, params=None):
        state = without_rows(key, params)
        return state._replace(table=rows(key, state.server, traits, jnp.arange(num_clients)))

    def on_devices(key: Key, params: Params | None = None) -> SimulationState:
        key, params = replicate(given(key, params), mesh)
        return replicate(whole(key, data.traits, params), mesh)

    struct = jax.eval_shape(whole, jax.random.key(0), data.traits)
    if not rows_on_host(execution, struct.table, mesh.devices.flat[0]):
        return Start(on_devices, struct, None, 0)
    folder = folder_of_rows(execution, struct.table)
    row_bytes = tree.num_bytes(struct.table) // num_clients

    @jax.jit
    def block(key, server, traits, ids):
        return rows(key, server, gather_rows(traits, ids), ids)

    def on_host(key: Key, params: Params | None = None) -> SimulationState:
        key, params = replicate(given(key, params), mesh)
        state = replicate(without_rows(key, params), mesh)
        if isinstance(key, Tracer):  # for its shapes alone
            return state._replace(table={**_zeros(struct.table), "round": state.round})
        table = new_table(struct.table, folder)
        for ids in _blocks(num_clients, row_bytes):
            write_rows(table, ids, block(key, state.server, data.traits, ids), 0)
        return state._replace(table=table)

    return Start(
        on_host,
        struct,
        partial(new_table, struct.table, folder),
        tree.num_bytes(struct.table) if folder is None else 0,
    )


def _checked(own: Params, key: Any, params: Any) -> tuple[Key, Params | None]:
    """The key and params that a start is given; params in the structure of the model's own.

    Raises:
      SpecError: for what is no key, and params of other paths, shapes or dtypes, or not finite.
    """
    check_key(key)
    if params is None:
        return key, None
    check.same_structure(own, params, what="params")
    by_path = tree.paths(params)
    for path, leaf in by_path.items():
        known = not isinstance(leaf, Tracer) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        if known and not np.isfinite(np.asarray(leaf)).all():
            raise SpecError(f"params: {path!r} holds numbers that are not finite")
    return key, tree.map_with_path(lambda path, _: by_path[path], own)


def _rows(
    algorithm: FederatedAlgorithm,
    uplink: Uplink,
    upload: Upload,
    key: Key,
    server: Any,
    traits: PyTree,
    ids: Array,
) -> PyTree:
    """The rows of clients [n] with traits [n, ...]."""
    clients_key = stream(key, "clients")

    def row(client, own_traits):
        return algorithm.client_init(jax.random.fold_in(clients_key, client), server, own_traits)

    first = uplink.client.init(_zeros(upload.update))

    def uplink_row(client):
        own = jax.random.fold_in(stream(key, "uplink rows"), client)
        return jax.tree.map(jnp.asarray, rekeyed(first, own))

    uplink_rows = jax.vmap(uplink_row, axis_size=len(ids))(ids)
    return {"client": jax.vmap(row)(ids, traits), "uplink": uplink_rows}


def _zeros(struct: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), struct)


def _blocks(num_clients: int, row_bytes: int) -> Iterator[np.ndarray]:
    """Everyone's ids, so many at a time that their rows are some 16 MiB; the last filled with N."""
    together = min(num_clients, max(1, _AT_ONCE // row_bytes))
    for first in range(0, num_clients, together):
        yield np.minimum(np.arange(first, first + together, dtype=np.int32), num_clients)
