"""Transforms of a client's update before it is sent, and the uplink they make."""

from collections.abc import Sequence
from typing import Any, get_args

import optax

from floral import check
from floral.errors import SpecError
from floral.first_argument import first_by_place
from floral.uplink.base import NonFinite, Reducer, Uplink
from floral.uplink.mean import weighted_mean

__all__ = ["clip", "uplink"]


@first_by_place
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
      SpecError: for another word, what is no optax transform, or no reducer.
    """
    check.one_of(get_args(NonFinite), non_finite=non_finite)
    if reduce is not None and not isinstance(reduce, Reducer):
        raise SpecError(
            "reduce: expected a Reducer, as fl.uplink.weighted_mean() makes; a function of "
            "(updates [K, ...], weights [K, ...]) becomes one by fl.uplink.Reducer(init, reduce), "
            f"where a client of weight 0 must count for nothing; got {check.described(reduce)}"
        )
    client, server = _transforms("client", client), _transforms("server", server)

    def chain(transforms):
        return optax.with_extra_args_support(optax.chain(optax.identity(), *transforms))

    reducer = weighted_mean() if reduce is None else reduce
    return Uplink(
        chain(client), reducer, chain(server), transforms=len(client), non_finite=non_finite
    )


def _transforms(name: str, given: Any) -> Sequence[Any]:
    """Optax transforms, of which one alone is a form; raises SpecError for anything else."""
    alone = isinstance(given, optax.GradientTransformation)  # a tuple too, of two functions
    transforms = [given] if alone else given
    if not isinstance(transforms, (list, tuple)):
        raise SpecError(
            f"{name}: expected a list of optax transforms, as [fl.uplink.clip(max_norm=1.0)], got "
            f"{check.described(given)}"
        )
    for index, transform in enumerate(transforms):
        if not isinstance(transform, optax.GradientTransformation):
            raise SpecError(
                f"{name}.{index}: expected an optax transform, as fl.uplink.clip(max_norm=1.0), "
                f"got {check.described(transform)}"
            )
    return transforms
