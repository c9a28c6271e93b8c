"""pFedMe: the global model is trained through the Moreau envelopes of the clients' losses."""

import jax
import jax.numpy as jnp
import optax

from floral import check, tree
from floral.algorithms._fedavg import fedavg, objective_of
from floral.algorithms.base import FederatedAlgorithm, Upload
from floral.algorithms.toolbox.corrections import pulled
from floral.algorithms.toolbox.inputs import check_inputs
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.algorithms.toolbox.stats import stats_update
from floral.errors import SpecError
from floral.models.base import Model
from floral.random import stream
from floral.typing import Loss

__all__ = ["pfedme"]


def pfedme(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    *,
    pull: float = 15.0,
    inner_steps: int = 5,
    personal_learning_rate: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    r"""Minimises ``Σ_k F_k(w)``, the envelopes ``F_k(w) = min_θ f_k(θ) + λ/2 ‖θ - w‖²``.

    On every batch a client finds its θ by a few inner steps from its w, and moves w along the
    envelope's gradient ``λ (w - θ)``. The server averages the w's, a client keeps the θ of its last
    batch and predicts with it. A new client takes its inner steps from the global model on its
    batches in turn. The loss that is reported is that of the θ's.

    Args:
      model: the model of which everyone has one more.
      loss: per-example loss.
      local: how w is trained; its rate η times λ is the share of the way to θ that a step goes.
      pull: λ, how strongly personal models are held to the global one.
      inner_steps: on each batch, by the same optimizer started anew.
      personal_learning_rate: of the inner steps; None is the solver's own rate.
      server_optimizer: takes the mean update as a gradient; None is plain averaging, ``sgd`` of
        another rate the paper's β.

    Raises:
      SpecError: for settings out of range, or a learning rate with which λ alone diverges.

    Source: Dinh, Tran, Nguyen, "Personalized Federated Learning with Moreau Envelopes", 2020,
    Algorithm 1.
    """
    check_inputs(model, loss, local)
    check.positive(pull=pull)
    check.positive_int(inner_steps=inner_steps)
    if personal_learning_rate is not None:
        check.non_negative(personal_learning_rate=personal_learning_rate)
    rates = {
        "learning_rate": local.learning_rate,
        "personal_learning_rate": personal_learning_rate or 0.0,
    }
    for name, rate in rates.items():
        if rate * pull >= 2:
            raise SpecError(
                f"pfedme: {name} = {rate} times pull = {pull} must stay below 2, or the pull alone "
                f"diverges; take a rate of at most {1 / pull:.3g}"
            )
    local.optimizer()  # refuses a schedule: the bound above is of one rate
    average = fedavg(model, loss, local, server_optimizer=server_optimizer)
    objective_of_one = objective_of(model, loss)

    def held_to(centre):
        return pulled(local.optimizer(personal_learning_rate), towards=centre, strength=pull)

    def objective(params, stats, batch, key):
        centre = jax.lax.stop_gradient(params)
        repeated = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (inner_steps, *leaf.shape)), dict(batch)
        )
        own, new_stats, _ = solve(
            objective_of_one,
            centre,
            stats["model"],
            repeated,
            stream(key, "inner"),
            optimizer=held_to(centre),
        )
        losses, _ = objective_of_one(own, stats["model"], batch, stream(key, "after"))
        way = jax.tree.map(lambda w, theta: jnp.sum(jnp.square(w - theta)), params, own)
        envelope = pull / 2 * sum(jax.tree.leaves(way))
        silent = envelope - jax.lax.stop_gradient(envelope)  # 0, with the gradient λ (w - θ)
        return jax.lax.stop_gradient(losses) + silent, {"model": new_stats, "own": own}

    def client_update(key, received, client, batches, context):
        params, stats = received.fresh["params"], received.fresh["stats"]
        start = {"model": stats, "own": client["params"]}
        new_params, end, metrics = solve(
            objective, params, start, batches, key, optimizer=local.optimizer(None)
        )
        update = {"params": tree.subtract(params, new_params)}
        update |= stats_update(stats, end["model"])
        upload = Upload(update, dict.fromkeys(update, context.num_examples))
        return upload, {"params": end["own"]}, metrics

    def personalize(key, server, client, batches, context):
        own, _, _ = solve(
            objective_of_one,
            server.params,
            server.stats,
            batches,
            key,
            optimizer=held_to(server.params),
        )
        return {"params": own}

    return average._replace(
        client_init=lambda key, server, traits: {"params": server.params},
        client_update=client_update,
        personalize=personalize,
        predict=lambda server, client, batch: model.apply(client["params"], server.stats, batch)[0],
        export=lambda server, client: client["params"],
    )
