"""The Local Adaptor: a shared base and, for each client, one low-rank adaptor of its own."""

from typing import Any

import jax.numpy as jnp
import optax

from floral.adaptors import AdaptedModel
from floral.algorithms._floral.factory import floral
from floral.algorithms.base import FederatedAlgorithm
from floral.algorithms.toolbox.local import LocalSolver
from floral.mixtures import Mixing
from floral.typing import Loss

__all__ = ["local_adaptor", "one_adaptor"]


def local_adaptor(
    model: AdaptedModel,
    loss: Loss,
    local: LocalSolver,
    *,
    bank_learning_rate: float | None = None,
    precondition_epsilon: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """FLoRAL with a bank of one adaptor that stays in the client's row; the base is averaged.

    Args:
      model: a model and the plan of its adaptors.
      loss: per-example loss.
      local: how clients train.
      bank_learning_rate: of the adaptors; None is the solver's own rate.
      precondition_epsilon: the ridge of the LoRA preconditioner; None is plain gradients.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Source: the FLoRAL paper's baseline of the same name, section 6.
    """
    return one_adaptor(
        model,
        loss,
        local,
        train=("base", "bank"),
        private=("bank",),
        bank_learning_rate=bank_learning_rate,
        precondition_epsilon=precondition_epsilon,
        server_optimizer=server_optimizer,
    )


def one_adaptor(
    model: AdaptedModel, loss: Loss, local: LocalSolver, **settings: Any
) -> FederatedAlgorithm:
    """FLoRAL with a bank of one adaptor that everyone has whole: there are no mixtures.

    Args:
      model: a model and the plan of its adaptors.
      loss: per-example loss.
      local: how clients train.
      **settings: further ones of ``floral``.
    """

    def init(key, num_adaptors: int, traits: Any):
        return jnp.zeros((num_adaptors,))

    def one(logits, *, active, round=0, train=False, key=None):
        return jnp.ones_like(logits)

    algorithm = floral(model, loss, local, Mixing(init, one), num_adaptors=1, **settings)
    return algorithm._replace(mixture=None, diagnostics=None)
