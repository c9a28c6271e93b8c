"""Methods of one model for all: FedAvg, with a server optimizer FedOpt, and FedProx.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", 2017, Algorithm 1; Reddi et al., "Adaptive Federated Optimization", 2021, Algorithm 1; Li et
al., "Federated Optimization in Heterogeneous Networks", 2020, Algorithm 2.
"""

from typing import NamedTuple

import optax

from floral import check, tree
from floral.algorithms.base import Context, Download, FederatedAlgorithm, Objective, Upload
from floral.algorithms.toolbox.corrections import pulled
from floral.algorithms.toolbox.inputs import check_inputs
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.algorithms.toolbox.server import guarded_step, server_step, start_server_step
from floral.algorithms.toolbox.stats import average_stats, stats_update
from floral.data import Batches
from floral.models.base import Model
from floral.typing import Array, Key, Loss, Params, PyTree

__all__ = ["FedAvgServer", "fedavg", "fedprox", "objective_of", "trained_upload"]


class FedAvgServer(NamedTuple):
    """What the server of FedAvg remembers.

    Attributes:
      params: the model's.
      stats: the model's statistics, averaged over clients.
      optimizer: the server optimizer's state.
    """

    params: Params
    stats: PyTree
    optimizer: PyTree


def fedavg(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    *,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """Clients train the whole model locally; the server averages what they did.

    Args:
      model: the model that is trained.
      loss: per-example loss.
      local: how clients train.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.
    """
    check_inputs(model, loss, local)
    server_optimizer = server_step(server_optimizer)
    objective = objective_of(model, loss)

    def init(key, params, stats):
        return FedAvgServer(params, stats, start_server_step(server_optimizer, params, key))

    def download(server, context):
        return Download(fresh={"params": server.params, "stats": server.stats}, cached=())

    def client_update(key, received, client, batches, context):
        optimizer = local.optimizer(None, context.round)
        upload, metrics = trained_upload(key, objective, received, batches, context, optimizer)
        return upload, client, metrics

    def aggregate(server, reduced, context):
        params, state = guarded_step(
            server_optimizer,
            server.params,
            server.optimizer,
            reduced.update["params"],
            reduced.weight["params"],
        )
        return FedAvgServer(params, average_stats(server.stats, reduced), state)

    return FederatedAlgorithm(
        init=init,
        client_init=lambda key, server, traits: (),
        download=download,
        client_update=client_update,
        aggregate=aggregate,
        personalize=lambda key, server, client, batches, context: client,
        predict=lambda server, client, batch: model.apply(server.params, server.stats, batch)[0],
        export=lambda server, client: server.params,
        local_optimizer=local.unscheduled().optimizer(),
        loss=loss,
    )


def fedprox(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    *,
    mu: float = 0.01,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    r"""FedAvg whose clients minimise ``f_k(w) + μ/2 ‖w - w_t‖²``, for the w_t they received.

    Args:
      model: the model that is trained.
      loss: per-example loss.
      local: how clients train.
      mu: how strongly clients are held to the server's model; 0 is FedAvg.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Source: Li et al., "Federated Optimization in Heterogeneous Networks", 2020, Algorithm 2.
    Differs from the paper: clients are sampled and weighted as everywhere in this library.
    """
    check.non_negative(mu=mu)
    objective = objective_of(model, loss)

    def client_update(key, received, client, batches, context):
        optimizer = pulled(
            local.optimizer(None, context.round), towards=received.fresh["params"], strength=mu
        )
        upload, metrics = trained_upload(key, objective, received, batches, context, optimizer)
        return upload, client, metrics

    average = fedavg(model, loss, local, server_optimizer=server_optimizer)
    return average._replace(client_update=client_update)


def objective_of(model: Model, loss: Loss) -> Objective:
    """What training the whole model minimises."""

    def objective(params, stats, batch, key):
        outputs, stats = model.apply(params, stats, batch, key=key, train=True)
        return loss(outputs, batch), stats

    return objective


def trained_upload(
    key: Key,
    objective: Objective,
    received: Download,
    batches: Batches,
    context: Context,
    optimizer: optax.GradientTransformation,
) -> tuple[Upload, dict[str, Array]]:
    """What a client sends that trained the whole model from the server's, and its metrics."""
    params, stats = received.fresh["params"], received.fresh["stats"]
    new_params, new_stats, metrics = solve(
        objective, params, stats, batches, key, optimizer=optimizer
    )
    update = {"params": tree.subtract(params, new_params)}
    update |= stats_update(stats, new_stats)
    return Upload(update, dict.fromkeys(update, context.num_examples)), metrics
