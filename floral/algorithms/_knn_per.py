"""kNN-Per: the global model beside what each client's own examples say of their neighbours.

A client's memory is its training examples as the global model represents them, with their labels.
It is made anew before a client predicts, of a fixed shape with a mask, and never leaves the client.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from floral import check
from floral.algorithms._fedavg import FedAvgServer, fedavg
from floral.algorithms.base import FederatedAlgorithm
from floral.algorithms.toolbox.inputs import check_inputs
from floral.algorithms.toolbox.local import LocalSolver
from floral.data import Batches, as_batches
from floral.errors import SpecError
from floral.models.base import Model
from floral.typing import Array, Batch, Loss, PyTree

__all__ = ["Memory", "knn_per"]

_CHOICES = 11  # of a client's weight, 0, 0.1, …, 1


class Memory(NamedTuple):
    """What a client predicts with beside the global model.

    Attributes:
      features: [M, d], of its training examples.
      labels: [M] int32.
      live: [M] bool, False where there is no example.
      weight: float32, λ, the share of its neighbours in its predictions.
    """

    features: Array
    labels: Array
    live: Array
    weight: Array


def knn_per(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    *,
    num_neighbors: int = 10,
    scale: float = 1.0,
    local_weight: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    r"""FedAvg's model, whose probabilities a client mixes with those of its nearest examples.

    ``p = λ p_local + (1 - λ) p_global``, where the k of the client's examples whose representations
    z_i are nearest to that of the input, z in d dimensions, vote for their labels by
    ``exp(-‖z - z_i‖² / (d · scale))``. Outputs are logits of p. A client without examples predicts
    with the global model.

    The memory holds the examples that a client may personalize on, each once: in a config at most
    ``personalize_steps`` times ``personalize_batch``.

    Args:
      model: the model that is trained; it must have ``features``.
      loss: per-example loss of classes.
      local: how clients train.
      sample: a batch of the data's shapes.
      num_neighbors: k.
      scale: of the kernel; small ones leave the vote to the very nearest.
      local_weight: λ, the same for everyone; None has each client choose the one of 0, 0.1, …, 1
        with which its examples' labels are most likely, each without itself in the memory.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Raises:
      SpecError: for a model without features, targets that are no classes, settings out of range.

    Source: Marfoq, Neglia, Kameni, Vidal, "Personalized Federated Learning through Local
    Memorization", ICML 2022.
    Differs from the paper: the kernel is that of the authors' code, with squared distances over d;
    λ is not tuned on validation data, which clients then keep for validation.
    """
    check_inputs(model, loss, local, sample=sample)
    check.positive_int(num_neighbors=num_neighbors)
    check.positive(scale=scale)
    if local_weight is not None:
        check.in_range(0, 1, local_weight=local_weight)
    features_of = model.features
    if features_of is None:
        raise SpecError(
            "knn_per: this model does not say what its features are, the representation before its "
            "last layer; those of floral.models do, others by Model(..., features=...) or "
            "from_linen(..., features_argument=...)"
        )
    _check_classes(model, sample)

    def seen(server: FedAvgServer, batch: Batch) -> tuple[Array, Array]:
        """Features [B, d] and logits [B, classes]."""
        logits, _ = model.apply(server.params, server.stats, batch)
        return features_of(server.params, server.stats, batch), logits

    def votes(features: Array, memory: Memory, among: Array, classes: int) -> Array:
        """Probabilities [B, classes] of inputs [B, d] by their nearest ``among`` [B, M]; zeros for
        an input that has none."""
        count, dimension = memory.features.shape
        apart = jnp.square(features[:, None] - memory.features[None])
        nearness = jnp.where(among, -jnp.sum(apart, axis=-1), -jnp.inf)  # [B, M]
        nearness, places = jax.lax.top_k(nearness, min(num_neighbors, count))
        found = nearness > -jnp.inf
        share = jax.nn.softmax(nearness / (dimension * scale), axis=1, where=found)
        share = jnp.where(found, share, 0.0)  # [B, k]
        return jnp.einsum("bk,bkc->bc", share, jax.nn.one_hot(memory.labels[places], classes))

    def best_weight(memory: Memory, logits: Array) -> Array:
        """λ under which the memory's labels are most likely, each by the others; the least of
        several."""
        count, classes = logits.shape
        others = memory.live[None] & ~jnp.eye(count, dtype=bool)
        every = jnp.arange(count)
        by_model = jax.nn.softmax(logits)[every, memory.labels]
        by_others = votes(memory.features, memory, others, classes)[every, memory.labels]
        by_others = jnp.where(jnp.any(others, axis=1), by_others, by_model)
        choices = jnp.linspace(0.0, 1.0, _CHOICES)
        # So written that where the two are equal they are so for every choice, bit for bit.
        mixed = by_model[None] + choices[:, None] * (by_others - by_model)[None]
        likely = jnp.where(memory.live[None], _log(mixed), 0.0)
        return choices[jnp.argmax(jnp.sum(likely, axis=1))]

    def personalize(key, server, client, batches, context):
        features, logits, labels, live = _remembered(
            lambda batch: seen(server, batch), _each_once(as_batches(batches))
        )
        memory = Memory(features, labels, live, jnp.zeros(()))
        if local_weight is None:
            return memory._replace(weight=best_weight(memory, logits))
        return memory._replace(weight=jnp.asarray(local_weight, jnp.float32))

    def predict(server, client, batch):
        features, logits = seen(server, batch)
        among = jnp.broadcast_to(client.live[None], (features.shape[0], client.live.shape[0]))
        near = votes(features, client, among, logits.shape[1])
        weight = jnp.where(jnp.any(client.live), client.weight, 0.0)
        # On the scale of the model's own logits, which are what is left where the weight is zero.
        whole = jax.nn.logsumexp(logits, axis=1, keepdims=True)
        return jnp.logaddexp(
            jnp.log(weight) + _log(near) + whole, jnp.log1p(-weight) + logits
        )  # [B, classes]

    average = fedavg(model, loss, local, server_optimizer=server_optimizer)
    return average._replace(personalize=personalize, predict=predict, export=None)


def _log(probability: Array) -> Array:
    """Its logarithm, finite where it is zero."""
    return jnp.log(jnp.maximum(probability, jnp.finfo(jnp.float32).tiny))


def _check_classes(model: Model, sample: PyTree) -> None:
    """Raises SpecError unless labels [B] are whole numbers and outputs are [B, classes]."""
    params, stats = jax.eval_shape(model.init, jax.random.key(0), sample)
    outputs, _ = jax.eval_shape(model.apply, params, stats, sample)
    labels = sample["y"]
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer) or outputs.ndim != 2:
        raise SpecError(
            "knn_per mixes probabilities of classes: it needs labels [B] of whole numbers and "
            f"outputs [B, classes], got targets {labels.dtype}{list(labels.shape)} and outputs "
            f"{list(outputs.shape)}"
        )


def _each_once(batches: Batches) -> Batches:
    """The batches with every example at one place, in stored order, and the empty places last."""
    shape = batches.rows.shape
    last = jnp.iinfo(jnp.int32).max
    shown = jnp.sort(jnp.where(batches.mask, batches.rows, last), axis=None)
    again = shown == jnp.concatenate([jnp.full((1,), -1, shown.dtype), shown[:-1]])
    rows = jnp.sort(jnp.where(again, last, shown)).reshape(shape)
    mask = rows < last
    return Batches(batches.examples, jnp.where(mask, rows, 0), mask)


def _remembered(seen, batches: Batches) -> tuple[Array, Array, Array, Array]:
    """``(features [M, d], logits [M, classes], labels [M], live [M])`` of all that is shown."""
    steps = batches.mask.shape[0]
    used = jnp.sum(jnp.any(batches.mask, axis=1), dtype=jnp.int32)

    def look(index):
        batch = batches.step(index)
        return *seen(batch), batch["y"].astype(jnp.int32)

    empty = jax.tree.map(
        lambda leaf: jnp.zeros((steps, *leaf.shape), leaf.dtype),
        jax.eval_shape(look, jnp.zeros((), jnp.int32)),
    )

    def fill(index, columns):
        return jax.tree.map(lambda all, one: all.at[index].set(one), columns, look(index))

    columns = jax.lax.fori_loop(0, used, fill, empty)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), columns)
    return *flat, batches.mask.reshape(-1)
