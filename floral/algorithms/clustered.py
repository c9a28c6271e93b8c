"""Methods that train C whole models: the Ensemble.

Source: the FLoRAL paper's baseline of that name, section 6; Marfoq et al., "Federated Multi-Task
Learning under a Mixture of Distributions", 2021, for mixtures of whole models.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from floral import check
from floral.algorithms.base import Download, FederatedAlgorithm, Upload
from floral.algorithms.toolbox.inputs import check_inputs
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.algorithms.toolbox.mixture_inference import (
    MixtureInference,
    client_sums,
    infer_logits,
    inference_report,
    start_inference,
    to_client,
    update_inference,
)
from floral.algorithms.toolbox.parts import by_part
from floral.algorithms.toolbox.server import guarded_step, server_step, start_server_step
from floral.errors import SpecError
from floral.mixtures import Mixing, shares_of, traits_check
from floral.models.base import Model
from floral.random import stream
from floral.tree import subtract
from floral.typing import Array, Loss, Params, PyTree

__all__ = ["EnsembleServer", "ensemble"]


class EnsembleServer(NamedTuple):
    """What the server of an ensemble remembers.

    Attributes:
      models: params with a leading axis C.
      active: [C] bool, the models in use.
      round: int32, the rounds taken.
      inference: what clients' mixtures are inferred by.
      optimizer: the server optimizer's state, one a model ([C, ...]).
    """

    models: Params
    active: Array
    round: Array
    inference: MixtureInference
    optimizer: PyTree


def ensemble(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    mixing: Mixing,
    sample: PyTree,
    *,
    num_models: int = 4,
    mixture_learning_rate: float | None = None,
    stateful: bool = True,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """C whole models and for each client a mixture of their *outputs*, trained together.

    The first model starts from the given params; the others are drawn anew, which is what tells
    them apart.

    Args:
      model: the model of which there are C.
      loss: per-example loss.
      local: how clients train.
      mixing: how logits become weights.
      sample: a batch of the data's shapes, to initialise the other models with.
      num_models: C.
      mixture_learning_rate: of the logits; None is the solver's own rate.
      stateful: whether clients keep their logits between rounds; a stateless client finds them
        anew on the round's batches with the models frozen, then trains.
      server_optimizer: takes the mean updates as gradients; None is plain averaging.

    Raises:
      SpecError: when initialised, for a model with statistics (batch norm).
    """
    check_inputs(model, loss, local, mixing=mixing, sample=sample)
    check.positive_int(num_models=num_models)
    check.boolean(stateful=stateful)
    if mixture_learning_rate is not None:
        check.non_negative(mixture_learning_rate=mixture_learning_rate)
    server_optimizer = server_step(server_optimizer)
    rates = {"models": None, "mixture": mixture_learning_rate}

    def outputs_of_each(models, batch, *, key=None, train=False):
        def one(params):
            return model.apply(params, (), batch, key=key, train=train)[0]

        return jax.vmap(one)(models)

    def mixed_outputs(models, weights, batch, **options):
        outputs = outputs_of_each(models, batch, **options)
        return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), outputs)

    def train_parts(key, values, names, received, batches, context, solver):
        trained = {name: values[name] for name in names}
        frozen = {name: value for name, value in values.items() if name not in names}

        def objective(trained, stats, batch, step_key):
            full = {**trained, **frozen}
            weights = mixing.weights(
                full["mixture"],
                active=received.fresh["active"],
                round=context.round,
                train=True,
                key=stream(step_key, "mixture"),
            )
            outputs = mixed_outputs(
                full["models"], weights, batch, key=stream(step_key, "model"), train=True
            )
            return loss(outputs, batch), stats

        optimizer = by_part(
            {part: solver.optimizer(rate, context.round) for part, rate in rates.items()}
        )
        trained, _, metrics = solve(objective, trained, (), batches, key, optimizer=optimizer)
        return {**frozen, **trained}, metrics

    def init(key, params, stats):
        if jax.tree.leaves(stats):
            raise SpecError(
                "ensemble: the model keeps statistics (batch norm), which C models mixed in "
                "their outputs cannot share; use GroupNorm or LayerNorm"
            )
        keys = jax.random.split(stream(key, "models"), num_models - 1)
        others = jax.vmap(lambda model_key: model.init(model_key, sample)[0])(keys)
        models = jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest]), params, others
        )
        return EnsembleServer(
            models=models,
            active=jnp.ones((num_models,), bool),
            round=jnp.zeros((), jnp.int32),
            inference=start_inference(mixing, key, sample, num_models),
            optimizer=start_server_step(server_optimizer, models, key, stacked=True),
        )

    def new_row(key, traits):
        return {"mixture": mixing.init(stream(key, "mixture"), num_models, traits)}

    def download(server, context):
        inference, found_once = to_client(mixing, server.inference)
        now = {"models": server.models, "active": server.active, "inference": inference}
        return Download(fresh=now, cached={"inference": found_once})

    def looked(row, received, batches, context, *, always=False):
        """The row, its logits as its examples or each model's losses have them, where due."""

        def losses_each(batch):
            outputs = outputs_of_each(received.fresh["models"], batch)
            return jax.vmap(lambda own: loss(own, batch), out_axes=1)(outputs)

        logits = infer_logits(
            mixing,
            received,
            row["mixture"],
            losses_each,
            batches,
            active=received.fresh["active"],
            round=context.round,
            always=always,
        )
        return {"mixture": logits}

    def refit(key, received, row, batches, context):
        row = looked(row, received, batches, context, always=True)
        values = {**row, "models": received.fresh["models"]}
        values, _ = train_parts(
            key, values, ("mixture",), received, batches, context, local.unscheduled()
        )
        return {"mixture": values["mixture"]}

    def found_anew(key, received, batches, context):
        row = new_row(key, context.traits)
        return refit(stream(key, "refit"), received, row, batches, context)

    def client_update(key, received, client, batches, context):
        if stateful:
            row = looked(client, received, batches, context)
        else:
            row = found_anew(key, received, batches, context)
        start = {**row, "models": received.fresh["models"]}
        end, metrics = train_parts(
            stream(key, "train"), start, ("models", "mixture"), received, batches, context, local
        )
        shares = shares_of(
            mixing, end["mixture"], active=received.fresh["active"], round=context.round
        )
        upload = Upload(
            update={"models": subtract(start["models"], end["models"])},
            weight={"models": context.num_examples * shares},
            sums=client_sums(mixing, received, batches, context.round),
        )
        return upload, {"mixture": end["mixture"]} if stateful else (), metrics

    def aggregate(server, reduced, context):
        models, state = guarded_step(
            server_optimizer,
            server.models,
            server.optimizer,
            reduced.update["models"],
            reduced.weight["models"],
        )
        inference, active = update_inference(
            mixing,
            server.inference,
            reduced,
            server.active,
            context.round,
            examples=reduced.weight["models"],
        )
        return server._replace(
            models=models,
            optimizer=state,
            inference=inference,
            active=active,
            round=server.round + 1,
        )

    def personalize(key, server, client, batches, context):
        received = download(server, context)
        if not stateful:
            return found_anew(key, received, batches, context)
        return refit(key, received, client, batches, context)

    def mixture(server, client):
        return mixing.weights(client["mixture"], active=server.active, round=server.round)

    return FederatedAlgorithm(
        init=init,
        client_init=lambda key, server, traits: new_row(key, traits) if stateful else (),
        download=download,
        client_update=client_update,
        aggregate=aggregate,
        personalize=personalize,
        predict=lambda server, client, batch: mixed_outputs(
            server.models, mixture(server, client), batch
        ),
        mixture=mixture,
        check_traits=traits_check(mixing, num_models),
        report=lambda server: inference_report(mixing, server.inference, num_models),
        local_optimizer=local.unscheduled().optimizer(),
        global_model=mixing.check_traits is None,
        loss=loss,
    )
