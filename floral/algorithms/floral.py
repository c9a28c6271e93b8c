r"""FLoRAL: one base, a bank of C low-rank adaptors, and for each client a mixture over the bank.

Client k trains ``f_k(base + Σ_c π^k_c a_c)`` with respect to the base, the adaptors and its own
logits at once. The server averages the base by ``n_k`` and adaptor c by ``n_k π^k_c``. The logits
stay with the client, or are found anew at every participation by a stateless one.

Source: Almansoori, Horváth, Takáč, "Collaborative and Efficient Personalization with Mixtures of
Adaptors", 2024, Algorithm 1.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

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
    weights_at,
)
from floral.algorithms.base import Diagnostics, Download, FederatedAlgorithm, Upload
from floral.algorithms.evidence import one_by_one
from floral.algorithms.finding import (
    Finding,
    finding_learnt,
    finding_report,
    finding_sent,
    finding_start,
    finding_told,
    found_logits,
)
from floral.algorithms.local import LocalSolver, solve
from floral.algorithms.parts import by_part, roles
from floral.algorithms.server import guarded_step, init_stack, step_stack
from floral.algorithms.stats import average_stats, stats_update
from floral.errors import SpecError
from floral.mixtures import Mixing, per_layer, shares_of, traits_check
from floral.random import stream
from floral.typing import Array, Loss, Params, PyTree

__all__ = ["FloralServer", "floral"]


class FloralServer(NamedTuple):
    """What the server of FLoRAL remembers.

    Attributes:
      base: the params all clients share.
      bank: ``{path: {factor: [C, ...]}}``.
      fixed: frozen factors of the bank.
      stats: the model's statistics.
      active: [C] bool, the adaptors in use.
      round: int32, the rounds taken.
      finding: what clients find their mixtures by.
      base_optimizer: the server optimizer's state of the trained base.
      bank_optimizer: ``{path: state [C, ...]}``, one an adaptor.
    """

    base: Params
    bank: dict[str, dict[str, Array]]
    fixed: dict[str, PyTree]
    stats: PyTree
    active: Array
    round: Array
    finding: Finding
    base_optimizer: PyTree
    bank_optimizer: dict[str, PyTree]


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
    server_optimizer: optax.GradientTransformation | None = None,
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
      private: what stays in the client's row, as path globs; the mixture always does.
      stateful: whether clients keep their rows between rounds; a stateless client starts from
        zero logits, finds its mixture on the round's batches with the rest frozen, then trains.
      mixture_per: one mixture for the whole network, or one for every adapted layer.
      bank_learning_rate: of the adaptors; None is the solver's own rate.
      mixture_learning_rate: of the logits; None is the solver's own rate.
      precondition_epsilon: the ridge of the LoRA preconditioner (1e-5 in the paper); None is
        plain gradients.
      server_optimizer: takes the mean updates as gradients; None is plain averaging.

    Raises:
      SpecError: for settings out of range, globs that match nothing, or a plan without adaptors.
    """
    plan = model.plan
    if not plan.adaptors:
        raise SpecError("floral needs at least one adapted leaf; the plan's rules adapt none")
    check.positive_int(num_adaptors=num_adaptors)
    check.one_of(("client", "layer"), mixture_per=mixture_per)
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
    parts = roles(structs, train, (*private, "mixture"))
    trains_shared = any(jax.tree.leaves(parts.shared))  # else nothing the server holds may move
    no_mixture = jax.tree.map(lambda _: None, mixture_struct)  # the server has none of its own
    server_shared = {**parts.shared, "mixture": no_mixture}
    averaged, _ = tree.split(structs, parts.shared)
    plain = server_optimizer is None
    server_optimizer = optax.sgd(1.0) if server_optimizer is None else server_optimizer
    rates = {"base": None, "bank": bank_learning_rate, "mixture": mixture_learning_rate}
    given = {f"{part}_learning_rate": rate for part, rate in rates.items() if rate is not None}
    check.non_negative(**given)
    preconditioner = (
        None if precondition_epsilon is None else precondition(plan, epsilon=precondition_epsilon)
    )

    def stats_of(received):
        return (received.fresh if trains_shared else received.cached)["stats"]

    def server_values(server):
        return {"base": server.base, "bank": server.bank, "mixture": no_mixture}

    def new_row(key, values, traits):
        logits = mixing.init(stream(key, "mixture"), num_adaptors, traits)
        return tree.split({**values, "mixture": logits}, parts.private)[0]

    def train_leaves(key, values, mask, received, batches, context):
        """Local training of the leaves of ``values`` where the mask is True."""
        trained, frozen = tree.split(values, mask)
        apply = model.apply_training(_moving(mask["base"]))
        fixed, active = received.cached["fixed"], received.fresh["active"]

        def objective(trained, stats, batch, step_key):
            full = tree.combine(trained, frozen)
            weights = mixing.weights(
                full["mixture"],
                active=active,
                round=context.round,
                train=True,
                key=stream(step_key, "mixture"),
            )
            outputs, stats = apply(
                full["base"],
                stats,
                Bank(full["bank"], fixed),
                weights,
                batch,
                key=stream(step_key, "model"),
                train=True,
            )
            return loss(outputs, batch), stats

        optimizer = by_part(
            {part: local.optimizer(rate) for part, rate in rates.items()},
            preconditioner=preconditioner,
            frozen=frozen,
        )
        trained, stats, metrics = solve(
            objective, trained, stats_of(received), batches, key, optimizer=optimizer
        )
        return tree.combine(trained, frozen), stats, metrics

    own = jax.tree.map(lambda moves, stays: moves and stays, parts.trained, parts.private)

    def values_of(row, received):
        return tree.combine(row, received.fresh["values"], received.cached["values"])

    def looked(row, received, batches, context, *, always=False):
        """The row, its logits as its examples or each adaptor's losses have them, where due."""
        values, active = values_of(row, received), received.fresh["active"]

        def losses_of(weights, batch):
            bank = Bank(values["bank"], received.cached["fixed"])
            outputs, _ = model.apply(values["base"], stats_of(received), bank, weights, batch)
            return loss(outputs, batch)

        logits = found_logits(
            mixing,
            received,
            row["mixture"],
            one_by_one(losses_of, num_adaptors),
            batches,
            active=active,
            round=context.round,
            always=always,
        )
        return {**row, "mixture": logits}

    def refit(key, received, row, batches, context):
        """The client's own leaves, found with everything it shares frozen."""
        row = looked(row, received, batches, context, always=True)
        if not any(jax.tree.leaves(own)):
            return row
        values = values_of(row, received)
        values, _, _ = train_leaves(key, values, own, received, batches, context)
        return tree.split(values, parts.private)[0]

    def found_anew(key, received, batches, context):
        """A stateless client's row: from zero logits to its own, on the batches at hand."""
        values = tree.combine(received.fresh["values"], received.cached["values"])
        row = new_row(key, values, context.traits)
        return refit(stream(key, "refit"), received, row, batches, context)

    def init(key, params, stats):
        bank = init_bank(stream(key, "bank"), plan, num_adaptors)
        shared, _ = tree.split(
            {"base": params, "bank": bank.trained, "mixture": no_mixture}, server_shared
        )
        return FloralServer(
            base=params,
            bank=bank.trained,
            fixed=bank.fixed,
            stats=stats,
            active=jnp.ones((num_adaptors,), bool),
            round=jnp.zeros((), jnp.int32),
            finding=finding_start(mixing, key, model.batch, num_adaptors),
            base_optimizer=server_optimizer.init(shared["base"]),
            bank_optimizer=init_stack(server_optimizer, shared["bank"]),
        )

    def client_init(key, server, traits):
        return new_row(key, server_values(server), traits) if stateful else ()

    def download(server, context):
        fresh, cached = tree.split(server_values(server), server_shared)
        stats = {"stats": server.stats}
        finding, found_once = finding_sent(mixing, server.finding)
        now = {"values": fresh, "active": server.active, "finding": finding}
        once = {"values": cached, "fixed": server.fixed, "finding": found_once}
        if trains_shared:
            return Download(fresh={**now, **stats}, cached=once)
        return Download(fresh=now, cached={**once, **stats})

    def client_update(key, received, client, batches, context):
        if stateful:
            row = looked(client, received, batches, context)
        else:
            row = found_anew(key, received, batches, context)
        start = values_of(row, received)
        end, stats, metrics = train_leaves(
            stream(key, "train"), start, parts.trained, received, batches, context
        )
        moved, _ = tree.split(tree.subtract(start, end), parts.shared)
        shares = shares_of(
            mixing, end["mixture"], active=received.fresh["active"], round=context.round
        )
        count = context.num_examples
        update = {part: moved[part] for part in ("base", "bank") if jax.tree.leaves(moved[part])}
        update |= stats_update(stats_of(received), stats) if trains_shared else {}
        weight = dict.fromkeys(update, count)
        told = finding_told(mixing, received, batches, context.round)
        update |= told
        weight |= dict.fromkeys(told, jnp.ones(()))
        if "bank" in update:
            weight["bank"] = _adaptor_weights(shares, count, update["bank"])
        kept = tree.split(end, parts.private)[0] if stateful else ()
        return Upload(update, weight), kept, metrics

    def aggregate(server, reduced, context):
        shared, rest = tree.split(server_values(server), server_shared)
        base, base_state = shared["base"], server.base_optimizer
        bank, bank_state = shared["bank"], server.bank_optimizer
        update, weight = reduced.update, reduced.weight
        if "base" in update:
            base, base_state = guarded_step(
                server_optimizer, base, base_state, update["base"], weight["base"]
            )
        if "bank" in update:
            bank, bank_state = step_stack(
                server_optimizer, bank, bank_state, update["bank"], weight["bank"]
            )
        finding, active = finding_learnt(
            mixing,
            server.finding,
            reduced,
            server.active,
            context.round,
            examples=weight.get("bank"),
        )
        return server._replace(
            base=tree.combine(base, rest["base"]),
            bank=tree.combine(bank, rest["bank"]),
            stats=average_stats(server.stats, reduced),
            round=server.round + 1,
            finding=finding,
            active=active,
            base_optimizer=base_state,
            bank_optimizer=bank_state,
        )

    def personalize(key, server, client, batches, context):
        received = download(server, context)
        if not stateful:
            return found_anew(key, received, batches, context)
        return refit(key, received, client, batches, context)

    def mixture(server, client):
        return mixing.weights(client["mixture"], active=server.active, round=server.round)

    def report(server):
        alike = likeness(Bank(server.bank, server.fixed), plan, server.active)
        return {"adaptor_cosine": alike, **finding_report(mixing, server.finding, num_adaptors)}

    def own_model(server, client):
        values = tree.combine(client, server_values(server))
        return values["base"], Bank(values["bank"], server.fixed), mixture(server, client)

    def predict(server, client, batch):
        base, bank, weights = own_model(server, client)
        return model.apply(base, server.stats, bank, weights, batch)[0]

    def losses_beside(server, client, batch):
        base, bank, own = own_model(server, client)

        def losses_of(weights):
            return loss(model.apply(base, server.stats, bank, weights, batch)[0], batch)

        return losses_of(own), jax.vmap(losses_of)(jnp.eye(num_adaptors))

    def gradients(server, client, batch):
        averaged, rest = tree.split(tree.combine(client, server_values(server)), parts.shared)
        weights = mixture(server, client)
        apply = model.apply_training(_moving(parts.shared["base"]))

        def mean_loss(averaged):
            full = tree.combine(averaged, rest)
            bank = Bank(full["bank"], server.fixed)
            losses = loss(apply(full["base"], server.stats, bank, weights, batch)[0], batch)
            live = jnp.maximum(jnp.sum(batch["mask"]), 1)
            return jnp.sum(jnp.where(batch["mask"], losses, 0.0)) / live

        found = jax.grad(mean_loss)(averaged)
        bank = {
            path: factors for path, factors in found["bank"].items() if jax.tree.leaves(factors)
        }
        return {"base": found["base"], "bank": bank}

    return FederatedAlgorithm(
        init=init,
        client_init=client_init,
        download=download,
        client_update=client_update,
        aggregate=aggregate,
        personalize=personalize,
        predict=predict,
        export=lambda server, client: merge(*own_model(server, client), plan),
        mixture=mixture,
        check_traits=traits_check(mixing, num_adaptors),
        report=report,
        diagnostics=Diagnostics(losses_beside, gradients),
        factored=Factored(
            pairs=factor_pairs(plan, averaged["bank"]),
            base=frozenset(tree.paths(averaged["base"])),
            values=server_values,
            plain=plain,
        ),
    )


def _moving(mask: PyTree) -> list[str]:
    """The paths where a mask is True."""
    return [path for path, moves in tree.paths(mask).items() if moves]


def _adaptor_weights(shares: PyTree, count: Array, bank: Mapping[str, PyTree]) -> PyTree:
    """``n_k π^k_c``: [C], or ``{path: [C]}`` where each layer has its own mixture."""
    if not isinstance(shares, Mapping):
        return count * shares
    return {path: count * weights_at(shares, path) for path in bank}
