"""What an evaluation asks some clients beside their predictions: losses and gradients.

What each adaptor alone would lose on a client says how well its mixture was chosen. How much the
clients' gradients differ says how much averaging has to even out. Both are of the state as it
stands, of models as they predict, and change nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from floral.adaptors import weights_at
from floral.algorithms.base import FederatedAlgorithm
from floral.data import Batches
from floral.simulate.clients import Holdings, splits_of_holdings
from floral.simulate.evaluation.moments import (
    Moments,
    no_moments,
    of_all_groups,
    over_devices,
    variance,
    with_value,
)
from floral.simulate.evaluation.personalize import ModelOf
from floral.simulate.shard import on_each_device
from floral.simulate.state import parts_of_state
from floral.typing import Array, Batch, PyTree

__all__ = ["Variances", "make_diagnose"]


class Variances(NamedTuple):
    """How clients' gradients vary: E ‖g_k - E g_k‖² over clients, estimated without bias.

    NaN for what is not averaged over clients, or is of fewer than two of them.

    Attributes:
      base: [], of the base's gradients, client k weighted by its n_k training examples.
      within: [], the same within groups of clients; ``base - within`` is between groups.
      bank: [C], of each adaptor's gradients, client k weighted by ``n_k π^k_c``.
    """

    base: Array
    within: Array
    bank: Array


def make_diagnose(
    algorithm: FederatedAlgorithm,
    model_of: ModelOf,
    mesh: Mesh,
    *,
    examples: int,
    groups: int,
    by_place: bool = False,
) -> Callable[..., dict[str, PyTree]]:
    """The function that asks clients, one after another on each device.

    Args:
      algorithm: one with diagnostics.
      model_of: what a client predicts with.
      mesh: the devices that share the clients.
      examples: how many a client shows of each split at most, evenly spaced over what it has.
      groups: of clients, G.
      by_place: whether the state's table is the rows of these clients alone [n, ...].

    Returns:
      ``(state, data, ids [n], group [n], trained, held, fed) -> {"examples": [n], "loss": [n],
      "loss_alone": [n, C], "variances": Variances}``: mean losses of the client's own model and of
      each adaptor alone on ``held``; gradients are of ``trained``, what the clients train on;
      ``fed`` (static) whether examples are split over the devices too.
    """
    diagnostics, mixture_of = algorithm.diagnostics, algorithm.mixture
    assert diagnostics is not None
    assert mixture_of is not None  # whoever has the first has both

    def losses_of(server, row, batch):
        live = jnp.sum(batch["mask"], dtype=jnp.int32)

        def mean(losses):
            return jnp.sum(jnp.where(batch["mask"], losses, 0.0)) / jnp.maximum(live, 1)

        own, alone = diagnostics.losses(server, row, batch)
        return {"examples": live, "loss": mean(own), "loss_alone": jax.vmap(mean)(alone)}

    def ask_share(state, data, ids, group, trained, held):
        def one(index):
            """A client's losses, its gradients, and what they weigh: []; {path: [C]}."""
            server, row = model_of(state, data, trained, index, ids[index])
            told = losses_of(server, row, _shown(held, index, examples))
            batch = _shown(trained, index, examples)
            gradients = diagnostics.gradients(server, row, batch)
            count = trained.sizes[index].astype(jnp.float32)
            mixture = mixture_of(server, row)
            weights = {path: count * weights_at(mixture, path) for path in gradients["bank"]}
            return told, gradients, {"base": count, "bank": weights}

        def turn(moments, index):
            told, gradients, weights = one(index)
            own = group[index]
            before = jax.tree.map(lambda leaf: leaf[own], moments["base"])
            after = with_value(before, gradients["base"], weights["base"])
            base = jax.tree.map(lambda all, leaf: all.at[own].set(leaf), moments["base"], after)
            bank = {
                path: jax.vmap(with_value)(so_far, gradients["bank"][path], weights["bank"][path])
                for path, so_far in moments["bank"].items()
            }
            return {"base": base, "bank": bank}, told

        places = jnp.arange(ids.shape[0])
        _, struct, weights = jax.eval_shape(one, places[0])
        start = {
            "base": no_moments(struct["base"], groups),
            "bank": {
                path: no_moments(jax.eval_shape(_first, factors), *weights["bank"][path].shape)
                for path, factors in struct["bank"].items()
            },
        }
        moments, told = jax.lax.scan(turn, start, places)
        base = over_devices(moments["base"], mesh)
        bank = [over_devices(so_far, mesh) for so_far in moments["bank"].values()]
        return told, _variances(base, bank, told["loss_alone"].shape[-1])

    def ask(state, data, ids, group, trained, held, fed):
        lies = splits_of_holdings(fed)
        share = on_each_device(
            ask_share,
            mesh,
            split=(parts_of_state(rows=by_place, rest=False), False, True, True, lies, lies),
            joined=(True, False),
        )
        told, variances = share(state, data, ids, group, trained, held)
        return {**told, "variances": variances}

    return ask


def _shown(held: Holdings, place: Array, examples: int) -> Batch:
    """Some examples of one client, the same each time, whatever order they are stored in."""
    size, index = held.sizes[place], jnp.arange(examples)
    shown = jnp.minimum(size, examples)
    rows = held.starts[place] + index * size // jnp.maximum(shown, 1)
    return Batches(held.examples, rows[None], (index < shown)[None]).step(0)


def _first(values: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[0], values)


def _variances(base: Moments, bank: list[Moments], num_adaptors: int) -> Variances:
    """From the base's moments by group, and the bank's by leaf and adaptor."""
    nothing = jnp.full((), jnp.nan)
    each = variance(base)
    weight = jnp.where(jnp.isnan(each), 0.0, base.weight)  # of groups with two clients or more
    within = jnp.nansum(weight * each) / jnp.sum(weight)
    trained = bool(jax.tree.leaves(base.mean))
    return Variances(
        base=variance(of_all_groups(base)) if trained else nothing,
        within=within if trained else nothing,
        bank=sum(map(variance, bank[1:]), start=variance(bank[0]))
        if bank
        else jnp.full((num_adaptors,), jnp.nan),
    )
