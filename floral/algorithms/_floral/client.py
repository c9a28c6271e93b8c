"""FLoRAL's client: it finds its mixture, and trains what is its own and what is everyone's."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import optax

from floral import tree
from floral.adaptors import AdaptedModel, Bank, weights_at
from floral.algorithms.base import Upload
from floral.algorithms.toolbox.adaptor_losses import one_by_one
from floral.algorithms.toolbox.local import LocalSolver, solve
from floral.algorithms.toolbox.mixture_inference import client_sums, infer_logits
from floral.algorithms.toolbox.parts import Parts, by_part, true_paths
from floral.algorithms.toolbox.stats import OwnStats, stats_update
from floral.mixtures import Mixing, shares_of
from floral.random import stream
from floral.typing import Array, Loss, PyTree

__all__ = ["ClientSide", "client_side"]


class ClientSide(NamedTuple):
    """What a client does.

    Attributes:
      new_row: ``(key, values, stats, traits) -> row``, a first one.
      update: ``client_update`` of `FederatedAlgorithm`.
      refit: ``(key, received, row, batches, context) -> row``: its own leaves, found with all that
        it shares frozen.
      found_anew: ``(key, received, batches, context) -> row`` of one that kept nothing.
    """

    new_row: Callable[..., PyTree]
    update: Callable[..., tuple[Upload, PyTree, dict[str, Array]]]
    refit: Callable[..., PyTree]
    found_anew: Callable[..., PyTree]


def client_side(
    model: AdaptedModel,
    loss: Loss,
    local: LocalSolver,
    mixing: Mixing,
    parts: Parts,
    stats: OwnStats,
    *,
    num_adaptors: int,
    stateful: bool,
    rates: Mapping[str, float | None],
    preconditioner: optax.GradientTransformation | None,
    mu: float = 0.0,
) -> ClientSide:
    """A client of C adaptors.

    Args:
      model: a model and the plan of its adaptors.
      loss: per-example loss.
      local: how it trains.
      mixing: how logits become weights, and how they are found.
      parts: the roles of ``{"base": ..., "bank": ..., "mixture": ...}``.
      stats: which statistics are its own.
      num_adaptors: C.
      stateful: whether it keeps its row.
      rates: learning rates by part; None is the solver's own.
      preconditioner: of the bank's gradients.
      mu: strength of the proximal term of the averaged leaves.
    """
    own = jax.tree.map(lambda moves, stays: moves and stays, parts.trained, parts.private)

    def shared_stats(received):
        return (received.fresh if parts.any_shared else received.cached)["stats"]

    def values_of(row, received):
        kept = {part: row[part] for part in parts.private}
        return tree.combine(kept, received.fresh["values"], received.cached["values"])

    def new_row(key, values, all_stats, traits):
        logits = mixing.init(stream(key, "mixture"), num_adaptors, traits)
        return stats.into(tree.split({**values, "mixture": logits}, parts.private)[0], all_stats)

    def train_leaves(key, values, start_stats, mask, received, batches, context, solver):
        """Local training of the leaves of ``values`` where the mask is True."""
        trained, frozen = tree.split(values, mask)
        apply = model.apply_training(true_paths(mask["base"]))
        fixed, active = received.cached["fixed"], received.fresh["active"]

        def objective(trained, now_stats, batch, step_key):
            full = tree.combine(trained, frozen)
            weights = mixing.weights(
                full["mixture"],
                active=active,
                round=context.round,
                train=True,
                key=stream(step_key, "mixture"),
            )
            outputs, now_stats = apply(
                full["base"],
                now_stats,
                Bank(full["bank"], fixed),
                weights,
                batch,
                key=stream(step_key, "model"),
                train=True,
            )
            return loss(outputs, batch), now_stats

        optimizer = by_part(
            {part: solver.optimizer(rate, context.round) for part, rate in rates.items()},
            preconditioner=preconditioner,
            frozen=frozen,
        )
        if mu:
            optimizer = _proximal(optimizer, trained, tree.split(parts.shared, mask)[0], mu)
        trained, end_stats, metrics = solve(
            objective, trained, start_stats, batches, key, optimizer=optimizer
        )
        return tree.combine(trained, frozen), end_stats, metrics

    def looked(row, received, batches, context, *, always=False):
        """The row, its logits as its examples or each adaptor's losses have them, where due."""
        values, active = values_of(row, received), received.fresh["active"]
        all_stats = stats.whole(row, shared_stats(received))

        def losses_of(weights, batch):
            bank = Bank(values["bank"], received.cached["fixed"])
            outputs, _ = model.apply(values["base"], all_stats, bank, weights, batch)
            return loss(outputs, batch)

        logits = infer_logits(
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
        if not any(jax.tree.leaves(own)) and not stats.kept:
            return row
        values, before = values_of(row, received), stats.whole(row, shared_stats(received))
        values, after, _ = train_leaves(
            key, values, before, own, received, batches, context, local.unscheduled()
        )
        return stats.into(tree.split(values, parts.private)[0], after)

    def found_anew(key, received, batches, context):
        """A stateless client's row: from zero logits to its own, on the batches at hand."""
        values = tree.combine(received.fresh["values"], received.cached["values"])
        all_stats = shared_stats(received)
        if stats.kept:
            all_stats = tree.combine(all_stats, received.cached["own_stats"])
        row = new_row(key, values, all_stats, context.traits)
        return refit(stream(key, "refit"), received, row, batches, context)

    def update(key, received, client, batches, context):
        if stateful:
            row = looked(client, received, batches, context)
        else:
            row = found_anew(key, received, batches, context)
        start, before = values_of(row, received), shared_stats(received)
        end, after, metrics = train_leaves(
            stream(key, "train"),
            start,
            stats.whole(row, before),
            parts.trained,
            received,
            batches,
            context,
            local,
        )
        moved, _ = tree.split(tree.subtract(start, end), parts.shared)
        shares = shares_of(
            mixing, end["mixture"], active=received.fresh["active"], round=context.round
        )
        count = context.num_examples
        sent = {part: moved[part] for part in ("base", "bank") if jax.tree.leaves(moved[part])}
        sent |= stats_update(before, stats.split(after)[1]) if parts.any_shared else {}
        weight = dict.fromkeys(sent, count)
        if "bank" in sent:
            weight["bank"] = _adaptor_weights(shares, count, sent["bank"])
        kept = stats.into(tree.split(end, parts.private)[0], after) if stateful else ()
        sums = client_sums(mixing, received, batches, context.round)
        return Upload(sent, weight, sums), kept, metrics

    return ClientSide(new_row, update, refit, found_anew)


def _proximal(
    optimizer: optax.GradientTransformation, start: PyTree, shared: PyTree, mu: float
) -> optax.GradientTransformation:
    """The optimizer of the loss plus ``mu / 2 * ||values - start||^2`` over the shared leaves."""

    def correct(updates, params):
        return jax.tree.map(
            lambda held, slope, value, centre: slope + mu * (value - centre) if held else slope,
            shared,
            updates,
            params,
            start,
        )

    return optax.chain(optax.stateless(correct), optimizer)


def _adaptor_weights(shares: PyTree, count: Array, bank: Mapping[str, PyTree]) -> PyTree:
    """``n_k π^k_c``: [C], or ``{path: [C]}`` where each layer has its own mixture."""
    if not isinstance(shares, Mapping):
        return count * shares
    return {path: count * weights_at(shares, path) for path in bank}
