"""The way from the clients to the server: per-client transforms, one reducer, server transforms.

The per-client and the server side are plain optax transforms of updates; randomness reaches them
as the extra argument ``key``. Only the many-to-one step is new.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import optax

from floral.adaptors import Factored
from floral.messages import Reduced
from floral.typing import PyTree

__all__ = ["Fold", "NonFinite", "Reducer", "Uplink"]


NonFinite = Literal["keep", "drop"]


class Fold(NamedTuple):
    """A reduction that can stream over the cohort in pieces.

    Attributes:
      zero: ``(update, weight) -> sums``, from one client's update and weight (arrays or structs).
      add: ``(sums, updates [k, ...], weights [k, ...]) -> sums``.
      finish: ``(sums, server=None) -> Reduced``; the server's state is that before the round.
    """

    zero: Callable[[PyTree, PyTree], Any]
    add: Callable[[Any, PyTree, PyTree], Any]
    finish: Callable[..., Reduced]


class Reducer(NamedTuple):
    """K updates made one.

    Attributes:
      init: ``(update struct) -> state``.
      reduce: ``(updates [K, ...], weights [K, ...], state, *, key=None, server=None) -> (Reduced,
        state)``.
      fold: the streaming form, where there is one; the state is then never used.
      fit: ``(Factored or None) -> Reducer`` for an algorithm's factor pairs, without which this one
        reduces nothing; raises SpecError for an algorithm that it does not fit. None where a
        reducer takes any update.
    """

    init: Callable[[PyTree], PyTree]
    reduce: Callable[..., tuple[Reduced, PyTree]]
    fold: Fold | None = None
    fit: Callable[[Factored | None], "Reducer"] | None = None


class Uplink(NamedTuple):
    """What happens to updates on their way.

    Attributes:
      client: applied to each client's update; its state lives in the client's row.
      reduce: makes the cohort's updates one.
      server: applied to the reduced update.
      transforms: how many transforms each client's update goes through.
      non_finite: what becomes of a client whose loss or update is not finite; see ``uplink``.
    """

    client: optax.GradientTransformationExtraArgs
    reduce: Reducer
    server: optax.GradientTransformationExtraArgs
    transforms: int = 0
    non_finite: NonFinite = "keep"
