"""IFCA: each client trains the one of C models that loses least on its own examples."""

import optax

from floral.algorithms.base import FederatedAlgorithm
from floral.algorithms.clustered import ensemble
from floral.algorithms.toolbox.local import LocalSolver
from floral.mixtures import exponential_weights
from floral.models.base import Model
from floral.typing import Loss, PyTree

__all__ = ["ifca"]

_HARD = 1e9  # of float32 losses that differ at all, all but the least then weigh nothing


def ifca(
    model: Model,
    loss: Loss,
    local: LocalSolver,
    sample: PyTree,
    *,
    num_models: int = 4,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """The ensemble with all of a client's weight on the model of least loss, chosen every round.

    A client moves no other model, and is averaged with those that chose the same. It predicts with
    the model of its last choice; a new client chooses on its own examples.

    Args:
      model: the model of which there are C.
      loss: per-example loss.
      local: how clients train.
      sample: a batch of the data's shapes, to initialise the other models with.
      num_models: C.
      server_optimizer: takes the mean updates as gradients; None is plain averaging.

    Raises:
      SpecError: when initialised, for a model with statistics (batch norm).

    Source: Ghosh, Chung, Yin, Ramchandran, "An Efficient Framework for Clustered Federated
    Learning", 2020, Algorithm 1, model averaging.
    Differs from the paper: models that lose exactly the same share a client.
    """
    return ensemble(
        model,
        loss,
        local,
        exponential_weights(rate=_HARD),
        sample,
        num_models=num_models,
        server_optimizer=server_optimizer,
    )
