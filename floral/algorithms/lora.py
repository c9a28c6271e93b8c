"""Federated LoRA, by which factor is trained and which is shared: FedSA-LoRA and FFA-LoRA.

Both are ``floral`` with one adaptor that counts whole, told apart by the roles of its paths:
training ``["bank"]`` and sharing all of it would be federated averaging of LoRA. Without ``base``
in what is trained, the base stays as it was given.
"""

from collections.abc import Sequence

import optax

from floral.adaptors import AdaptedModel
from floral.algorithms._local_adaptor import one_adaptor
from floral.algorithms.base import FederatedAlgorithm
from floral.algorithms.toolbox.local import LocalSolver
from floral.typing import Loss

__all__ = ["fedsa_lora", "ffa_lora"]


def fedsa_lora(
    model: AdaptedModel,
    loss: Loss,
    local: LocalSolver,
    *,
    train: Sequence[str] = ("bank",),
    bank_learning_rate: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """Clients train both factors, share a (the paper's A) and keep b (its B) to themselves.

    Adaptors without a factor b, such as additive ones, are shared.

    Args:
      model: a model and the plan of its adaptors.
      loss: per-example loss.
      local: how clients train.
      train: what is trained; with ``"base"`` the base is averaged too.
      bank_learning_rate: of the adaptors; None is the solver's own rate.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Raises:
      SpecError: for a plan without pairs of factors.

    Source: Guo et al., "Selective Aggregation for Low-Rank Adaptation in Federated Learning", 2025.
    """
    return one_adaptor(
        model,
        loss,
        local,
        train=train,
        private=("bank/**/b",),
        bank_learning_rate=bank_learning_rate,
        server_optimizer=server_optimizer,
    )


def ffa_lora(
    model: AdaptedModel,
    loss: Loss,
    local: LocalSolver,
    *,
    train: Sequence[str] = ("bank/**/b",),
    bank_learning_rate: float | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
) -> FederatedAlgorithm:
    """All share one adaptor whose factor a (the paper's A) stays as it was drawn; b is averaged.

    Deltas are then linear in what is averaged: the mean of the clients' deltas is the delta of the
    mean, which averaging both factors is not.

    Args:
      model: a model and the plan of its adaptors.
      loss: per-example loss.
      local: how clients train.
      train: what is trained; ``"bank/**/offset"`` beside it would train additive adaptors.
      bank_learning_rate: of the adaptors; None is the solver's own rate.
      server_optimizer: takes the mean update as a gradient; None is plain averaging.

    Raises:
      SpecError: for a plan without pairs of factors.

    Source: Sun et al., "Improving LoRA in Privacy-preserving Federated Learning", 2024.
    """
    return one_adaptor(
        model,
        loss,
        local,
        train=train,
        private=(),
        bank_learning_rate=bank_learning_rate,
        server_optimizer=server_optimizer,
    )
