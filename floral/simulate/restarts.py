"""Several starts, each trained for some rounds: which of them is worth going on with."""

import math
from collections.abc import Callable, Sequence

from floral import check
from floral.errors import SpecError
from floral.random import stream
from floral.simulate.simulator import Simulator
from floral.simulate.state import SimulationState
from floral.typing import Key

__all__ = ["best_start", "start_key"]


def start_key(key: Key, index: int) -> Key:
    """The key of a start; that of the first, 0, is the key itself, as of a run that has but one."""
    check.whole(index=index)
    return key if index == 0 else stream(key, "restart", index)


def best_start(
    simulator: Simulator,
    starts: Sequence[Callable[[], SimulationState]],
    *,
    rounds: int,
    loss: Callable[[SimulationState], float],
    losses: Sequence[float] = (),
    tell: Callable[[list[float]], None] = lambda losses: None,
) -> tuple[int, list[float]]:
    """Trains from every start for some rounds and says where the loss is smallest.

    Mixtures that are learnt beside their adaptors can settle on groups that are none, and which
    ones depends on the start. Nothing of the trials is kept: the start that is chosen is trained
    from again, so that all of them together cost ``len(starts) * rounds`` rounds more.

    Args:
      simulator: trains them.
      starts: each gives a new state.
      rounds: how many each is trained for.
      loss: ``(state) -> float``, of examples that nothing is trained on, as validation examples.
      losses: those of the first starts, where they were tried before.
      tell: called after each trial with all losses so far.

    Returns:
      The place of the best start, the first of equals, and all losses. One whose loss is not
      finite is never best.

    Raises:
      SpecError: if no start has a finite loss.

    Example:
      >>> # keys = [start_key(key, index) for index in range(3)]
      >>> # starts = [partial(simulator.init, key) for key in keys]
      >>> # best, losses = best_start(simulator, starts, rounds=50, loss=validation_loss)
    """
    check.positive_int(rounds=rounds, starts=len(starts))
    losses = list(losses)
    for start in starts[len(losses) :]:
        state, _ = simulator.rounds(start(), rounds)
        losses.append(float(loss(state)))
        tell(losses)
    finite = [value for value in losses if math.isfinite(value)]
    if not finite:
        raise SpecError(f"restarts: after {rounds} rounds no start has a finite loss: {losses}")
    return losses.index(min(finite)), losses
