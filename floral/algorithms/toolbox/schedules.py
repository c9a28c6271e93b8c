"""Learning-rate schedules over rounds: from the round's index to a factor of all local rates.

A schedule depends on the round alone, so a resumed run continues it. Round 0 is the first. After
its last round a schedule keeps its last value.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from floral import check
from floral.display import functions
from floral.errors import SpecError
from floral.typing import Array

__all__ = ["Schedule", "check_schedule", "cosine", "linear", "linear_warm_up", "step"]

_CHECKED_ROUNDS = 1_000


class Schedule(NamedTuple):
    """A factor of the local learning rates by round; called like any optax schedule.

    Attributes:
      factor: ``(round: int32 scalar) -> factor``, not negative.
    """

    factor: Callable[[Any], Any]

    def __call__(self, round: Any) -> Array:
        return jnp.asarray(self.factor(round))

    def __repr__(self) -> str:
        return functions(self, "Schedule", self._fields)


def cosine(*, rounds: int, end: float = 0.0) -> Schedule:
    """From 1 down to ``end`` along half a cosine.

    Args:
      rounds: how many rounds it takes; the factor is ``end`` from then on.
      end: the last factor.

    Example:
      >>> [round(float(cosine(rounds=4)(t)), 3) for t in (0, 2, 4, 9)]
      [1.0, 0.5, 0.0, 0.0]
    """
    check.positive_int(rounds=rounds)
    check.non_negative(end=end)
    return Schedule(optax.cosine_decay_schedule(1.0, rounds, alpha=end))


def linear(*, rounds: int, end: float = 0.0) -> Schedule:
    """From 1 to ``end`` in a straight line.

    Args:
      rounds: how many rounds it takes; the factor is ``end`` from then on.
      end: the last factor.
    """
    check.positive_int(rounds=rounds)
    check.non_negative(end=end)
    return Schedule(optax.linear_schedule(1.0, end, rounds))


def step(*, every: int, factor: float = 0.1) -> Schedule:
    """``factor ** (round // every)``.

    Args:
      every: rounds between two steps.
      factor: what each step multiplies the rates by.

    Example:
      >>> [float(step(every=10, factor=0.5)(t)) for t in (0, 9, 10, 20)]
      [1.0, 1.0, 0.5, 0.25]
    """
    check.positive_int(every=every)
    check.non_negative(factor=factor)
    return Schedule(lambda round: jnp.power(jnp.float32(factor), jnp.asarray(round) // every))


def linear_warm_up(*, rounds: int, start: float = 0.1, then: Schedule | None = None) -> Schedule:
    """From ``start`` up to 1 in a straight line, then another schedule.

    Args:
      rounds: how many rounds the warm-up takes.
      start: the factor of the first round.
      then: the schedule after the warm-up, which counts its rounds from there; None stays at 1.

    Example:
      >>> schedule = linear_warm_up(rounds=2, start=0.5, then=step(every=1, factor=0.5))
      >>> [float(schedule(t)) for t in range(4)]
      [0.5, 0.75, 1.0, 0.5]
    """
    check.positive_int(rounds=rounds)
    check.non_negative(start=start)
    rise = optax.linear_schedule(start, 1.0, rounds)
    if then is None:
        return Schedule(rise)
    return Schedule(optax.join_schedules([rise, then], [rounds]))


def check_schedule(schedule: Any) -> None:
    """Raises SpecError unless this is a traceable function from a round to a factor of 0 or more.

    The first 1,000 rounds are evaluated.
    """
    hint = "such as optax.cosine_decay_schedule(1.0, 500), which is a function of the round"
    if not callable(schedule):
        raise SpecError(
            f"schedule: expected an optax schedule, {hint}; got {check.brief(schedule)}"
        )
    try:
        factors = np.asarray(jax.vmap(schedule)(jnp.arange(_CHECKED_ROUNDS)))
    except TypeError as error:
        reason = str(error).partition("\n")[0][:200]
        raise SpecError(
            "schedule: could not be traced for a round that is an array; expected an optax "
            f"schedule, {hint} ({reason})"
        ) from error
    real = any(jnp.issubdtype(factors.dtype, kind) for kind in (jnp.floating, jnp.integer))
    if factors.shape != (_CHECKED_ROUNDS,) or not real:
        got = f"{factors.dtype}{list(factors.shape[1:])}"
        raise SpecError(f"schedule: expected one number a round, got {got}")
    factors = factors.astype(float)
    wrong = np.flatnonzero(~(np.isfinite(factors) & (factors >= 0)))
    if len(wrong):
        raise SpecError(
            f"schedule: expected finite factors of 0 or more, got {factors[wrong[0]]:g} in round "
            f"{wrong[0]}"
        )
