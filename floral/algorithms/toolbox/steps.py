"""Optax optimizers as clients and servers use them: start, one step, and the first that moves.

Every step is given the gradient, the state and the params, and nothing else: an optimizer that also
asks for the loss or its function (line searches, plateaus) is refused by name.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from floral.errors import SpecError
from floral.random import rekeyed
from floral.tree import paths
from floral.typing import Key, PyTree

__all__ = ["as_before", "check_optimizer", "check_steps", "first_moving_step", "fresh", "step"]

_FARTHEST = 10_000  # steps looked at for the first that moves
_BOUND = (KeyError, TypeError, ValueError)  # of an optimizer that fits one tree alone


def check_optimizer(what: str, optimizer: Any) -> None:
    """Raises SpecError for anything that is no optax transform."""
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    hint = f", such as optax.{name}(0.1)" if callable(optimizer) and hasattr(optax, name) else ""
    raise SpecError(f"{what}: expected an optax transform{hint}, got {name}")


def fresh(optimizer: optax.GradientTransformation, params: PyTree, key: Key) -> PyTree:
    """The optimizer's first state, the random keys in it (of noise) made the given key's own.

    Raises:
      SpecError: for an optimizer that cannot be started on these params.
    """
    try:
        state = optimizer.init(params)
    except _BOUND as error:
        raise SpecError(f"an optimizer does not fit the params: {_first_line(error)}") from error
    return rekeyed(state, key)


def step(
    optimizer: optax.GradientTransformation,
    gradient: PyTree,
    state: PyTree,
    params: PyTree,
    *,
    where: str,
) -> tuple[PyTree, PyTree]:
    """The params and the state after one step, each leaf of the dtype that it had.

    Args:
      optimizer: an optax transform.
      gradient, state, params: what it steps on.
      where: names the step in errors: "local training" or "the server".

    Raises:
      SpecError: while tracing, for an optimizer that asks for more than these, or whose updates
        are not of the structure and shapes of the params.
    """
    try:
        updates, after = optimizer.update(gradient, state, params)
    except TypeError as error:
        asked = re.search(r"missing \d+ required keyword-only arguments?: (.*)", str(error))
        if asked is None:
            raise
        names = ", ".join(f"{name}=…" for name in re.findall(r"'(\w+)'", asked[1]))
        raise SpecError(
            f"the optimizer of {where} needs {names}, which {where} does not give: take one that "
            "steps on gradients alone, such as optax.adam"
        ) from error
    steps = paths(updates)
    for path, leaf in paths(params).items():
        if path in steps and jnp.shape(steps[path]) != jnp.shape(leaf):
            raise SpecError(
                f"the optimizer of {where} gives {path!r} an update of shape "
                f"{list(jnp.shape(steps[path]))}, expected {list(jnp.shape(leaf))}"
            )
    try:
        moved = optax.apply_updates(params, updates)
    except _BOUND as error:
        raise SpecError(
            f"the optimizer of {where} gives updates that do not fit the params: "
            f"{_first_line(error)}"
        ) from error
    return moved, as_before(after, state)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).strip().partition("\n")[0].split())


def as_before(after: PyTree, before: PyTree) -> PyTree:
    """The tree in the dtypes of another, leaf by leaf: what a loop carries must keep them."""

    def keep(new: Any, old: Any) -> Any:
        dtype = jnp.result_type(old)
        return new if jnp.result_type(new) == dtype else jnp.asarray(new, dtype)

    return jax.tree.map(keep, after, before)


def first_moving_step(optimizer: optax.GradientTransformation) -> int | None:
    """The first step, counted from 1, in which a constant gradient moves the params.

    Optimizers that accumulate gradients (``optax.MultiSteps``) or whose rate starts at zero move
    nothing before. None where nothing moves in 10,000 steps (a rate of zero), and for an optimizer
    that fits one tree alone and so cannot be tried on a single number.

    Example:
      >>> first_moving_step(optax.sgd(0.1))
      1
      >>> first_moving_step(optax.MultiSteps(optax.sgd(0.1), 3))
      3
    """
    params = jnp.ones(())

    def take(carry):
        count, state, _ = carry
        after, state = step(optimizer, params, state, params, where="local training")
        return count + 1, state, after != params

    start = (jnp.zeros((), jnp.int32), None, jnp.zeros((), bool))
    try:
        carry = take((start[0], optimizer.init(params), start[2]))
    except (*_BOUND, SpecError):
        return None
    if not carry[2]:
        carry = jax.lax.while_loop(lambda c: ~c[2] & (c[0] < _FARTHEST), take, carry)
    return int(carry[0]) if carry[2] else None


def check_steps(optimizer: optax.GradientTransformation, fewest: int) -> None:
    """Raises SpecError where the clients with the fewest local steps would never move.

    Args:
      optimizer: of the clients, started anew in each round.
      fewest: local steps in a round of the training client that takes the fewest.
    """
    first = first_moving_step(optimizer)
    if first is not None and first > fewest:
        raise SpecError(
            f"the local optimizer moves nothing before its step {first}, and starts anew in every "
            f"round, in which some client takes {fewest} step{'s' * (fewest != 1)}: take smaller "
            "batches, more epochs or steps, or an optimizer that accumulates fewer gradients"
        )
