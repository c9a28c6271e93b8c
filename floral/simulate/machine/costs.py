"""What a method costs a client: parameters, bytes and operations, counted from what it traces."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from floral import tree
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching, as_batches
from floral.messages import Upload
from floral.operations import Work, work_of_program
from floral.simulate.state import SimulationState
from floral.typing import Batch, PyTree

__all__ = ["Costs", "TracedTurn", "costs_of", "trace_turn"]


class Costs(NamedTuple):
    """For one client.

    Attributes:
      model_parameters: of the model as it is, without adaptors.
      uploaded_parameters: numbers in one update.
      download_bytes: received each round.
      cached_bytes: received once, since it never changes (a frozen base).
      upload_bytes: sent each round, weights included.
      sums_bytes: sent beside the update, to be summed over clients: by what groups are found. It is
        sent in the first rounds only; zeros, which need not be sent, in later ones.
      client_state_bytes: kept by the client between rounds.
      server_state_bytes: kept by the server, optimizer state included, client rows excluded.
      operations: floating-point operations of a round on a client of average size; see
        ``floral.operations``.
      product_bytes: read and written by the products that these are of.
    """

    model_parameters: int
    uploaded_parameters: int
    download_bytes: int
    cached_bytes: int
    upload_bytes: int
    sums_bytes: int
    client_state_bytes: int
    server_state_bytes: int
    operations: float
    product_bytes: float


class TracedTurn(NamedTuple):
    """One client's turn, traced.

    Attributes:
      download, upload: structs of what it receives and sends.
      metrics: structs of what it reports.
      work: of a client with so many steps.
    """

    download: PyTree
    upload: Upload
    metrics: PyTree
    work: Work


def trace_turn(
    algorithm: FederatedAlgorithm,
    server: PyTree,
    context: PyTree,
    batch: Batch,
    batching: Batching,
    *,
    steps: float,
) -> TracedTurn:
    """Traces one client's turn; nothing is computed.

    Args:
      algorithm: the method.
      server: structs of the server's state.
      context: structs of one client's context.
      batch: one batch, of any number of examples.
      batching: the size of the batches that are traced.
      steps: local steps of the client whose work is counted.
    """

    def turn(key, server, context):
        batches = as_batches(
            {
                name: jnp.zeros((1, batching.batch_size, *leaf.shape[1:]), leaf.dtype)
                for name, leaf in batch.items()
            }
        )
        received = algorithm.download(server, context)
        client = algorithm.client_init(key, server, context.traits)
        upload, _, metrics = algorithm.client_update(key, received, client, batches, context)
        return received, upload, metrics

    program, sent = jax.make_jaxpr(turn, return_shape=True)(jax.random.key(0), server, context)
    download, upload, metrics = sent
    return TracedTurn(download, upload, metrics, work_of_program(program, trips=steps))


def costs_of(state: SimulationState, turn: TracedTurn, *, model_parameters: int) -> Costs:
    """The costs, from structs of a state and a traced turn."""
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state.table)
    return Costs(
        model_parameters=model_parameters,
        uploaded_parameters=tree.num_parameters(turn.upload.update),
        download_bytes=tree.num_bytes(turn.download.fresh),
        cached_bytes=tree.num_bytes(turn.download.cached),
        upload_bytes=tree.num_bytes(turn.upload._replace(sums=())),
        sums_bytes=tree.num_bytes(turn.upload.sums),
        client_state_bytes=tree.num_bytes(rows),
        server_state_bytes=tree.num_bytes(state.server) + tree.num_bytes(state.uplink),
        operations=turn.work.operations,
        product_bytes=turn.work.bytes,
    )
