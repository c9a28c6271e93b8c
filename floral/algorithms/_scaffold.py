"""SCAFFOLD: control variates take the drift of heterogeneous clients out of their steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from floral import check, tree
from floral.algorithms._fedavg import fedavg, objective_of, trained_upload
from floral.algorithms.base import Download, FederatedAlgorithm, Upload
from floral.algorithms.toolbox.corrections import shifted
from floral.algorithms.toolbox.inputs import check_inputs
from floral.algorithms.toolbox.local import LocalSolver
from floral.algorithms.toolbox.server import server_step, start_server_step
from floral.data import as_batches
from floral.errors import SpecError
from floral.models.base import Model
from floral.typing import Loss, Params, PyTree

__all__ = ["ScaffoldServer", "scaffold"]


class ScaffoldServer(NamedTuple):
    """What the server of SCAFFOLD remembers.

    Attributes:
      params: the model's.
      stats: the model's statistics, averaged over clients.
      controls: c, the mean of the clients' control variates, weighted by their examples.
      optimizer: the server optimizer's state.
    """

    params: Params
    stats: PyTree
    controls: Params
    optimizer: PyTree


def scaffold(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    total_examples: int,
    *,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    r"""FedAvg with local steps along ``∇f_k(y) + c - c_k``.

    A client's ``c_k`` is the mean of its gradients in the last round that it took part in, c the
    mean over all clients, zero at first. What a client's own data pull it to is thereby replaced by
    what everyone's do, and the fixed point is the minimiser of the common loss, however many local
    steps are taken.

    Args:
      model: the model that is trained.
      loss: per-example loss.
      local: how clients train; plain SGD.
      total_examples: training examples of all clients that may take part; a cohort moves c by its
        share of them.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Raises:
      SpecError: for a schedule, or a local optimizer that remembers something (momentum, Adam):
        then the way a client went says nothing of its mean gradient.

    Source: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
    2020, Algorithm 1, option II of its control variates.
    Differs from the paper: clients count by their examples, which is the same where all have alike.
    """
    check_inputs(model, loss, local)
    check.positive_int(total_examples=total_examples)
    check.positive(learning_rate=local.learning_rate)
    # A schedule is refused here: the mean gradient is the way divided by the one rate.
    if jax.tree.leaves(local.optimizer().init(jnp.zeros(()))):
        raise SpecError(
            "scaffold: the local optimizer has a state (momentum, moments); control variates are "
            "mean gradients of plain SGD: set local to sgd with momentum = 0"
        )
    server_optimizer = server_step(server_optimizer)
    objective = objective_of(model, loss)
    average = fedavg(model, loss, local, server_optimizer=server_optimizer)

    def init(key, params, stats):
        return ScaffoldServer(
            params, stats, tree.zeros_like(params), start_server_step(server_optimizer, params, key)
        )

    def download(server, context):
        now = {"params": server.params, "stats": server.stats, "controls": server.controls}
        return Download(fresh=now, cached=())

    def client_update(key, received, client, batches, context):
        shared, own = received.fresh["controls"], client["controls"]
        optimizer = shifted(local.optimizer(None), by=tree.subtract(shared, own))
        upload, metrics = trained_upload(key, objective, received, batches, context, optimizer)
        steps = jnp.sum(jnp.any(as_batches(batches).mask, axis=1))
        walked = local.learning_rate * jnp.maximum(steps, 1)
        mean_gradient = jax.tree.map(
            lambda moved, c, c_k: (moved / walked - (c - c_k)).astype(c.dtype),
            upload.update["params"],
            shared,
            own,
        )
        new = tree.select(steps > 0, mean_gradient, own)
        update = {**upload.update, "controls": tree.subtract(own, new)}
        return (
            Upload(update, dict.fromkeys(update, context.num_examples)),
            {"controls": new},
            metrics,
        )

    def aggregate(server, reduced, context):
        params, stats, state = average.aggregate(server, reduced, context)
        share = reduced.weight["controls"] / total_examples
        controls = jax.tree.map(
            lambda c, moved: (c - share * moved).astype(c.dtype),
            server.controls,
            reduced.update["controls"],
        )
        return ScaffoldServer(params, stats, controls, state)

    return average._replace(
        init=init,
        client_init=lambda key, server, traits: {"controls": tree.zeros_like(server.params)},
        download=download,
        client_update=client_update,
        aggregate=aggregate,
    )
