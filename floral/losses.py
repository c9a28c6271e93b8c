"""Per-example losses: ``(outputs [B, ...], batch) -> [B]``. Callers mask and average."""

import jax.numpy as jnp
import optax

from floral.typing import Array, Batch

__all__ = ["cross_entropy", "squared_error"]


def cross_entropy(outputs: Array, batch: Batch) -> Array:
    """Cross-entropy of logits ``[B, classes]`` with integer labels ``batch["y"]`` [B]; in nats.

    Further axes of the labels (tokens) are averaged within the example.

    Example:
      >>> cross_entropy(jnp.zeros((2, 4)), {"y": jnp.array([0, 3])}).tolist() == [jnp.log(4.0)] * 2
      True
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["y"])
    return losses.reshape(losses.shape[0], -1).mean(axis=1)


def squared_error(outputs: Array, batch: Batch) -> Array:
    """Squared error averaged over an example's outputs: ``mean_j (outputs_j - y_j)^2``, [B].

    Example:
      >>> squared_error(jnp.array([[1.0, 3.0]]), {"y": jnp.array([[0.0, 0.0]])}).tolist()
      [5.0]
    """
    errors = jnp.square(outputs - batch["y"])
    return errors.reshape(errors.shape[0], -1).mean(axis=1)
