"""FLoRAL's server: what it remembers, what it sends, and what a round makes of it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from floral import tree
from floral.adaptors import AdaptedModel, init_bank
from floral.algorithms.base import Download
from floral.algorithms.toolbox.mixture_inference import (
    MixtureInference,
    start_inference,
    to_client,
    update_inference,
)
from floral.algorithms.toolbox.parts import Parts
from floral.algorithms.toolbox.server import guarded_step, init_stack, start_server_step, step_stack
from floral.algorithms.toolbox.stats import OwnStats, average_stats
from floral.mixtures import Mixing
from floral.random import stream
from floral.typing import Array, Params, PyTree

__all__ = ["FloralServer", "ServerSide", "server_side"]


class FloralServer(NamedTuple):
    """What the server of FLoRAL remembers.

    Attributes:
      base: the params all clients share.
      bank: ``{path: {factor: [C, ...]}}``.
      fixed: frozen factors of the bank.
      stats: the model's statistics.
      active: [C] bool, the adaptors in use.
      round: int32, the rounds taken.
      inference: what clients' mixtures are inferred by.
      base_optimizer: the server optimizer's state of the trained base.
      bank_optimizer: ``{path: state [C, ...]}``, the bank's server optimizer, one state an adaptor.
    """

    base: Params
    bank: dict[str, dict[str, Array]]
    fixed: dict[str, PyTree]
    stats: PyTree
    active: Array
    round: Array
    inference: MixtureInference
    base_optimizer: PyTree
    bank_optimizer: dict[str, PyTree]


class ServerSide(NamedTuple):
    """What the server does.

    Attributes:
      init, download, aggregate: as in `FederatedAlgorithm`.
      values: ``(server) -> {"base": params, "bank": {path: factors}, "mixture": None}``.
    """

    init: Callable[..., FloralServer]
    download: Callable[..., Download]
    aggregate: Callable[..., FloralServer]
    values: Callable[[FloralServer], dict[str, PyTree]]


def server_side(
    model: AdaptedModel,
    mixing: Mixing,
    parts: Parts,
    stats: OwnStats,
    base_optimizer: optax.GradientTransformation,
    bank_optimizer: optax.GradientTransformation,
    *,
    num_adaptors: int,
) -> ServerSide:
    """The server of C adaptors.

    Args:
      model: a model and the plan of its adaptors.
      mixing: how clients find their mixtures.
      parts: the roles of ``{"base": ..., "bank": ..., "mixture": ...}``.
      stats: which statistics are the clients' own; of these the server keeps the first ones.
      base_optimizer: takes the base's mean update as a gradient.
      bank_optimizer: takes each adaptor's mean update as a gradient.
      num_adaptors: C.
    """
    # The server has no mixture of its own.
    no_mixture = jax.tree.map(lambda _: None, parts.shared["mixture"])
    shared_parts = {**parts.shared, "mixture": no_mixture}

    def values(server):
        return {"base": server.base, "bank": server.bank, "mixture": no_mixture}

    def init(key, params, first_stats):
        bank = init_bank(stream(key, "bank"), model.plan, num_adaptors)
        shared, _ = tree.split(
            {"base": params, "bank": bank.trained, "mixture": no_mixture}, shared_parts
        )
        return FloralServer(
            base=params,
            bank=bank.trained,
            fixed=bank.fixed,
            stats=first_stats,
            active=jnp.ones((num_adaptors,), bool),
            round=jnp.zeros((), jnp.int32),
            inference=start_inference(mixing, key, model.batch, num_adaptors),
            base_optimizer=start_server_step(base_optimizer, shared["base"], key),
            bank_optimizer=init_stack(bank_optimizer, shared["bank"], key),
        )

    def download(server, context):
        fresh, cached = tree.split(values(server), shared_parts)
        own, shared = stats.split(server.stats)
        inference, found_once = to_client(mixing, server.inference)
        now = {"values": fresh, "active": server.active, "inference": inference}
        once = {"values": cached, "fixed": server.fixed, "inference": found_once}
        if stats.kept:
            once["own_stats"] = own
        if parts.any_shared:
            return Download(fresh={**now, "stats": shared}, cached=once)
        return Download(fresh=now, cached={**once, "stats": shared})

    def aggregate(server, reduced, context):
        shared, rest = tree.split(values(server), shared_parts)
        base, base_state = shared["base"], server.base_optimizer
        bank, bank_state = shared["bank"], server.bank_optimizer
        update, weight = reduced.update, reduced.weight
        if "base" in update:
            base, base_state = guarded_step(
                base_optimizer, base, base_state, update["base"], weight["base"]
            )
        if "bank" in update:
            bank, bank_state = step_stack(
                bank_optimizer, bank, bank_state, update["bank"], weight["bank"]
            )
        inference, active = update_inference(
            mixing,
            server.inference,
            reduced,
            server.active,
            context.round,
            examples=weight.get("bank"),
        )
        return server._replace(
            base=tree.combine(base, rest["base"]),
            bank=tree.combine(bank, rest["bank"]),
            stats=tree.combine(average_stats(stats.split(server.stats)[1], reduced), server.stats),
            round=server.round + 1,
            inference=inference,
            active=active,
            base_optimizer=base_state,
            bank_optimizer=bank_state,
        )

    return ServerSide(init, download, aggregate, values)
