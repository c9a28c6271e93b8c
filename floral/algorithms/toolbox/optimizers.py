"""Optax optimizers by keyword, for clients and for the server."""

import optax

from floral import check
from floral.errors import SpecError

__all__ = ["adagrad", "adam", "adamw", "sgd", "yogi"]


def sgd(
    *,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Stochastic gradient descent.

    Args:
      learning_rate: the step size.
      momentum: how much of the last step is kept, from 0 to below 1.
      nesterov: whether momentum is Nesterov's; needs momentum.
      weight_decay: this many times the parameter is added to its gradient.

    Raises:
      SpecError: for settings out of range, and for nesterov without momentum.
    """
    check.non_negative(learning_rate=learning_rate, weight_decay=weight_decay)
    _check_decay(momentum=momentum)
    check.boolean(nesterov=nesterov)
    if nesterov and not momentum:
        raise SpecError("nesterov needs momentum; set momentum, as 0.9")
    steps = optax.sgd(float(learning_rate), momentum=momentum or None, nesterov=nesterov)
    return optax.chain(optax.add_decayed_weights(weight_decay), steps) if weight_decay else steps


def adam(
    *, learning_rate: float, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8
) -> optax.GradientTransformation:
    """Adam; on the server, FedAdam (Reddi et al., "Adaptive Federated Optimization", 2021).

    Args:
      learning_rate: the step size.
      b1: decay of the first moment.
      b2: decay of the second moment.
      epsilon: added to the root of the second moment.
    """
    check.non_negative(learning_rate=learning_rate)
    _check_decay(b1=b1, b2=b2)
    check.positive(epsilon=epsilon)
    return optax.adam(float(learning_rate), b1=b1, b2=b2, eps=epsilon)


def adamw(
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 1e-4,
) -> optax.GradientTransformation:
    """AdamW: Adam with decoupled weight decay.

    Args:
      learning_rate: the step size, of the decay too.
      b1: decay of the first moment.
      b2: decay of the second moment.
      epsilon: added to the root of the second moment.
      weight_decay: each step also subtracts ``learning_rate * weight_decay`` times the parameter.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, Algorithm 2.
    """
    check.non_negative(learning_rate=learning_rate, weight_decay=weight_decay)
    _check_decay(b1=b1, b2=b2)
    check.positive(epsilon=epsilon)
    return optax.adamw(float(learning_rate), b1=b1, b2=b2, eps=epsilon, weight_decay=weight_decay)


def yogi(
    *, learning_rate: float, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-3
) -> optax.GradientTransformation:
    """Yogi; on the server, FedYogi (Reddi et al., 2021).

    Args:
      learning_rate: the step size.
      b1: decay of the first moment.
      b2: decay of the second moment.
      epsilon: added to the root of the second moment.
    """
    check.non_negative(learning_rate=learning_rate)
    _check_decay(b1=b1, b2=b2)
    check.positive(epsilon=epsilon)
    return optax.yogi(float(learning_rate), b1=b1, b2=b2, eps=epsilon)


def adagrad(*, learning_rate: float, epsilon: float = 1e-7) -> optax.GradientTransformation:
    """Adagrad; on the server, FedAdagrad (Reddi et al., 2021).

    Args:
      learning_rate: the step size.
      epsilon: added under the root of the summed squares.
    """
    check.non_negative(learning_rate=learning_rate)
    check.positive(epsilon=epsilon)
    return optax.adagrad(float(learning_rate), eps=epsilon)


def _check_decay(**named: float) -> None:
    """Refuses 1 too: it would never forget, and Adam's bias correction would divide by zero."""
    check.in_range(0.0, 1.0, **named)
    for name, value in named.items():
        if value == 1:
            raise SpecError(f"{name} must be below 1, got {check.brief(value)}")
