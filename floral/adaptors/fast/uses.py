"""How often a traced program reads each of its inputs.

A kernel that a layer was seen to use may be read a second time behind the layer's back, as where a
language model ties its output to ``embed.embedding.T``. The program itself tells.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

__all__ = ["count_uses", "inner_programs"]


def count_uses(program: Jaxpr) -> list[int]:
    """How many operations read each input of the program; being returned counts as a use.

    Programs inside operations (jit, scan, cond, remat) are looked into; where their operands
    cannot be told apart (a while loop) an operand counts as used twice.

    Example:
      >>> import jax
      >>> def fn(x, y, z):
      ...     return jax.jit(lambda a: a * y + a)(x)
      >>> count_uses(jax.make_jaxpr(fn)(1.0, 2.0, 3.0).jaxpr)
      [2, 1, 0]
    """
    uses: Counter[Any] = Counter()
    for equation in program.eqns:
        for operand, count in zip(equation.invars, _operand_uses(equation), strict=True):
            if not isinstance(operand, Literal):
                uses[operand] += count
    uses.update(output for output in program.outvars if not isinstance(output, Literal))
    return [uses[variable] for variable in program.invars]


def _operand_uses(equation: Any) -> list[int]:
    operands = len(equation.invars)
    inner = list(inner_programs(equation.params.values()))
    if not inner:
        return [1] * operands
    total = [0] * operands
    for program in inner:
        lead = operands - len(program.invars)
        if lead == 1 and equation.primitive.name == "cond":
            counts = [1, *count_uses(program)]  # the first operand picks the branch
        elif lead == 0:
            counts = count_uses(program)
        else:
            counts = [2] * operands
        total = [sum(pair) for pair in zip(total, counts, strict=True)]
    return total


def inner_programs(values: Iterable[Any]) -> Iterator[Jaxpr]:
    """The programs among the settings of an operation, in lists of them too."""
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from inner_programs(value)
