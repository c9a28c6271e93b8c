"""What every algorithm is made of, checked by its factory before anything is traced."""

from collections.abc import Mapping
from typing import Any

import jax

from floral import check
from floral.adaptors import AdaptedModel
from floral.algorithms.toolbox.local import LocalSolver
from floral.errors import SpecError
from floral.mixtures import Mixing
from floral.models.frameworks.given import check_model

__all__ = ["check_inputs", "check_sample"]


def check_inputs(
    model: Any,
    loss: Any,
    local: Any,
    *,
    adapted: bool = False,
    mixing: Any = ...,
    sample: Any = ...,
) -> None:
    """Raises SpecError unless the parts are what a factory of algorithms expects.

    Args:
      model: a ``Model``, or an ``AdaptedModel`` where ``adapted``.
      loss: a function of (outputs, batch).
      local: a ``LocalSolver``.
      adapted: whether the algorithm trains adaptors.
      mixing: a ``Mixing``; for algorithms with mixtures.
      sample: a batch; for algorithms that look at one.
    """
    if not adapted:
        check_model(model)
    elif not isinstance(model, AdaptedModel):
        raise SpecError(
            "model must be an AdaptedModel, as fl.adaptors.adapted(model, plan, batch) makes, got "
            f"{check.described(model)}"
        )
    _check_loss(loss)
    check.instance_of(
        LocalSolver, "fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)", local=local
    )
    if mixing is not ...:
        check.instance_of(Mixing, "fl.mixtures.softmax()", mixing=mixing)
    if sample is not ...:
        check_sample(sample)


def check_sample(sample: Any) -> None:
    """Raises SpecError unless this is a batch of arrays with inputs ``"x"``."""
    arrays = isinstance(sample, Mapping) and all(
        isinstance(name, str) and hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        for name, value in sample.items()
        for leaf in jax.tree.leaves(value)
    )
    if not (arrays and "x" in sample):
        raise SpecError(
            "sample must be a batch {'x': ..., 'y': ..., 'mask': ...}, as "
            f"fl.simulate.sample_batch(dataset) makes, got {check.described(sample)}"
        )


def _check_loss(loss: Any) -> None:
    expected = "loss must be a function of (outputs, batch), as fl.losses.cross_entropy"
    if not callable(loss):
        raise SpecError(f"{expected}, got {check.described(loss)}")
    if not check.takes(2, loss):
        raise SpecError(f"{expected}, got {check.described(loss)}, which takes other arguments")
