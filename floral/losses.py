"""Per-example losses: ``(outputs [B, ...], batch) -> [B]``. Callers mask and average.

A loss of one's own is any function of that signature. It is checked when a simulator is made: one
float an example, and no outputs that broadcast against targets.
"""

import jax.numpy as jnp
import optax

from floral import targets
from floral.typing import Array, Batch

__all__ = ["cross_entropy", "squared_error"]


def cross_entropy(outputs: Array, batch: Batch) -> Array:
    """Cross-entropy of logits ``[B, classes]`` with integer labels ``batch["y"]`` [B]; in nats.

    Further axes of the labels (tokens) are averaged within the example.

    Raises:
      SpecError: when traced, unless there is one logit a class for each label and labels are whole
        numbers.

    Example:
      >>> cross_entropy(jnp.zeros((2, 4)), {"y": jnp.array([0, 3])}).tolist() == [jnp.log(4.0)] * 2
      True
    """
    logits, labels = targets.classes(outputs, batch, what="cross_entropy")
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return targets.per_example_mean(losses)


def squared_error(outputs: Array, batch: Batch) -> Array:
    """Squared error averaged over an example's outputs: ``mean_j (outputs_j - y_j)^2``, [B].

    One number an example may be ``[B]`` or ``[B, 1]``, in the outputs as in the targets.

    Raises:
      SpecError: when traced, unless there is one output for each target.

    Example:
      >>> squared_error(jnp.array([[1.0, 3.0]]), {"y": jnp.array([[0.0, 0.0]])}).tolist()
      [5.0]
      >>> squared_error(jnp.array([[1.0], [3.0]]), {"y": jnp.array([0.0, 1.0])}).tolist()
      [1.0, 4.0]
    """
    found, wanted = targets.numbers(outputs, batch, what="squared_error")
    return targets.per_example_mean(jnp.square(found - wanted))
