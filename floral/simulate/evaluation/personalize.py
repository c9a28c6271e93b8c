"""What a client does before it is evaluated, and the model that it then predicts with.

A client that kept nothing, or was never seen in training, personalizes first, on its training
examples alone; where there is nothing to find, as in FedAvg, they are not even read. It may train
what is its own with all that is shared frozen, or take a round by itself on a copy of the server.
Either way nothing of it reaches the state.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from floral import check
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batching, as_batches
from floral.data import batching as make_batching
from floral.messages import Context, Reduced
from floral.random import stream
from floral.simulate.clients import DeviceData, Holdings, client_context, first_of, own_batches
from floral.simulate.state import SimulationState, gather_rows
from floral.typing import Array, Batch, PyTree

__all__ = [
    "ModelOf",
    "OwnModel",
    "Personalization",
    "Trains",
    "given_model",
    "kept_model",
    "new_model",
    "personalization",
    "who_personalizes",
]

Trains = Literal["own", "all"]


class OwnModel(NamedTuple):
    """What a client predicts with.

    Attributes:
      server: the server's state, or the client's own version of it.
      row: the client's state.
    """

    server: PyTree
    row: PyTree


ModelOf = Callable[[SimulationState, DeviceData, "Holdings | None", Array, Array], OwnModel]
"""``(state, data, training examples, place, client id) -> OwnModel``; the client's examples are the
training examples at that place."""


class Personalization(NamedTuple):
    """What a client may do before it is evaluated; made by ``personalization``.

    Attributes:
      batching: its steps on its training examples.
      limit: how many of its training examples it may use, the first ones; None is all.
      trains: what it trains.
    """

    batching: Batching
    limit: int | None = None
    trains: Trains = "own"


def personalization(
    *,
    trains: Trains = "own",
    steps: int = 20,
    batch_size: int = 32,
    examples: int | None = None,
) -> Personalization:
    """What a client that joins does before it predicts.

    Without steps, or without examples, it predicts as it starts: with the uniform mixture, say.

    Args:
      trains: ``own`` is what the algorithm personalizes, all that is shared being frozen: the
        mixture of FLoRAL, nothing of FedAvg. ``all`` is that and a round of its own, of as many
        steps again: what clients train together it trains further by itself, on a copy of the
        server, with the server's optimizer if it has one. FedAvg is then fine-tuned.
      steps: live steps.
      batch_size: examples a step; fewer where it has fewer.
      examples: k, how many of its training examples it may use, the first ones; None is all.

    Raises:
      SpecError: for settings out of range.

    Example:
      >>> personalization(steps=5, examples=10).limit
      10
    """
    check.one_of(get_args(Trains), trains=trains)
    check.positive_int(batch_size=batch_size)
    check.whole(steps=steps)
    if examples is not None:
        check.whole(examples=examples)
    limit = 0 if steps == 0 else examples
    return Personalization(make_batching(batch_size=batch_size, steps=steps or 1), limit, trains)


def who_personalizes(
    algorithm: FederatedAlgorithm,
    personalization: Personalization,
    unseen: np.ndarray,
    state: SimulationState,
    context: Context,
    batch: Batch,
) -> np.ndarray:
    """Who personalizes before it predicts, [N] bool; the others predict with the row they keep.

    Args:
      algorithm: whose rows are traced; nothing is computed.
      personalization: what those do that do.
      unseen: [N] bool, who keeps a row that no training has touched.
      state: structs of a state.
      context: structs of one client's context.
      batch: one batch, of any number of examples.
    """
    kept = state.table["client"]
    if jax.tree.leaves(kept):
        return unseen
    if personalization.trains == "all":
        return np.ones_like(unseen)

    def found(key, server, context):
        row = algorithm.client_init(key, server, context.traits)
        batches = as_batches(jax.tree.map(lambda leaf: leaf[None], batch))
        return algorithm.personalize(key, server, row, batches, context)

    row = jax.eval_shape(found, jax.random.key(0), state.server, context)
    return np.full_like(unseen, jax.tree.structure(row) != jax.tree.structure(kept))


def kept_model(
    state: SimulationState, data: DeviceData, held: Holdings | None, place: Array, client: Array
) -> OwnModel:
    """The server's state with the row that a client keeps; its examples are not needed."""
    return OwnModel(state.server, gather_rows(state.table, client)["client"])


def given_model(
    state: SimulationState, data: DeviceData, held: Holdings | None, place: Array, client: Array
) -> OwnModel:
    """The same where rows live on the host: the table is that of the clients at hand, by place."""
    return OwnModel(state.server, gather_rows(state.table, place)["client"])


def new_model(
    algorithm: FederatedAlgorithm, personalization: Personalization, *, max_size: int
) -> ModelOf:
    """The model of a client that joins: from a first row, personalized.

    Args:
      algorithm: gives the start, the personalization, and rounds.
      personalization: how much of it.
      max_size: training examples of the largest client.
    """

    def model_of(state, data, held, place, client):
        key = jax.random.fold_in(stream(state.key, "evaluate", state.round), client)
        context = client_context(data, client, state.round, state.key, jnp.ones(()))
        if personalization.limit is not None:
            held = first_of(held, personalization.limit)
        context = context._replace(num_examples=held.sizes[place].astype(jnp.float32))
        row = algorithm.client_init(stream(key, "init"), state.server, context.traits)
        batches = own_batches(
            held,
            place,
            client,
            stream(key, "order"),
            personalization.batching,
            max_size=max_size,
        )

        def found(server, row):
            return algorithm.personalize(stream(key, "personalize"), server, row, batches, context)

        server = state.server
        if personalization.trains == "own":
            return OwnModel(server, found(server, row))
        # A row that is kept goes into the round; one that is not is found within it, and once more
        # for the server that has come out.
        keeps = bool(jax.tree.leaves(row))
        row = found(server, row) if keeps else row
        received = algorithm.download(server, context)
        upload, row, _ = algorithm.client_update(
            stream(key, "update"), received, row, batches, context
        )
        server = algorithm.aggregate(server, Reduced(*upload), context)
        return OwnModel(server, row if keeps else found(server, row))

    return model_of
