"""The server's step: optax on the reduced update, guarded where there is no evidence.

A zero update is not a standstill under a stateful optimizer: Adam would go on along its moments.
So where the reduced weight carries no evidence, value *and* optimizer state are kept bit for bit.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from floral import tree
from floral.messages import evidence
from floral.typing import Array, PyTree

__all__ = ["guarded_step", "init_stack", "step_stack"]


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

    def step(params, state, update):
        deltas, state = optimizer.update(update, state, params)
        return optax.apply_updates(params, deltas), state

    if jnp.ndim(weight):
        step = jax.vmap(step)
    return tree.select(evidence(weight), step(params, state, update), (params, state))


def init_stack(
    optimizer: optax.GradientTransformation, stack: Mapping[str, PyTree]
) -> dict[str, PyTree]:
    """The optimizer's state for every path of ``{path: {factor: [C, ...]}}``, one an adaptor.

    A path of which nothing is trained has none.
    """
    return {
        path: jax.vmap(optimizer.init)(factors)
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
