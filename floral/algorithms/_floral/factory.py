r"""FLoRAL: one base, a bank of C low-rank adaptors, and for each client a mixture over the bank.

Client k trains ``f_k(base + Σ_c π^k_c a_c)`` with respect to the base, the adaptors and its own
logits at once. The server averages the base by ``n_k`` and adaptor c by ``n_k π^k_c``. The logits
stay with the client, or are found anew at every participation by a stateless one.

Source: Almansoori, Horváth, Takáč, "Collaborative and Efficient Personalization with Mixtures of
Adaptors", 2024, Algorithm 1.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from floral import check, tree
from floral.adaptors import (
    AdaptedModel,
    Bank,
    Factored,
    factor_pairs,
    init_bank,
    likeness,
    merge,
    precondition,
)
from floral.algorithms._floral.centering import then_centered
from floral.algorithms._floral.client import client_side
from floral.algorithms._floral.server import FloralServer, server_side
from floral.algorithms.base import Diagnostics, FederatedAlgorithm
from floral.algorithms.toolbox.inputs import check_inputs
from floral.algorithms.toolbox.local import LocalSolver
from floral.algorithms.toolbox.mixture_inference import inference_report
from floral.algorithms.toolbox.parts import roles, true_paths
from floral.algorithms.toolbox.server import server_step
from floral.algorithms.toolbox.stats import own_stats
from floral.errors import SpecError
from floral.mixtures import Mixing, per_layer, traits_check
from floral.typing import Loss, PyTree

__all__ = ["FloralServer", "floral"]


def floral(
    model: AdaptedModel,
    loss: Loss,
    local: LocalSolver,
    mixing: Mixing,
    *,
    num_adaptors: int = 4,
    train: Sequence[str] = ("base", "bank", "mixture"),
    private: Sequence[str] = ("mixture",),
    stateful: bool = True,
    mixture_per: Literal["client", "layer"] = "client",
    bank_learning_rate: float | None = None,
    mixture_learning_rate: float | None = None,
    precondition_epsilon: float | None = None,
    mu: float = 0.0,
    server_optimizer: optax.GradientTransformation | None = None,
    bank_server_optimizer: optax.GradientTransformation | None = None,
    center_adaptors: bool = False,
) -> FederatedAlgorithm:
    """Trains a base and a bank together, each client with its own mixture.

    Args:
      model: a model and the plan of its adaptors.
      loss: per-example loss.
      local: how clients train; momentum and weight decay apply to base, bank and logits alike,
        each part by itself.
      mixing: how logits become weights, and whether they follow losses besides their gradient;
        to follow losses alone, leave the mixture out of ``train``.
      num_adaptors: C, the adaptors in the bank.
      train: what is trained: base, bank, mixture, or path globs such as "bank/**/b".
      private: what stays in the client's row, as path globs; the mixture always does, and the
        model's statistics do with ``"stats"``: each client's batch norm then knows its own data.
      stateful: whether clients keep their rows between rounds; a stateless client starts from
        zero logits, finds its mixture on the round's batches with the rest frozen, then trains.
      mixture_per: one mixture for the whole network, or one for every adapted layer.
      bank_learning_rate: of the adaptors; None is the solver's own rate.
      mixture_learning_rate: of the logits; None is the solver's own rate.
      precondition_epsilon: the ridge of the LoRA preconditioner (1e-5 in the paper); None is
        plain gradients.
      mu: how strongly the parts that are averaged, base and bank, are held to what the client
        received, as in FedProx; 0 is plain local training.
      server_optimizer: takes the mean updates as gradients; None is plain averaging.
      bank_server_optimizer: takes the bank's mean updates in its place; None leaves the bank to
        ``server_optimizer``. With ``optax.sgd(r)`` each adaptor moves r of the way to its mean.
      center_adaptors: whether the server moves the adaptors' mean to the base after every round
        (the paper's appendix F; in none of its results). It leaves every client's model as it is
        where ranks are full, and takes a singular value decomposition an adaptor and leaf.

    Raises:
      SpecError: for settings out of range, globs that match nothing, a plan without adaptors, a
        ``bank_server_optimizer`` where no adaptor is both trained and averaged, or adaptors that
        cannot be centered.
    """
    check_inputs(model, loss, local, adapted=True, mixing=mixing)
    plan = model.plan
    if not plan.adaptors:
        raise SpecError("floral needs at least one adapted leaf; the plan's rules adapt none")
    check.positive_int(num_adaptors=num_adaptors)
    check.one_of(("client", "layer"), mixture_per=mixture_per)
    check.boolean(stateful=stateful, center_adaptors=center_adaptors)
    check.non_negative(mu=mu)
    mixture_struct: PyTree = jax.ShapeDtypeStruct((num_adaptors,), jnp.float32)
    if mixture_per == "layer":
        layers = list(dict.fromkeys(path.rpartition("/")[0] or path for path in plan.adaptors))
        mixing = per_layer(mixing, layers)
        mixture_struct = dict.fromkeys(layers, mixture_struct)
    structs = {
        "base": model.params,
        "bank": jax.eval_shape(lambda: init_bank(jax.random.key(0), plan, num_adaptors)).trained,
        "mixture": mixture_struct,
    }
    beside = {"stats": model.stats} if jax.tree.leaves(model.stats) else {}
    check.globs(private=private)
    parts = roles(structs, train, (*private, "mixture"), beside=beside)
    stats = own_stats(parts.beside.get("stats", ()))
    averaged, _ = tree.split(structs, parts.shared)
    rates = {"base": None, "bank": bank_learning_rate, "mixture": mixture_learning_rate}
    given = {f"{part}_learning_rate": rate for part, rate in rates.items() if rate is not None}
    check.non_negative(**given)
    preconditioner = (
        None if precondition_epsilon is None else precondition(plan, epsilon=precondition_epsilon)
    )
    if bank_server_optimizer is not None and not jax.tree.leaves(averaged["bank"]):
        raise SpecError(
            "bank_server_optimizer steps on averaged adaptors, and here no adaptor is both trained "
            f"and averaged (train {list(train)}, private {list(private)}): leave it out"
        )
    base_step = server_step(server_optimizer)
    at_server = server_side(
        model,
        mixing,
        parts,
        stats,
        base_step,
        base_step if bank_server_optimizer is None else server_step(bank_server_optimizer),
        num_adaptors=num_adaptors,
    )
    at_client = client_side(
        model,
        loss,
        local,
        mixing,
        parts,
        stats,
        num_adaptors=num_adaptors,
        stateful=stateful,
        rates=rates,
        preconditioner=preconditioner,
        mu=mu,
    )

    aggregate = at_server.aggregate
    if center_adaptors:
        aggregate = then_centered(aggregate, plan, parts)

    def client_init(key, server, traits):
        if not stateful:
            return ()
        return at_client.new_row(key, at_server.values(server), server.stats, traits)

    def personalize(key, server, client, batches, context):
        received = at_server.download(server, context)
        if not stateful:
            return at_client.found_anew(key, received, batches, context)
        return at_client.refit(key, received, client, batches, context)

    def mixture(server, client):
        return mixing.weights(client["mixture"], active=server.active, round=server.round)

    def report(server):
        alike = likeness(Bank(server.bank, server.fixed), plan, server.active)
        return {"adaptor_cosine": alike, **inference_report(mixing, server.inference, num_adaptors)}

    def whole_values(server, client):
        kept = {part: client[part] for part in structs}
        return tree.combine(kept, at_server.values(server))

    def own_model(server, client):
        values = whole_values(server, client)
        return values["base"], Bank(values["bank"], server.fixed), mixture(server, client)

    def predict(server, client, batch):
        base, bank, weights = own_model(server, client)
        return model.apply(base, stats.whole(client, server.stats), bank, weights, batch)[0]

    def losses_beside(server, client, batch):
        base, bank, own = own_model(server, client)
        all_stats = stats.whole(client, server.stats)

        def losses_of(weights):
            return loss(model.apply(base, all_stats, bank, weights, batch)[0], batch)

        return losses_of(own), jax.vmap(losses_of)(jnp.eye(num_adaptors))

    def gradients(server, client, batch):
        averaged, rest = tree.split(whole_values(server, client), parts.shared)
        weights, all_stats = mixture(server, client), stats.whole(client, server.stats)
        apply = model.apply_training(true_paths(parts.shared["base"]))

        def mean_loss(averaged):
            full = tree.combine(averaged, rest)
            bank = Bank(full["bank"], server.fixed)
            losses = loss(apply(full["base"], all_stats, bank, weights, batch)[0], batch)
            live = jnp.maximum(jnp.sum(batch["mask"]), 1)
            return jnp.sum(jnp.where(batch["mask"], losses, 0.0)) / live

        found = jax.grad(mean_loss)(averaged)
        bank = {
            path: factors for path, factors in found["bank"].items() if jax.tree.leaves(factors)
        }
        return {"base": found["base"], "bank": bank}

    return FederatedAlgorithm(
        init=at_server.init,
        client_init=client_init,
        download=at_server.download,
        client_update=at_client.update,
        aggregate=aggregate,
        personalize=personalize,
        predict=predict,
        export=lambda server, client: merge(*own_model(server, client), plan),
        mixture=mixture,
        check_traits=traits_check(mixing, num_adaptors),
        report=jax.jit(report),
        diagnostics=Diagnostics(losses_beside, gradients),
        loss=loss,
        factored=Factored(
            pairs=factor_pairs(plan, averaged["bank"]),
            base=frozenset(tree.paths(averaged["base"])),
            values=at_server.values,
            plain=server_optimizer is None and bank_server_optimizer is None,
        ),
        local_optimizer=local.unscheduled().optimizer(),
        global_model=mixing.check_traits is None
        and not any(jax.tree.leaves(parts.private["base"])),
    )
