"""Metrics of numbers: how far outputs are from targets.

One number an example may be ``[B]`` or ``[B, 1]``, in the outputs as in the targets
(``floral.targets``). Outputs that are not finite make the metric so.
"""

import jax.numpy as jnp

from floral import targets
from floral.metrics.base import Metric, from_per_example

__all__ = ["mae", "rmse"]


def mae() -> Metric:
    """The mean absolute error, over examples and their outputs; in the targets' unit.

    Raises:
      SpecError: when traced, unless there is one output for each target.

    Example:
      >>> batch = {"y": jnp.array([0.0, 1.0]), "mask": jnp.ones(2, bool)}
      >>> metric = mae()
      >>> float(metric.compute(metric.from_outputs(jnp.array([[3.0], [1.0]]), batch)))
      1.5
    """

    def errors(outputs, batch):
        found, wanted = targets.numbers(outputs, batch, what="mae")
        return targets.per_example_mean(jnp.abs(found - wanted))

    return from_per_example(errors)


def rmse() -> Metric:
    """The root of the mean squared error, over examples and their outputs; in the targets' unit.

    With several outputs the mean is taken over all of them before the root.

    Raises:
      SpecError: when traced, unless there is one output for each target.

    Example:
      >>> batch = {"y": jnp.array([0.0, 1.0]), "mask": jnp.ones(2, bool)}
      >>> metric = rmse()
      >>> float(metric.compute(metric.from_outputs(jnp.array([[3.0], [5.0]]), batch)))
      3.535533905029297
    """

    def squares(outputs, batch):
        found, wanted = targets.numbers(outputs, batch, what="rmse")
        return targets.per_example_mean(jnp.square(found - wanted))

    mean = from_per_example(squares)
    return mean._replace(compute=lambda sums: jnp.sqrt(mean.compute(sums)))
