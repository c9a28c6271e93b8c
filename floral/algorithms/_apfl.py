"""APFL: each client predicts with an adaptive mixture of a local model and the global one."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from floral import check, tree
from floral.algorithms._fedavg import fedavg, objective_of
from floral.algorithms.base import FederatedAlgorithm, Upload
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.algorithms.toolbox.parts import by_part
from floral.algorithms.toolbox.stats import stats_update
from floral.models.base import Model
from floral.random import stream
from floral.typing import Loss, PyTree

__all__ = ["apfl"]


def apfl(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    *,
    alpha: float = 0.5,
    alpha_learning_rate: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    r"""The global model is FedAvg's; client k predicts with ``α_k v_k + (1 - α_k) w``.

    On every batch w steps along ``∇f(w)``, v along ``α ∇f(v̄)`` and α along ``⟨∇f(v̄), v - w⟩``, all
    taken at the mixed model ``v̄ = α v + (1 - α) w`` before the step; α stays within [0, 1]. The
    loss that is reported is that of the mixed models.

    Args:
      model: the model of which everyone has one more.
      loss: per-example loss.
      local: how clients train.
      alpha: α at the start; 1 is local training, 0 is FedAvg, where they are not adapted.
      alpha_learning_rate: of α; None is the solver's own rate, 0 keeps α as it is.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Source: Deng, Kamani, Mahdavi, "Adaptive Personalized Federated Learning", 2020, Algorithm 1.
    """
    check.in_range(0.0, 1.0, alpha=alpha)
    if alpha_learning_rate is not None:
        check.non_negative(alpha_learning_rate=alpha_learning_rate)
    average = fedavg(model, loss, local, server_optimizer=server_optimizer)
    objective_of_one = objective_of(model, loss)
    at_rest = local.unscheduled()

    def objective(values, stats, batch, key):
        shared_losses, shared = objective_of_one(values["shared"], stats["shared"], batch, key)
        still = jax.lax.stop_gradient(values["shared"])
        mixed = _mixed(values["alpha"], values["own"], still)
        losses, own = objective_of_one(mixed, stats["own"], batch, stream(key, "own"))
        silent = shared_losses - jax.lax.stop_gradient(shared_losses)  # 0, with w's gradient
        return losses + silent, {"shared": shared, "own": own}

    def trained(key, received, client, batches, shared, own, weight):
        """Values and statistics of both models after the batches, and metrics; the last three are
        the optimizers of the global model, the own model and α."""
        optimizer = by_part({"shared": shared, "own": own, "alpha": _within_unit(weight)})
        start = {
            "shared": received["params"],
            "own": client["params"],
            "alpha": client["alpha"],
        }
        stats = {"shared": received["stats"], "own": client["stats"]}
        return solve(objective, start, stats, batches, key, optimizer=optimizer)

    def row_of(values, stats):
        return {"params": values["own"], "alpha": values["alpha"], "stats": stats["own"]}

    def client_init(key, server, traits):
        return {"params": server.params, "alpha": jnp.full((), alpha), "stats": server.stats}

    def client_update(key, received, client, batches, context):
        now = received.fresh
        plain = local.optimizer(None, context.round)
        weight = local.optimizer(alpha_learning_rate, context.round)
        values, stats, metrics = trained(key, now, client, batches, plain, plain, weight)
        update = {"params": tree.subtract(now["params"], values["shared"])}
        update |= stats_update(now["stats"], stats["shared"])
        upload = Upload(update, dict.fromkeys(update, context.num_examples))
        return upload, row_of(values, stats), metrics

    def personalize(key, server, client, batches, context):
        received = {"params": server.params, "stats": server.stats}
        plain, weight = at_rest.optimizer(), at_rest.optimizer(alpha_learning_rate)
        frozen = optax.set_to_zero()
        values, stats, _ = trained(key, received, client, batches, frozen, plain, weight)
        return row_of(values, stats)

    def own_params(server, client):
        return _mixed(client["alpha"], client["params"], server.params)

    return average._replace(
        client_init=client_init,
        client_update=client_update,
        personalize=personalize,
        predict=lambda server, client, batch: model.apply(
            own_params(server, client), client["stats"], batch
        )[0],
        export=own_params,
    )


def _mixed(alpha: Any, own: PyTree, shared: PyTree) -> PyTree:
    return jax.tree.map(lambda v, w: alpha * v + (1 - alpha) * w, own, shared)


def _within_unit(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer, its steps cut short where they would leave [0, 1]."""

    def cut(updates, params):
        return jax.tree.map(
            lambda step, value: jnp.clip(value + step, 0.0, 1.0) - value, updates, params
        )

    return optax.chain(optimizer, optax.stateless(cut))
