"""How a model's outputs meet the targets of the data: by shape and dtype, checked when traced.

There are two rules, and every loss and metric of the library keeps one of them, so that nothing
broadcasts: *classes* are one logit a class for each label, *numbers* are one output for each
target. Both raise ``SpecError``, with both shapes; the first axis is written B.
"""

from typing import Any

import jax.numpy as jnp

from floral import check
from floral.check import shown
from floral.errors import SpecError
from floral.typing import Array, Batch

__all__ = ["classes", "numbers", "per_example_mean"]


def classes(outputs: Any, batch: Batch, *, what: str) -> tuple[Array, Array]:
    """Logits ``[B, ..., C]`` and labels ``[B, ...]`` of whole numbers, as they are.

    Args:
      outputs: the model's.
      batch: with labels ``"y"``; booleans are the classes 0 and 1.
      what: names the loss or metric in the message.

    Raises:
      SpecError: unless there is one logit a class for each label, of at least two classes, and
        labels are whole numbers.

    Example:
      >>> logits, labels = classes(jnp.zeros((4, 3)), {"y": jnp.zeros(4, int)}, what="accuracy")
      >>> logits.shape, labels.shape
      ((4, 3), (4,))
    """
    logits, labels = _pair(outputs, batch, what)
    if not jnp.issubdtype(labels.dtype, jnp.integer) and labels.dtype != jnp.bool_:
        raise SpecError(
            f"{what}: labels are {labels.dtype}, expected whole numbers; cast them, as "
            "y.astype(int), or choose a loss and metrics of numbers (squared_error, rmse)"
        )
    if logits.ndim == 0 or logits.shape[:-1] != labels.shape:
        raise SpecError(
            f"{what}: expected one logit a class for each label, outputs [B, classes] for labels "
            f"[B], got {_both(logits, labels, 'labels')}{_mend(logits, labels)}"
        )
    if logits.shape[-1] < 2:
        raise SpecError(
            f"{what}: outputs {shown(logits.shape, labels.shape[:1])} have one class alone; give "
            "the model one output a class, two for two classes"
        )
    return logits, labels.astype(jnp.int32) if labels.dtype == jnp.bool_ else labels


def numbers(outputs: Any, batch: Batch, *, what: str) -> tuple[Array, Array]:
    """Outputs and targets of one shape, ``[B, ...]``.

    One number an example may be written ``[B]`` or ``[B, 1]`` on either side: a last axis of one is
    dropped where the other side lacks it. No other shapes are matched.

    Args:
      outputs: the model's.
      batch: with targets ``"y"``.
      what: names the loss or metric in the message.

    Raises:
      SpecError: for any other two shapes.

    Example:
      >>> outputs, targets = numbers(jnp.ones((4, 1)), {"y": jnp.zeros(4)}, what="rmse")
      >>> outputs.shape, targets.shape
      ((4,), (4,))
    """
    found, targets = _pair(outputs, batch, what)
    if found.shape == (*targets.shape, 1):
        found = found[..., 0]
    elif targets.shape == (*found.shape, 1):
        targets = targets[..., 0]
    if found.shape != targets.shape:
        raise SpecError(
            f"{what}: expected one output for each target, got {_both(found, targets, 'targets')}"
        )
    return found, targets


def per_example_mean(values: Array) -> Array:
    """The mean of each example over all further axes: ``[B, ...] -> [B]``."""
    return values if values.ndim == 1 else values.reshape(values.shape[0], -1).mean(axis=1)


def _pair(outputs: Any, batch: Batch, what: str) -> tuple[Array, Array]:
    if isinstance(outputs, (dict, list, tuple)) or outputs is None:
        raise SpecError(
            f"{what}: expected outputs that are one array, got {type(outputs).__name__}; give the "
            "part of it that is meant, as lambda outputs, batch: loss(outputs['logits'], batch)"
        )
    check.mapping("{'x': x, 'y': y}", batch=batch)
    if "y" not in batch:
        raise SpecError(f"{what}: the batch has no targets 'y'; it has {', '.join(batch)}")
    return (
        check.numbers(outputs, what=f"{what}: outputs"),
        check.numbers(batch["y"], what=f"{what}: targets"),
    )


def _both(outputs: Array, targets: Array, name: str) -> str:
    rows = targets.shape[:1] if targets.shape[:1] == outputs.shape[:1] else ()
    return f"outputs {shown(outputs.shape, rows)} and {name} {shown(targets.shape, rows)}"


def _mend(logits: Array, labels: Array) -> str:
    if labels.ndim and labels.shape[-1:] == (1,) and labels.ndim == logits.ndim:
        return "; drop the last axis of the labels, as y[..., 0]"
    if labels.shape == logits.shape and labels.ndim > 1:
        return "; take y.argmax(-1) of one-hot labels"
    return ""
