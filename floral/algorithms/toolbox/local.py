"""Local training: optax steps over a client's batches, in which padding is nothing.

A batch with no live example is no step: params, statistics and optimizer state come out bit for
bit as they went in. The walk ends after a client's own last live step, so that padding costs
nothing to a client that is walked alone, and to a chunk no more than its longest client.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from floral import check
from floral.algorithms.base import Objective
from floral.algorithms.toolbox.corrections import scaled
from floral.algorithms.toolbox.schedules import check_schedule
from floral.algorithms.toolbox.steps import as_before, check_optimizer, fresh, step
from floral.data import Batches, as_batches
from floral.errors import SpecError
from floral.random import stream
from floral.typing import Array, Batch, Key, PyTree

__all__ = ["LocalSolver", "as_local", "local_solver", "solve"]


class LocalSolver(NamedTuple):
    """How clients train.

    Attributes:
      make: ``(learning_rate: float) -> optax transform``.
      learning_rate: the rate of everything that is given no rate of its own.
      schedule: ``round -> factor`` of all rates; None leaves them as they are.
    """

    make: Callable[[float], optax.GradientTransformation]
    learning_rate: float
    schedule: Callable[[Any], Any] | None = None

    def optimizer(
        self, rate: float | None = None, round: Array | int | None = None
    ) -> optax.GradientTransformation:
        """The optimizer of one round, which multiplies its steps by the schedule's factor.

        It is started anew in every round; random keys in its state, as of ``optax.noisy_sgd``, are
        then made the client's own of that round.

        Args:
          rate: the learning rate; None is the solver's own.
          round: ``context.round``.

        Raises:
          SpecError: for a schedule without a round: the algorithm would pass over the schedule.
        """
        optimizer = self.make(self.learning_rate if rate is None else rate)
        if self.schedule is None:
            return optimizer
        if round is None:
            raise SpecError(
                "schedule: this algorithm trains at one rate in all rounds; leave out the schedule"
            )
        return scaled(optimizer, by=self.schedule(round))

    def unscheduled(self) -> "LocalSolver":
        """The solver at its full rates: for what a client does before it predicts."""
        return self._replace(schedule=None)

    def with_schedule(self, schedule: Callable[[Any], Any] | None) -> "LocalSolver":
        """The solver whose rates follow a schedule.

        Raises:
          SpecError: for anything but a function from a round to a factor of 0 or more.
        """
        if schedule is not None:
            check_schedule(schedule)
        return self._replace(schedule=schedule)


def local_solver(
    make: Callable[..., optax.GradientTransformation],
    *,
    learning_rate: float | None = None,
    schedule: Callable[[Any], Any] | None = None,
    **settings: Any,
) -> LocalSolver:
    """Local training with any optax optimizer.

    Args:
      make: ``(learning_rate, **settings) -> optax transform``, such as ``optax.sgd``.
      learning_rate: the rate of everything that is given no rate of its own.
      schedule: ``round -> factor``, which multiplies all steps that clients take in that round; any
        optax schedule that starts at 1.0, such as ``optax.cosine_decay_schedule(1.0, 500)``. What
        a client does before it predicts (personalization of its own part) keeps the full rates.
      **settings: further ones of ``make``, as ``weight_decay=1e-4`` of ``optax.adamw``.

    Raises:
      SpecError: for an optimizer in place of what makes one, no rate or a negative one, a schedule
        that is no factor of a round, or settings that ``make`` does not take. An optimizer that
        needs more than gradients (``optax.lbfgs``) is refused when a simulator is made, as is one
        that some client would not let take its first step.

    Example:
      >>> local_solver(optax.sgd, learning_rate=0.1, momentum=0.9).learning_rate
      0.1
    """
    if is_optimizer(make) or not callable(make):
        raise SpecError(
            "local_solver takes what makes an optimizer from a rate: pass optax.sgd and "
            f"learning_rate=0.1, or a lambda of the rate, got {check.described(make)}"
        )
    if learning_rate is None:
        raise SpecError("local_solver needs learning_rate, as learning_rate=0.1")
    check.non_negative(learning_rate=learning_rate)
    learning_rate = float(learning_rate)  # optax takes its negative, which NumPy's may not have
    try:
        made = make(learning_rate, **settings)
    except (TypeError, ValueError) as error:
        name = getattr(make, "__name__", "make")
        raise SpecError(f"local_solver: {name} cannot be made so: {error}") from error
    check_optimizer("local_solver", made)
    if settings:
        make = functools.partial(make, **settings)
    return LocalSolver(make, learning_rate).with_schedule(schedule)


def is_optimizer(value: Any) -> bool:
    """Whether a value is an optax transform, or works like one."""
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def as_local(factory: Callable[..., optax.GradientTransformation]) -> Callable[..., LocalSolver]:
    """The factory of local solvers with the signature of a factory of ``optimizers``.

    Example:
      >>> from floral.algorithms.toolbox import optimizers
      >>> as_local(optimizers.sgd)(learning_rate=0.1, momentum=0.9).learning_rate
      0.1
    """

    if not callable(factory):
        raise SpecError(
            "as_local takes what makes an optimizer of learning_rate, got "
            f"{check.described(factory)}"
        )

    @functools.wraps(factory)
    def make(*, learning_rate: float, **settings) -> LocalSolver:
        factory(learning_rate=learning_rate, **settings)  # checks the settings now
        return local_solver(
            lambda rate: factory(learning_rate=rate, **settings), learning_rate=learning_rate
        )

    return make


def solve(
    objective: Objective,
    trained: PyTree,
    stats: PyTree,
    batches: Batches | Batch,
    key: Key,
    *,
    optimizer: optax.GradientTransformation,
) -> tuple[PyTree, PyTree, dict[str, Array]]:
    """Takes one optimizer step a live batch on the mean loss of its live examples.

    Args:
      objective: ``(trained, stats, batch, key) -> (losses [B], stats)``.
      trained: what is differentiated; places that are not trained are None.
      stats: the model's statistics.
      batches: ``Batches``, or ``{"x": [S, B, ...], "y": [S, B, ...], "mask": [S, B]}``; what stands
        where the mask is False is of no consequence: the objective is given live examples there.
      key: step s uses ``stream(key, "step", s)``.
      optimizer: an optax transform, started here.

    Returns:
      ``(trained, stats, metrics)``, the first two of the dtypes that they came with, metrics the
      sums ``loss_sum`` (in float32 at least) and ``examples`` over all steps, each loss taken
      before its step.
    """

    def mean_loss(trained, stats, batch, step_key):
        losses, after = objective(trained, stats, batch, step_key)
        check.per_example(losses, batch["mask"].shape[0], what="loss", floats=True)
        losses = losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
        live = jnp.sum(batch["mask"])
        total = jnp.sum(jnp.where(batch["mask"], losses, 0.0))
        return total / jnp.maximum(live, 1), (as_before(after, stats), total, live)

    batches = as_batches(batches)
    live = jnp.any(batches.mask, axis=1)
    order = jnp.argsort(~live, stable=True)  # a walk of live steps alone, wherever they stand

    def take(carry):
        place, trained, stats, state, loss_sum, examples = carry
        index = order[place]
        grads, (stats, total, count) = jax.grad(mean_loss, has_aux=True)(
            trained, stats, batches.step(index), stream(key, "step", index)
        )
        trained, state = step(optimizer, grads, state, trained, where="local training")
        return (
            place + 1,
            trained,
            stats,
            state,
            loss_sum + total,
            examples + count.astype(jnp.int32),
        )

    zero = jnp.zeros((), jnp.int32)
    state = fresh(optimizer, trained, stream(key, "optimizer"))
    start = (zero, trained, stats, state, jnp.zeros(()), zero)
    count = jnp.sum(live, dtype=jnp.int32)
    _, trained, stats, _, loss_sum, examples = jax.lax.while_loop(
        lambda carry: carry[0] < count, take, start
    )
    return trained, stats, {"loss_sum": loss_sum, "examples": examples}
