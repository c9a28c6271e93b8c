"""The server's step: optax on the reduced update, guarded where there is no evidence.

A zero update is not a standstill under a stateful optimizer: Adam would go on along its moments.
So where the reduced weight carries no evidence, value *and* optimizer state are kept bit for bit.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from floral import tree
from floral.algorithms.toolbox.steps import check_optimizer, fresh, step
from floral.messages import evidence
from floral.random import rekeyed, stream
from floral.typing import Array, Key, PyTree

__all__ = ["guarded_step", "init_stack", "server_step", "start_server_step", "step_stack"]


def server_step(optimizer: optax.GradientTransformation | None) -> optax.GradientTransformation:
    """The server's optimizer; ``optax.sgd(1.0)``, which is plain averaging, for None.

    Raises:
      SpecError: for anything else that is no optax transform.
    """
    if optimizer is None:
        return optax.sgd(1.0)
    check_optimizer("server_optimizer", optimizer)
    return optimizer


def start_server_step(
    optimizer: optax.GradientTransformation, params: PyTree, key: Key, *, stacked: bool = False
) -> PyTree:
    """The server optimizer's first state.

    Args:
      optimizer: from ``server_step``.
      params: what it steps on.
      key: of the algorithm's start; random keys in the state are made its own.
      stacked: whether there are C side by side, leaves [C, ...], each with a state of its own.
    """
    key = stream(key, "server optimizer")
    if not stacked:
        return fresh(optimizer, params, key)
    return rekeyed(jax.vmap(optimizer.init)(params), key)


def guarded_step(
    optimizer: optax.GradientTransformation,
    params: PyTree,
    state: PyTree,
    update: PyTree,
    weight: Array,
) -> tuple[PyTree, PyTree]:
    """One step on the update, or none at all without evidence.

    Args:
      optimizer: takes the update as a gradient; ``optax.sgd(1.0)`` is plain averaging.
      params, state, update: one whole (weight []) or C side by side (weight [C], leaves [C, ...]).
      weight: the reduced weight.
    """

    def move(params, state, update):
        return step(optimizer, update, state, params, where="the server")

    if jnp.ndim(weight):
        move = jax.vmap(move)
    return tree.select(evidence(weight), move(params, state, update), (params, state))


def init_stack(
    optimizer: optax.GradientTransformation, stack: Mapping[str, PyTree], key: Key
) -> dict[str, PyTree]:
    """The optimizer's state for every path of ``{path: {factor: [C, ...]}}``, one an adaptor.

    A path of which nothing is trained has none.
    """
    return {
        path: start_server_step(optimizer, factors, stream(key, path), stacked=True)
        for path, factors in stack.items()
        if jax.tree.leaves(factors)
    }


def step_stack(
    optimizer: optax.GradientTransformation,
    stack: Mapping[str, PyTree],
    states: Mapping[str, PyTree],
    update: Mapping[str, PyTree],
    weight: Array | Mapping[str, Array],
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """``guarded_step`` for every path and adaptor; weight [C], or ``{path: [C]}``."""
    values, next_states = dict(stack), dict(states)
    for path, state in states.items():
        path_weight = weight[path] if isinstance(weight, Mapping) else weight
        values[path], next_states[path] = guarded_step(
            optimizer, stack[path], state, update[path], path_weight
        )
    return values, next_states
