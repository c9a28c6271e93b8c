"""Operations and bytes of a traced program: of its matrix products and convolutions.

Counted from the program itself and not from a formula of the model, so that adaptors, frozen parts
and personalization are counted as they are. A loop's body is counted as often as it runs. Where
that is known only when it runs, as in local training, which ends with a client's own data, it is
told.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jax.extend.core import primitives

__all__ = ["Work", "work_of", "work_of_program"]


class Work(NamedTuple):
    """What a program's products amount to.

    Attributes:
      operations: floating-point operations, two for every multiplication and its addition.
      bytes: read and written by the products, each counted as if nothing stayed in cache.
      of_convolutions: of the operations those of convolutions.
    """

    operations: float
    bytes: float
    of_convolutions: float = 0.0


def work_of(function: Callable[..., Any], *arguments: Any, trips: float = 1.0) -> Work:
    """The work of one call.

    Args:
      function: pure and traceable.
      arguments: arrays or structs.
      trips: how often a loop runs whose length is not in the program; such a loop within another
        one of them is taken to run once.

    Example:
      >>> import jax.numpy as jnp
      >>> x, w = jnp.ones((20, 784)), jnp.ones((784, 10))
      >>> work_of(lambda x, w: x @ w, x, w).operations == 2 * 20 * 784 * 10
      True
    """
    return work_of_program(jax.make_jaxpr(function)(*arguments), trips=trips)


def work_of_program(program: core.ClosedJaxpr, *, trips: float = 1.0) -> Work:
    """The work of one call of a program that is traced already; see ``work_of``."""
    return _of_program(program.jaxpr, trips)


def _of_program(program: core.Jaxpr, trips: float) -> Work:
    return _total(_of_operation(operation, trips) for operation in program.eqns)


def _of_operation(operation: core.JaxprEqn, trips: float) -> Work:
    settings = operation.params
    if operation.primitive is primitives.dot_general_p:
        return Work(_of_matrix_product(operation), _moved(operation))
    if operation.primitive is primitives.conv_general_dilated_p:
        convolution = _of_convolution(operation)
        return Work(convolution, _moved(operation), convolution)
    if operation.primitive is primitives.scan_p:
        return _times(settings["length"], _of_program(settings["jaxpr"].jaxpr, trips))
    if operation.primitive is primitives.while_p:
        return _times(trips, _of_program(settings["body_jaxpr"].jaxpr, 1.0))
    if operation.primitive is primitives.cond_p:
        return max(_of_program(branch.jaxpr, trips) for branch in settings["branches"])
    return _total(_of_program(inner, trips) for inner in _programs(settings))


def _total(works: Iterable[Work]) -> Work:
    return Work(*map(sum, zip(Work(0.0, 0.0), *works, strict=True)))


def _times(count: float, work: Work) -> Work:
    return Work(*(count * amount for amount in work))


def _programs(settings: dict[str, Any]) -> list[core.Jaxpr]:
    """The programs that a call holds: of jit, remat, shard_map, custom gradients and the like."""
    held = []
    for value in settings.values():
        if isinstance(value, core.ClosedJaxpr):
            held.append(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            held.append(value)
    return held


def _of_matrix_product(operation: core.JaxprEqn) -> float:
    (contracted, _), _ = operation.params["dimension_numbers"]
    left, out = _shape(operation.invars[0]), _shape(operation.outvars[0])
    return 2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _of_convolution(operation: core.JaxprEqn) -> float:
    """Every output with every weight of its window, padding and dilation's zeros included."""
    numbers = operation.params["dimension_numbers"]
    kernel, out = _shape(operation.invars[1]), _shape(operation.outvars[0])
    outputs_of_kernel = kernel[numbers.rhs_spec[0]]
    return 2.0 * math.prod(out) * math.prod(kernel) / outputs_of_kernel


def _moved(operation: core.JaxprEqn) -> float:
    values: list[Any] = [v.aval for v in (*operation.invars, *operation.outvars)]
    return float(sum(math.prod(value.shape) * value.dtype.itemsize for value in values))


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
