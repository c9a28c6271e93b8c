"""What a method costs a client: parameters and bytes, counted from the arrays sent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral import tree
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching
from floral.messages import Upload
from floral.simulate.state import SimulationState
from floral.typing import Batch, PyTree

__all__ = ["Costs", "costs_of", "turn_structs"]


class Costs(NamedTuple):
    """For one client.

    Attributes:
      model_parameters: of the model as it is, without adaptors.
      uploaded_parameters: numbers in one update.
      download_bytes: received each round.
      cached_bytes: received once, since it never changes (a frozen base).
      upload_bytes: sent each round, weights included.
      client_state_bytes: kept by the client between rounds.
      server_state_bytes: kept by the server, optimizer state included, client rows excluded.
    """

    model_parameters: int
    uploaded_parameters: int
    download_bytes: int
    cached_bytes: int
    upload_bytes: int
    client_state_bytes: int
    server_state_bytes: int


def turn_structs(
    algorithm: FederatedAlgorithm, server: PyTree, context: PyTree, batch: Batch, batching: Batching
) -> tuple[PyTree, Upload]:
    """Shapes of what one client receives and sends, by tracing; nothing is computed.

    Args:
      algorithm: the method.
      server: structs of the server's state.
      context: structs of one client's context.
      batch: one batch, of any number of examples.
      batching: the size of the batches that are traced.

    Returns:
      ``(download struct, upload struct)``.
    """

    def turn(key, server, context):
        batches = {
            name: jnp.zeros((1, batching.batch_size, *leaf.shape[1:]), leaf.dtype)
            for name, leaf in batch.items()
        }
        received = algorithm.download(server, context)
        client = algorithm.client_init(key, server, context.traits)
        upload, _, _ = algorithm.client_update(key, received, client, batches, context)
        return received, upload

    return jax.eval_shape(turn, jax.random.key(0), server, context)


def costs_of(
    state: SimulationState, download: PyTree, upload: Upload, *, model_parameters: int
) -> Costs:
    """The costs, from structs of a state, a download and an upload."""
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state.table)
    return Costs(
        model_parameters=model_parameters,
        uploaded_parameters=tree.num_parameters(upload.update),
        download_bytes=tree.num_bytes(download.fresh),
        cached_bytes=tree.num_bytes(download.cached),
        upload_bytes=tree.num_bytes(upload),
        client_state_bytes=tree.num_bytes(rows),
        server_state_bytes=tree.num_bytes(state.server) + tree.num_bytes(state.uplink),
    )
