"""FedEM: clients' examples come from a mixture of C models; expectation maximisation finds both."""

import jax
import jax.numpy as jnp
import optax

from floral import tree
from floral.algorithms.base import FederatedAlgorithm, Upload
from floral.algorithms.clustered import ensemble
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.algorithms.toolbox.mixture_inference import infer_logits
from floral.mixtures import responsibilities
from floral.models.base import Model
from floral.random import stream
from floral.typing import Loss, PyTree

__all__ = ["fedem"]


def fedem(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    *,
    num_models: int = 3,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    r"""Each model trains on each example by how well it explains it, and is averaged over everyone.

    With the models that it receives, a client's example i belongs to model c by
    ``q_ic ∝ π_c exp(-loss_c(i))``. Its mixture becomes ``π_c = mean_i q_ic``, and local training
    minimises ``Σ_c q_ic loss_c(i)`` with q as it is. The loss that is reported is that sum.

    Args:
      model: the model of which there are C.
      loss: per-example loss, a negative log-likelihood.
      local: how clients train.
      sample: a batch of the data's shapes, to initialise the other models with.
      num_models: C.
      server_optimizer: takes the mean updates as gradients; None is plain averaging.

    Raises:
      SpecError: when initialised, for a model with statistics (batch norm).

    Source: Marfoq et al., "Federated Multi-Task Learning under a Mixture of Distributions", 2021,
    Algorithm 1.
    Differs from the paper: a client predicts with its mixture of the models' outputs (logits), as
    the ensemble does, and not of their probabilities; a new client's mixture takes as many steps of
    expectation maximisation as it has steps to personalize.
    """
    mixing = responsibilities()
    whole = ensemble(
        model,
        loss,
        local,
        mixing,
        sample,
        num_models=num_models,
        server_optimizer=server_optimizer,
    )

    def losses_each(models, batch, key=None, train=False):
        """What each model loses on each example, [B, C]."""

        def one(params):
            outputs, _ = model.apply(params, (), batch, key=key, train=train)
            return loss(outputs, batch)

        return jax.vmap(one, out_axes=1)(models)

    def expected(received, row, batches, context):
        """The mixture after one step of expectation maximisation."""
        now = received.fresh
        logits = infer_logits(
            mixing,
            received,
            row["mixture"],
            lambda batch: losses_each(now["models"], batch),
            batches,
            active=now["active"],
            round=context.round,
        )
        return {"mixture": logits}

    def client_update(key, received, client, batches, context):
        now = received.fresh
        prior = mixing.weights(client["mixture"], active=now["active"], round=context.round)

        def objective(models, stats, batch, step_key):
            explained = jnp.log(prior)[None] - losses_each(now["models"], batch)
            shares = jax.nn.softmax(explained, axis=1, where=now["active"][None])  # [B, C]
            losses = losses_each(models, batch, stream(step_key, "model"), train=True)
            return jnp.sum(jax.lax.stop_gradient(shares) * losses, axis=1), stats

        optimizer = local.optimizer(None, context.round)
        models, _, metrics = solve(objective, now["models"], (), batches, key, optimizer=optimizer)
        upload = Upload(
            update={"models": tree.subtract(now["models"], models)},
            weight={"models": context.num_examples},
        )
        return upload, expected(received, client, batches, context), metrics

    def aggregate(server, reduced, context):
        each = jnp.broadcast_to(reduced.weight["models"], (num_models,))
        return whole.aggregate(server, reduced._replace(weight={"models": each}), context)

    def personalize(key, server, client, batches, context):
        received = whole.download(server, context)
        steps = batches.mask.shape[0]
        return jax.lax.fori_loop(
            0, steps, lambda _, row: expected(received, row, batches, context), client
        )

    return whole._replace(client_update=client_update, aggregate=aggregate, personalize=personalize)
