"""FedBABU, and FedAvg with fine-tuning: what is shared is trained first, what is one's own last."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from floral import check, tree
from floral.algorithms._fedavg import FedAvgServer, fedavg, objective_of
from floral.algorithms._partial import parts_of_model, with_frozen
from floral.algorithms.base import Download, FederatedAlgorithm, Upload
from floral.algorithms.toolbox.inputs import check_inputs
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.algorithms.toolbox.server import guarded_step, server_step, start_server_step
from floral.algorithms.toolbox.stats import average_stats, stats_update
from floral.data import as_batches
from floral.models.base import Model
from floral.typing import Loss, PyTree

__all__ = ["fedavg_finetuned", "fedbabu"]


def fedbabu(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    *,
    head: Sequence[str],
    tuned: Sequence[str] = ("**",),
    tuning_steps: int | None = None,
    tuning_learning_rate: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """FedAvg of all but the head, which stays as it was drawn until clients fine-tune the model.

    Clients keep nothing between rounds: everyone fine-tunes before it predicts. Without a head
    (``[]``) this is ``fedavg_finetuned``.

    Args:
      model: the model that is trained.
      loss: per-example loss.
      local: how clients train.
      sample: a batch of the data's shapes, to know the model's paths by.
      head: path globs of the params that rounds do not train.
      tuned: path globs of the params that fine-tuning trains.
      tuning_steps: of fine-tuning, no more than there are to personalize (``personalize_steps`` of
        a config's ``evaluate``); None is all of those.
      tuning_learning_rate: of fine-tuning; None is the solver's own rate.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Raises:
      SpecError: for a glob that matches nothing.

    Source: Oh, Kim, Yun, "FedBABU: Toward Enhanced Representation for Federated Image
    Classification", 2022, Algorithm 1.
    """
    check_inputs(model, loss, local, sample=sample)
    if tuning_steps is not None:
        check.whole(tuning_steps=tuning_steps)
    if tuning_learning_rate is not None:
        check.non_negative(tuning_learning_rate=tuning_learning_rate)
    in_head = parts_of_model(model, sample, name="head", globs=head)["params"]
    in_tuned = parts_of_model(model, sample, name="tuned", globs=tuned)["params"]
    server_optimizer = server_step(server_optimizer)
    objective = objective_of(model, loss)

    def init(key, params, stats):
        _, body = tree.split(params, in_head)
        return FedAvgServer(params, stats, start_server_step(server_optimizer, body, key))

    def download(server, context):
        still, body = tree.split(server.params, in_head)
        return Download(fresh={"body": body, "stats": server.stats}, cached={"head": still})

    def client_update(key, received, client, batches, context):
        body, stats = received.fresh["body"], received.fresh["stats"]
        of_body = with_frozen(objective, received.cached["head"])
        new_body, new_stats, metrics = solve(
            of_body, body, stats, batches, key, optimizer=local.optimizer(None, context.round)
        )
        moved = tree.subtract(body, new_body)
        update = {"params": moved} if jax.tree.leaves(moved) else {}
        update |= stats_update(stats, new_stats)
        return Upload(update, dict.fromkeys(update, context.num_examples)), client, metrics

    def aggregate(server, reduced, context):
        still, body = tree.split(server.params, in_head)
        state = server.optimizer
        if "params" in reduced.update:
            body, state = guarded_step(
                server_optimizer, body, state, reduced.update["params"], reduced.weight["params"]
            )
        stats = average_stats(server.stats, reduced)
        return FedAvgServer(tree.combine(body, still), stats, state)

    def personalize(key, server, client, batches, context):
        batches = as_batches(batches)
        if tuning_steps is not None:
            taken = jnp.arange(batches.mask.shape[0])[:, None] < tuning_steps
            batches = batches._replace(mask=batches.mask & taken)
        trained, rest = tree.split(server.params, in_tuned)
        own, stats, _ = solve(
            with_frozen(objective, rest),
            trained,
            server.stats,
            batches,
            key,
            optimizer=local.unscheduled().optimizer(tuning_learning_rate),
        )
        return {"params": own, "stats": stats}

    def own_params(server, client):
        return tree.combine(client["params"], server.params)

    return fedavg(model, loss, local)._replace(
        init=init,
        download=download,
        client_update=client_update,
        aggregate=aggregate,
        personalize=personalize,
        predict=lambda server, client, batch: model.apply(
            own_params(server, client), client["stats"], batch
        )[0],
        export=own_params,
    )


def fedavg_finetuned(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    *,
    tuned: Sequence[str] = ("**",),
    tuning_steps: int | None = None,
    tuning_learning_rate: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """FedAvg, of whose model every client trains a copy on its own examples before it predicts.

    Clients keep nothing between rounds. With no steps, or a rate of zero, this is FedAvg.

    Args:
      model: the model that is trained.
      loss: per-example loss.
      local: how clients train.
      sample: a batch of the data's shapes, to know the model's paths by.
      tuned: path globs of the params that fine-tuning trains: the last layer, all by default.
      tuning_steps: of fine-tuning, no more than there are to personalize (``personalize_steps`` of
        a config's ``evaluate``); None is all of those.
      tuning_learning_rate: of fine-tuning; None is the solver's own rate.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Raises:
      SpecError: for a glob that matches nothing.

    Source: Wang et al., "Federated Evaluation of On-device Personalization", 2019.
    """
    return fedbabu(
        model,
        loss,
        local,
        sample,
        head=(),
        tuned=tuned,
        tuning_steps=tuning_steps,
        tuning_learning_rate=tuning_learning_rate,
        server_optimizer=server_optimizer,
    )
