"""The dual adaptor: one that everyone shares and one of each client's own, on a frozen base."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from floral import check, tree
from floral.adaptors import AdaptedModel, Bank, Factored, factor_pairs, init_bank, merge
from floral.algorithms.base import Download, FederatedAlgorithm, Upload
from floral.algorithms.toolbox.inputs import check_inputs
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.algorithms.toolbox.parts import by_part
from floral.algorithms.toolbox.server import guarded_step, server_step, start_server_step
from floral.algorithms.toolbox.stats import average_stats, stats_update
from floral.errors import SpecError
from floral.random import stream
from floral.typing import Array, Loss, Params, PyTree

__all__ = ["DualAdaptorServer", "dual_adaptor"]


class DualAdaptorServer(NamedTuple):
    """What the server of the dual adaptor remembers.

    Attributes:
      base: the params, which stay as they were given.
      bank: the shared adaptor, ``{path: {factor: [1, ...]}}``.
      fixed: frozen factors of both adaptors.
      stats: the model's statistics, averaged over clients.
      optimizer: the server optimizer's state.
    """

    base: Params
    bank: dict[str, dict[str, Array]]
    fixed: dict[str, PyTree]
    stats: PyTree
    optimizer: PyTree


def dual_adaptor(
    model: AdaptedModel,
    loss: Loss,
    local: LocalSolver,
    *,
    own_learning_rate: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """Clients train two adaptors at once, whose deltas add up; one is averaged, the other theirs.

    A new client trains its own with the shared one frozen.

    Args:
      model: a model and the plan of its adaptors.
      loss: per-example loss.
      local: how clients train.
      own_learning_rate: of the clients' own adaptors; None is the solver's own rate, 0 is federated
        averaging of one adaptor.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Raises:
      SpecError: for a plan without adaptors.

    Source: Yang et al., "Dual-Personalizing Adapter for Federated Foundation Models", 2024, for the
    pair of a global and a local adaptor.
    Differs from the paper: both are trained at once, and count whole for every example.
    """
    check_inputs(model, loss, local, adapted=True)
    plan = model.plan
    if not plan.adaptors:
        raise SpecError("dual_adaptor needs at least one adapted leaf; the plan's rules adapt none")
    if own_learning_rate is not None:
        check.non_negative(own_learning_rate=own_learning_rate)
    bank_struct = jax.eval_shape(lambda: init_bank(jax.random.key(0), plan, 1)).trained
    factored = Factored(
        pairs=factor_pairs(plan, bank_struct),
        base=frozenset(),
        values=lambda server: {"bank": server.bank},
        plain=server_optimizer is None,
    )
    server_optimizer = server_step(server_optimizer)
    apply = model.apply_training([])

    def objective_on(base, fixed, frozen):
        def objective(trained, stats, batch, key):
            bank = _both({**trained, **frozen}, fixed)
            outputs, stats = apply(
                base, stats, bank, jnp.ones(2), batch, key=stream(key, "model"), train=True
            )
            return loss(outputs, batch), stats

        return objective

    def init(key, params, stats):
        bank = init_bank(stream(key, "bank"), plan, 1)
        state = start_server_step(server_optimizer, bank.trained, key)
        return DualAdaptorServer(params, bank.trained, bank.fixed, stats, state)

    def download(server, context):
        return Download(
            fresh={"bank": server.bank, "stats": server.stats},
            cached={"base": server.base, "fixed": server.fixed},
        )

    def client_update(key, received, client, batches, context):
        shared, stats = received.fresh["bank"], received.fresh["stats"]
        rates = {"shared": None, "own": own_learning_rate}
        optimizer = by_part(
            {part: local.optimizer(rate, context.round) for part, rate in rates.items()}
        )
        end, new_stats, metrics = solve(
            objective_on(received.cached["base"], received.cached["fixed"], {}),
            {"shared": shared, "own": client["bank"]},
            stats,
            batches,
            key,
            optimizer=optimizer,
        )
        update = {"bank": tree.subtract(shared, end["shared"])} | stats_update(stats, new_stats)
        upload = Upload(update, dict.fromkeys(update, context.num_examples))
        return upload, {"bank": end["own"]}, metrics

    def aggregate(server, reduced, context):
        bank, state = guarded_step(
            server_optimizer,
            server.bank,
            server.optimizer,
            reduced.update["bank"],
            reduced.weight["bank"],
        )
        stats = average_stats(server.stats, reduced)
        return server._replace(bank=bank, stats=stats, optimizer=state)

    def personalize(key, server, client, batches, context):
        end, _, _ = solve(
            objective_on(server.base, server.fixed, {"shared": server.bank}),
            {"own": client["bank"]},
            server.stats,
            batches,
            key,
            optimizer=by_part({"own": local.unscheduled().optimizer(own_learning_rate)}),
        )
        return {"bank": end["own"]}

    def bank_of(server, client):
        return _both({"shared": server.bank, "own": client["bank"]}, server.fixed)

    def predict(server, client, batch):
        bank = bank_of(server, client)
        return model.apply(server.base, server.stats, bank, jnp.ones(2), batch)[0]

    return FederatedAlgorithm(
        init=init,
        client_init=lambda key, server, traits: {"bank": init_bank(key, plan, 1).trained},
        download=download,
        client_update=client_update,
        aggregate=aggregate,
        personalize=personalize,
        predict=predict,
        export=lambda server, client: merge(
            server.base, bank_of(server, client), jnp.ones(2), plan
        ),
        factored=factored,
        local_optimizer=local.unscheduled().optimizer(),
        loss=loss,
    )


def _both(banks: dict[str, PyTree], fixed: PyTree) -> Bank:
    """The shared adaptor and the client's own as a bank of two."""
    return Bank(
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves), banks["shared"], banks["own"]), fixed
    )
