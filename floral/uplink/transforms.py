"""Transforms of a client's update before it is sent, and the uplink they make."""

from collections.abc import Sequence
from typing import get_args

import optax

from floral import check
from floral.uplink.base import NonFinite, Reducer, Uplink
from floral.uplink.mean import weighted_mean

__all__ = ["clip", "uplink"]


def clip(*, max_norm: float) -> optax.GradientTransformationExtraArgs:
    """Scales an update down to at most ``max_norm``, one Euclidean norm over all its leaves.

    Args:
      max_norm: the largest norm that passes unchanged.
    """
    check.positive(max_norm=max_norm)
    return optax.with_extra_args_support(optax.clip_by_global_norm(max_norm))


def uplink(
    *,
    client: Sequence[optax.GradientTransformationExtraArgs] = (),
    reduce: Reducer | None = None,
    server: Sequence[optax.GradientTransformationExtraArgs] = (),
    non_finite: NonFinite = "keep",
) -> Uplink:
    """An uplink of client transforms, a reducer and server transforms; by default a plain mean.

    Args:
      client: applied to each client's update, in order.
      reduce: makes the cohort's updates one; the weighted mean if None.
      server: applied to the reduced update, in order.
      non_finite: what becomes of a client whose loss, or whose update after the client transforms,
        is infinite or NaN. keep: it is averaged like any other, and the model is then NaN. drop:
        the round goes on as if the client had not taken part, with weight zero and its state as it
        was, and the round's metrics count such clients (on a CPU a round of few local steps takes
        up to 1.2 times as long, since every update is read once more).

    Raises:
      SpecError: for another word.
    """
    check.one_of(get_args(NonFinite), non_finite=non_finite)

    def chain(transforms):
        return optax.with_extra_args_support(optax.chain(optax.identity(), *transforms))

    reducer = weighted_mean() if reduce is None else reduce
    return Uplink(
        chain(client), reducer, chain(server), transforms=len(client), non_finite=non_finite
    )
