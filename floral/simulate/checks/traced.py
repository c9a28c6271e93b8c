"""A user's own functions, called on structs alone, and what is wrong said in one sentence.

They are traced on batches of two sizes that no other axis has. What is per example then has exactly
that size, and what is a sum has nothing of it. A value with two axes of it, made by two arrays of
unlike rank, is every output beside every target: the usual accident of outputs ``[B, 1]`` and
targets ``[B]``.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.errors
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from floral import check
from floral.adaptors.fast.uses import inner_programs
from floral.errors import SpecError
from floral.typing import Batch, PyTree

__all__ = ["Seen", "at_sizes", "shapes", "sizes_apart", "struct_of", "traced", "with_rows"]

_RAISED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    flax.errors.FlaxError,
)
"""What a function raises that was written for other arguments; the sentence keeps its cause."""


class Seen(NamedTuple):
    """A model's outputs on a batch, as structs.

    Attributes:
      outputs: of the batch.
      batch: that batch.
      rows: B.
    """

    outputs: PyTree
    batch: Batch
    rows: int


def at_sizes(what: str, outputs: PyTree, batch: Batch, sizes: Sequence[int]) -> list[Seen]:
    """Outputs of a batch of the first size, and the same with a batch of every other size."""
    leaves = jax.tree.leaves(outputs)
    for leaf in leaves:
        if tuple(leaf.shape)[:1] != (sizes[0],):
            raise SpecError(
                f"{what}: expected outputs [B, ...], one row an example, got "
                f"{check.shown(leaf.shape, (sizes[0],))}"
            )
    if not leaves:
        raise SpecError(f"{what}: expected outputs [B, ...], got {check.described(outputs)}")
    return [Seen(with_rows(outputs, size), with_rows(batch, size), size) for size in sizes]


def traced(what: str, function: Callable[..., Any], outputs: Any, batch: Batch, rows: int) -> Any:
    """The struct of ``function(outputs, batch)``, in which no output meets every target."""
    takes = "(outputs, batch), the targets being batch['y'],"
    try:
        program, struct = _program(what, takes, function, outputs, batch)
    except SpecError as error:
        if str(error).startswith(what):
            raise
        raise SpecError(f"{what}: {error}") from error
    if _pairs(program.jaxpr, rows):
        try:
            with jax.numpy_rank_promotion("raise"):
                jax.eval_shape(lambda *args: function(*args), outputs, batch)
        except ValueError as error:
            if "rank_promotion" not in str(error):
                raise
            raise SpecError(
                f"{what}: arrays of unlike rank were broadcast to all pairs of examples, [B, B]: "
                f"outputs are {_first_shape(outputs, rows)}, targets "
                f"{_first_shape(batch['y'], rows)}; give them the same shape, as outputs[:, 0]"
            ) from error
    return struct


def _program(
    what: str, takes: str, function: Callable[..., Any], *args: Any
) -> tuple[ClosedJaxpr, Any]:
    """A traced call of a function that a user gave, and the struct of what it gives."""
    if not callable(function):
        raise SpecError(f"{what} must be a function of {takes}, got {check.described(function)}")
    try:
        with jax.numpy_rank_promotion("allow"):
            return jax.make_jaxpr(function, return_shape=True)(*args)
    except _RAISED as error:
        said = str(error).strip().partition("\n")[0]
        raise SpecError(
            f"{what} is called with {takes} and raised {type(error).__name__}: {said}"
        ) from error


def struct_of(what: str, takes: str, function: Callable[..., Any], *args: Any) -> Any:
    return _program(what, takes, function, *args)[1]


def _pairs(program: Jaxpr, rows: int) -> bool:
    """Whether any value of a program, or of one within it, has two axes of the batch."""
    for equation in program.eqns:
        shapes_out = [tuple(getattr(var.aval, "shape", ())) for var in equation.outvars]
        if any(shape.count(rows) > 1 for shape in shapes_out):
            return True
        if any(_pairs(inner, rows) for inner in inner_programs(equation.params.values())):
            return True
    return False


def sizes_apart(structs: PyTree) -> tuple[int, int]:
    """Two sizes of a batch that no axis of these arrays has."""
    taken = {size for leaf in jax.tree.leaves(structs) for size in jnp.shape(leaf)}
    free = (size for size in itertools.count(11) if size not in taken)
    return next(free), next(free)


def with_rows(structs: PyTree, rows: int) -> PyTree:
    """Structs of as many rows, of the same other axes and dtypes."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), structs
    )


def shapes(structs: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", structs)


def _first_shape(structs: PyTree, rows: int) -> str:
    return check.shown(jax.tree.leaves(structs)[0].shape, (rows,))
