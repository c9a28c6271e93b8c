"""Ditto: a personal model beside the global one, pulled towards it."""

import optax

from floral import check
from floral.algorithms._fedavg import fedavg, objective_of
from floral.algorithms.base import FederatedAlgorithm
from floral.algorithms.toolbox.corrections import pulled
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.models.base import Model
from floral.random import stream
from floral.typing import Loss

__all__ = ["ditto"]


def ditto(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    *,
    pull: float = 0.1,
    personal_learning_rate: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    r"""The global model is FedAvg's; each client trains a v on ``f_k(v) + λ/2 ‖v - w‖²``.

    Both see the round's batches once. Clients predict with their own model, which a new client
    starts from the global one; the loss that is reported is that of the personal models.

    Args:
      model: the model of which everyone has one more.
      loss: per-example loss.
      local: how clients train.
      pull: λ, how strongly personal models are held to the global one; 0 trains them alone.
      personal_learning_rate: of personal models; None is the solver's own rate.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Source: Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", 2021,
    Algorithm 1.
    """
    check.non_negative(pull=pull)
    if personal_learning_rate is not None:
        check.non_negative(personal_learning_rate=personal_learning_rate)
    objective = objective_of(model, loss)
    average = fedavg(model, loss, local, server_optimizer=server_optimizer)

    def trained(key, client, centre, batches, optimizer):
        """The client's row after its batches, held to the params of the centre."""
        optimizer = pulled(optimizer, towards=centre, strength=pull)
        params, stats, metrics = solve(
            objective, client["params"], client["stats"], batches, key, optimizer=optimizer
        )
        return {"params": params, "stats": stats}, metrics

    def client_update(key, received, client, batches, context):
        upload, _, _ = average.client_update(key, received, (), batches, context)
        optimizer = local.optimizer(personal_learning_rate, context.round)
        centre = received.fresh["params"]
        row, metrics = trained(stream(key, "own"), client, centre, batches, optimizer)
        return upload, row, metrics

    return average._replace(
        client_init=lambda key, server, traits: {"params": server.params, "stats": server.stats},
        client_update=client_update,
        personalize=lambda key, server, client, batches, context: trained(
            key,
            client,
            server.params,
            batches,
            local.unscheduled().optimizer(personal_learning_rate),
        )[0],
        predict=lambda server, client, batch: model.apply(client["params"], client["stats"], batch)[
            0
        ],
        export=lambda server, client: client["params"],
    )
