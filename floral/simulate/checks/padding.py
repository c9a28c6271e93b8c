"""Whether padding stays without effect: what an example gives must not depend on a masked one.

A short batch is filled up with repeated examples whose mask is False. A model or loss that treats
each example by itself cannot notice. One that mixes the examples of a batch, as by subtracting
their mean, must leave masked ones out; a program that mixes is found in its trace, and only then
is it run, on one batch with two fillings of its padding.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr

from floral.adaptors.fast.uses import inner_programs
from floral.errors import SpecError
from floral.metrics import Metric
from floral.models import Model
from floral.simulate.checks.traced import Seen
from floral.typing import Array, Batch, PyTree

__all__ = ["check_padding", "mixes_examples"]

_LIVE = 2
_TOLERANCES = {2: 1e-2, 4: 1e-5, 8: 1e-10}  # by bytes of a number, relative to the largest
_MEND = "leave out examples where batch['mask'] is False, or treat each example by itself"


def check_padding(
    model: Model,
    given: Mapping[str, Any],
    seen: list[Seen],
    batch: Batch,
    structs: tuple[PyTree, PyTree],
) -> None:
    """Refuses a model, a loss or a metric for which padding matters.

    Args:
      model: any model.
      given: by name, functions ``(outputs, batch) -> [B]`` as losses are, and metrics; those of the
        library are not looked at.
      seen: outputs and batches of two sizes, as ``outputs_of_model`` gives them.
      batch: real examples, four or more; where the others equal the first nothing can be told.
      structs: of the model's params and statistics.

    Raises:
      SpecError: where outputs, losses or sums change with what fills the padding.
    """
    outputs, sized, rows = seen[0]
    key = jax.random.key(0)

    def apply(params, stats, batch, train=True):
        return model.apply(params, stats, batch, key=key, train=train)[0]

    def mixes(function: Callable[..., Any], *structs: Any) -> bool:
        return mixes_examples(jax.make_jaxpr(function)(*structs).jaxpr, rows)

    own = {name: part for name, part in given.items() if not _is_ours(part)}
    sums = {name: part.from_outputs for name, part in own.items() if isinstance(part, Metric)}
    losses = {n: f for n, f in own.items() if n not in sums and mixes(f, outputs, sized)}
    model_mixes = mixes(apply, *structs, sized)
    fillings = _fillings(batch) if model_mixes or losses or sums else None
    if fillings is None:
        return
    params, stats = model.init(key, fillings[0])
    for train in (True, False):
        step = jax.jit(functools.partial(apply, train=train))
        found = [step(params, stats, filled) for filled in fillings]
        if model_mixes and not _alike(*found, rows=_LIVE):
            raise SpecError(
                "model: its outputs for an example change with the padding of its batch; it mixes "
                f"examples, so {_MEND}"
            )
    padded = (found[1], fillings[1])
    alone = jax.tree.map(lambda leaf: leaf[:_LIVE], padded)
    for name, function in losses.items():
        if not _alike(function(*padded), function(*alone), rows=_LIVE):
            raise SpecError(
                f"{name}: what it gives for an example changes with the padding of its batch; it "
                f"mixes examples, so {_MEND}"
            )
    for name, function in sums.items():
        if not _alike(function(*padded), function(*alone), rows=None):
            raise SpecError(
                f"{name}: its sums change with the padding of the batch: "
                "leave out examples where batch['mask'] is False"
            )


def mixes_examples(program: Jaxpr, rows: int) -> bool:
    """Whether a program has an operation that may combine values of several examples.

    Args:
      program: traced with a batch of this size.
      rows: a size that no other axis has; its multiples are the batch merged with other axes.

    Example:
      >>> program = jax.make_jaxpr(lambda x: x - jnp.mean(x, axis=0, keepdims=True))(
      ...     jnp.ones((11, 3))
      ... )
      >>> mixes_examples(program.jaxpr, 11)
      True
      >>> program = jax.make_jaxpr(lambda x: x - jnp.mean(x, axis=1, keepdims=True))(
      ...     jnp.ones((11, 3))
      ... )
      >>> mixes_examples(program.jaxpr, 11)
      False
    """
    return any(_mixing(equation, rows) for equation in program.eqns)


def _is_ours(part: Any) -> bool:
    function = part.from_outputs if isinstance(part, Metric) else part
    return getattr(function, "__module__", "").partition(".")[0] == "floral"


def _mixing(equation: Any, rows: int) -> bool:
    name, settings = equation.primitive.name, equation.params
    if name == "scan" and settings["length"] == rows:
        return True
    inner = list(inner_programs(settings.values()))
    if inner:
        return any(mixes_examples(program, rows) for program in inner)
    shapes = [tuple(getattr(operand.aval, "shape", ())) for operand in equation.invars]
    return any(shapes[0][axis] % rows == 0 for axis in _combined(name, settings, shapes))


def _combined(name: str, settings: Any, shapes: list[tuple[int, ...]]) -> list[int]:
    """The axes of an operation's first operand along which it combines values."""
    if name == "dot_general":
        return list(settings["dimension_numbers"][0][0])
    if name in ("sort", "concatenate"):
        return [settings["dimension"]]
    if name == "rev":
        return list(settings["dimensions"])
    if name == "gather":
        return list(settings["dimension_numbers"].start_index_map)
    if name == "reduce_window":
        window = settings["window_dimensions"]
        return [axis for axis, size in enumerate(window) if size > 1]
    if name == "dynamic_slice":
        return [axis for axis, size in enumerate(settings["slice_sizes"]) if size < shapes[0][axis]]
    if name == "slice":
        ends = zip(settings["start_indices"], settings["limit_indices"], strict=True)
        return [axis for axis, (a, b) in enumerate(ends) if b - a < shapes[0][axis]]
    if name.startswith(("reduce_", "arg")) and "axes" in settings:
        return list(settings["axes"])
    if name.startswith("cum"):
        return [settings["axis"]]
    return []


def _fillings(batch: Batch) -> tuple[Batch, Batch] | None:
    """Two batches of the same live examples and unlike padding; None where all are alike."""
    size = batch["mask"].shape[0]
    first = jnp.where(jnp.arange(size) < _LIVE, jnp.arange(size), 0)
    mask = jnp.arange(size) < _LIVE
    other = {name: leaf for name, leaf in batch.items() if name != "mask"}
    repeated = {name: leaf[first] for name, leaf in other.items()}
    same = all(np.array_equal(repeated[name], other[name], equal_nan=False) for name in other)
    return None if same else ({**repeated, "mask": mask}, {**other, "mask": mask})


def _alike(one: PyTree, other: PyTree, *, rows: int | None) -> bool:
    """Whether so many first rows of all leaves, or all of them, agree up to rounding."""

    def close(a: Array, b: Array) -> bool:
        a, b = jnp.asarray(a), jnp.asarray(b)
        if rows is not None:
            a, b = a[:rows], b[:rows]
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return bool(np.array_equal(a, b))
        tolerance = _TOLERANCES[a.dtype.itemsize]
        wide, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = np.abs(wide[np.isfinite(wide)]).max(initial=0.0)
        return np.allclose(wide, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True)

    return all(jax.tree.leaves(jax.tree.map(close, one, other)))
