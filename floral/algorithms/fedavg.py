"""FedAvg, and with a server optimizer FedOpt: one model for all.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", 2017, Algorithm 1; Reddi et al., "Adaptive Federated Optimization", 2021, Algorithm 1.
"""

from typing import NamedTuple

import optax

from floral import tree
from floral.algorithms.base import Download, FederatedAlgorithm, Upload
from floral.algorithms.local import LocalSolver, solve
from floral.algorithms.server import guarded_step
from floral.algorithms.stats import average_stats, stats_update
from floral.models.base import Model
from floral.typing import Loss, Params, PyTree

__all__ = ["FedAvgServer", "fedavg"]


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
    server_optimizer = optax.sgd(1.0) if server_optimizer is None else server_optimizer

    def objective(params, stats, batch, key):
        outputs, stats = model.apply(params, stats, batch, key=key, train=True)
        return loss(outputs, batch), stats

    def init(key, params, stats):
        return FedAvgServer(params, stats, server_optimizer.init(params))

    def download(server, context):
        return Download(fresh={"params": server.params, "stats": server.stats}, cached=())

    def client_update(key, received, client, batches, context):
        params, stats = received.fresh["params"], received.fresh["stats"]
        new_params, new_stats, metrics = solve(
            objective, params, stats, batches, key, optimizer=local.optimizer(None)
        )
        update = {"params": tree.subtract(params, new_params)}
        update |= stats_update(stats, new_stats)
        weight = dict.fromkeys(update, context.num_examples)
        return Upload(update, weight), client, metrics

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
    )
