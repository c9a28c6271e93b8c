"""FedAvg and FLoRAL as the benches measure them: plain SGD, adaptors of all params."""

import re

import jax
import optax

import floral as fl
from floral import adaptors
from floral.models import Model
from floral.tree import paths

__all__ = ["adapt", "fedavg", "floral"]

_CONVOLUTIONS = r".*/Conv_\d+/kernel"


def _parts() -> tuple:
    return fl.losses.cross_entropy, fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)


def fedavg(model: Model) -> fl.algorithms.FederatedAlgorithm:
    """FedAvg of a model."""
    return fl.algorithms.fedavg(model, *_parts())


def adapt(
    model: Model, dataset: fl.data.FederatedDataset, *, budget: float
) -> adaptors.AdaptedModel:
    """A model with low-rank adaptors of its kernels and offsets of its biases and scales.

    Args:
      model: of the zoo.
      dataset: for the shapes of its examples.
      budget: the share of a kernel's size that one adaptor may take.
    """
    sample = fl.simulate.sample_batch(dataset)
    rules = [
        adaptors.Rule(".*/kernel", adaptors.low_rank(budget=budget)),
        adaptors.Rule(".*/(bias|scale)", adaptors.additive()),
    ]
    params, _ = jax.eval_shape(model.init, jax.random.key(0), sample)
    if any(re.fullmatch(_CONVOLUTIONS, path) for path in paths(params)):
        rules.insert(0, adaptors.Rule(_CONVOLUTIONS, adaptors.conv(budget=budget)))
    return adaptors.adapt(model, rules, sample)


def floral(
    adapted: adaptors.AdaptedModel, *, num_adaptors: int, **settings
) -> fl.algorithms.FederatedAlgorithm:
    """FLoRAL of an adapted model, mixtures by softmax; further settings are the factory's own."""
    return fl.algorithms.floral(
        adapted, *_parts(), fl.mixtures.softmax(), num_adaptors=num_adaptors, **settings
    )
