"""Methods that share a part of the model and keep the rest: FedPer, FedBN, FedRep, local training.

Parts are told by path globs over the model's params and statistics. Private leaves live in the
client's row and never leave; the others are averaged. With all of them private every client trains
alone, with none of them it is FedAvg.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from floral import check, tree
from floral.algorithms._fedavg import FedAvgServer, objective_of
from floral.algorithms.base import Download, FederatedAlgorithm, Objective, Upload
from floral.algorithms.toolbox.inputs import check_inputs, check_sample
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.algorithms.toolbox.server import guarded_step, server_step, start_server_step
from floral.algorithms.toolbox.stats import average_stats, stats_update
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.frameworks.given import check_model
from floral.typing import Loss, PyTree

__all__ = ["fedbn", "fedper", "fedrep", "local_only", "partial", "parts_of_model", "with_frozen"]


def partial(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    *,
    private: Sequence[str],
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """Clients train the whole model; private leaves stay with them, the others are averaged.

    FedPer keeps the last layers (``["params/Dense_1"]``), FedBN the norms with their statistics
    (``["**/BatchNorm_*"]``); ``["**"]`` is local training alone, ``[]`` FedAvg. A new client starts
    from the server's first private leaves and trains them with the shared ones frozen.

    Args:
      model: the model of which a part is shared.
      loss: per-example loss.
      local: how clients train.
      sample: a batch of the data's shapes, to know the model's paths by.
      private: path globs of the params and statistics that stay with the client.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Raises:
      SpecError: for a glob that matches nothing.

    Source: Arivazhagan et al., "Federated Learning with Personalization Layers", 2019; Li et al.,
    "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", 2021.
    """
    objective = objective_of(model, loss)

    def train(key, own, shared, stats, batches, optimizer):
        params, stats, metrics = solve(
            objective,
            tree.combine(own, shared),
            stats,
            batches,
            key,
            optimizer=optimizer,
        )
        return params, stats, metrics

    return _sharing(model, loss, local, sample, private, server_optimizer, train)


def fedper(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    *,
    head: Sequence[str],
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """FedPer: the first layers are averaged, the last ones (the head) stay with each client.

    ``partial`` with ``private=head``; body and head are trained together.

    Args:
      model: the model of which the body is shared.
      loss: per-example loss.
      local: how clients train.
      sample: a batch of the data's shapes, to know the model's paths by.
      head: path globs of the layers that stay with the client, as ["**/Dense_1"].
      server_optimizer: takes the mean update as a gradient; plain averaging if null.

    Raises:
      SpecError: for a glob that matches nothing, or no glob at all.

    Source: Arivazhagan et al., "Federated Learning with Personalization Layers", 2019.
    """
    check.globs(head=head)
    if not head:
        raise SpecError("head: FedPer keeps at least one layer, as ['**/Dense_1']")
    parts_of_model(model, sample, name="head", globs=head)
    return partial(model, loss, local, sample, private=head, server_optimizer=server_optimizer)


def fedbn(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    *,
    norms: Sequence[str] = ("**/BatchNorm_*",),
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """FedBN: batch norms, with their statistics, stay with each client; all else is averaged.

    ``partial`` with ``private=norms``.

    Args:
      model: a model with batch norms.
      loss: per-example loss.
      local: how clients train.
      sample: a batch of the data's shapes, to know the model's paths by.
      norms: path globs of the norms; the default is what flax.linen calls them.
      server_optimizer: takes the mean update as a gradient; plain averaging if null.

    Raises:
      SpecError: if the model has no such norm, as one with ``norm="none"``.

    Source: Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch
    Normalization", 2021.
    """
    check.globs(norms=norms)
    check_model(model)
    check_sample(sample)
    if not norms:
        raise SpecError("norms: FedBN keeps at least one norm, as ['**/BatchNorm_*']")
    structs = jax.eval_shape(model.init, jax.random.key(0), sample)
    if not any(any(jax.tree.leaves(tree.matching(part, norms))) for part in structs):
        raise SpecError(
            f"norms: {', '.join(map(repr, norms))} matches no path of the model; FedBN needs a "
            "model with batch norm, as {kind: mlp, norm: batch}"
        )
    return partial(model, loss, local, sample, private=norms, server_optimizer=server_optimizer)


def local_only(model: Model, loss: Loss, local: LocalSolver, sample: PyTree) -> FederatedAlgorithm:
    """Every client trains a whole model by itself, round after round; nothing is sent.

    ``partial`` with everything private. Clients start from the same model; an unseen client trains
    its own from there.

    Args:
      model: the model that each client has.
      loss: per-example loss.
      local: how clients train.
      sample: a batch of the data's shapes, to know the model's paths by.
    """
    return partial(model, loss, local, sample, private=("**",))


def fedrep(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    *,
    private: Sequence[str],
    head_passes: int = 1,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """``partial`` whose clients alternate: the private part first, then the shared one.

    Each is trained with the other frozen, so that the shared part learns for heads that fit it
    already. The loss that is reported is that of the second.

    Args:
      model: the model of which a part is shared.
      loss: per-example loss.
      local: how clients train either part.
      sample: a batch of the data's shapes, to know the model's paths by.
      private: path globs of the params and statistics that stay with the client: the head.
      head_passes: how often the head sees the round's batches; the shared part sees them once.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Raises:
      SpecError: for a glob that matches nothing, or no whole number of passes.

    Source: Collins et al., "Exploiting Shared Representations for Personalized Federated
    Learning", 2021, Algorithm 1.
    """
    check.positive_int(head_passes=head_passes)
    objective = objective_of(model, loss)

    def train(key, own, shared, stats, batches, optimizer):
        head_key, body_key = jax.random.split(key)

        def head_pass(index, carry):
            own, stats = carry
            on_heads = with_frozen(objective, shared)
            pass_key = jax.random.fold_in(head_key, index)
            own, stats, _ = solve(on_heads, own, stats, batches, pass_key, optimizer=optimizer)
            return own, stats

        own, stats = jax.lax.fori_loop(0, head_passes, head_pass, (own, stats))
        shared, stats, metrics = solve(
            with_frozen(objective, own), shared, stats, batches, body_key, optimizer=optimizer
        )
        return tree.combine(own, shared), stats, metrics

    return _sharing(model, loss, local, sample, private, server_optimizer, train)


def parts_of_model(
    model: Model, sample: PyTree, *, name: str, globs: Sequence[str]
) -> dict[str, PyTree]:
    """``{"params": mask, "stats": mask}``, Python booleans: True where a glob matches.

    Args:
      model: whose shapes are traced.
      sample: a batch of the data's shapes.
      name: of the setting, for the message.
      globs: over the paths of params and of statistics.

    Raises:
      SpecError: for a glob that matches nothing; names the nearest path.
    """
    check.globs(**{name: globs})
    check_model(model)
    check_sample(sample)
    structs = dict(
        zip(("params", "stats"), jax.eval_shape(model.init, jax.random.key(0), sample), strict=True)
    )
    known = [path for part in structs.values() for path in tree.paths(part)]
    for glob in globs:
        if not any(any(jax.tree.leaves(tree.matching(t, [glob]))) for t in structs.values()):
            raise SpecError(
                f"{name}: {glob!r} matches no path of the model, such as {known[0]!r}"
                f"{tree.glob_hint(glob, known)}"
            )
    return {part: tree.matching(struct, globs) for part, struct in structs.items()}


def with_frozen(objective: Objective, frozen: PyTree) -> Objective:
    """The objective of the other leaves, where these ones stand still."""

    def of_others(trained, stats, batch, key):
        return objective(tree.combine(trained, frozen), stats, batch, key)

    return of_others


def _sharing(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    private: Sequence[str],
    server_optimizer: optax.GradientTransformation | None,
    train: Callable[..., Any],
) -> FederatedAlgorithm:
    """What is common: ``train`` is ``(key, own, shared, stats, batches, optimizer) -> (params,
    stats, metrics)``, the private and the shared params apart, None where a leaf is of the other
    kind."""
    check_inputs(model, loss, local, sample=sample)
    mask = parts_of_model(model, sample, name="private", globs=private)
    server_optimizer = server_step(server_optimizer)
    objective = objective_of(model, loss)

    def own_of(values):
        return tree.split(values, mask)[0]

    def values_of(server):
        return {"params": server.params, "stats": server.stats}

    def shared_of(server):
        return tree.split(values_of(server), mask)[1]

    def init(key, params, stats):
        shared = tree.split(params, mask["params"])[1]
        return FedAvgServer(params, stats, start_server_step(server_optimizer, shared, key))

    def client_update(key, received, client, batches, context):
        shared = received.fresh
        stats = tree.combine(client["stats"], shared["stats"])
        optimizer = local.optimizer(None, context.round)
        params, stats, metrics = train(
            key, client["params"], shared["params"], stats, batches, optimizer
        )
        row, new = tree.split({"params": params, "stats": stats}, mask)
        moved = tree.subtract(shared["params"], new["params"])
        update = {"params": moved} if jax.tree.leaves(moved) else {}
        update |= stats_update(shared["stats"], new["stats"])
        return Upload(update, dict.fromkeys(update, context.num_examples)), row, metrics

    def aggregate(server, reduced, context):
        shared, state = shared_of(server), server.optimizer
        params = shared["params"]
        if "params" in reduced.update:
            params, state = guarded_step(
                server_optimizer,
                params,
                state,
                reduced.update["params"],
                reduced.weight["params"],
            )
        return FedAvgServer(
            params=tree.combine(params, server.params),
            stats=tree.combine(average_stats(shared["stats"], reduced), server.stats),
            optimizer=state,
        )

    def personalize(key, server, client, batches, context):
        if not jax.tree.leaves(client):
            return client
        shared = shared_of(server)
        own, stats, _ = solve(
            with_frozen(objective, shared["params"]),
            client["params"],
            tree.combine(client["stats"], shared["stats"]),
            batches,
            key,
            optimizer=local.unscheduled().optimizer(),
        )
        return {"params": own, "stats": own_of({**values_of(server), "stats": stats})["stats"]}

    def predict(server, client, batch):
        values = tree.combine(client, values_of(server))
        return model.apply(values["params"], values["stats"], batch)[0]

    return FederatedAlgorithm(
        init=init,
        client_init=lambda key, server, traits: own_of(values_of(server)),
        download=lambda server, context: Download(fresh=shared_of(server), cached=()),
        client_update=client_update,
        aggregate=aggregate,
        personalize=personalize,
        predict=predict,
        export=lambda server, client: tree.combine(client["params"], server.params),
        local_optimizer=local.unscheduled().optimizer(),
        global_model=False,
        loss=loss,
    )
