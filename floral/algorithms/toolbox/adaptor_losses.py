"""What each adaptor, or model, of several alone loses on a client's own examples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from floral.data import Batches, distinct_examples
from floral.mixtures import Refresh
from floral.typing import Array, Batch

__all__ = ["losses_alone", "next_prices", "one_by_one", "refreshed"]


def refreshed(
    refresh: Refresh | None,
    logits: Array,
    losses_each: Callable[[Batch], Array],
    batches: Batches,
    *,
    active: Array,
    round: Array,
    prices: Array,
    always: bool = False,
) -> Array:
    """A client's logits, as what each adaptor alone loses on its batches has them, where due.

    Args:
      refresh: of the mixing; None leaves the logits as they are.
      logits: [C].
      losses_each: ``(batch of B) -> [B, C]``, what each adaptor alone loses.
      batches: the client's.
      active: [C] bool.
      round: int32.
      prices: [C], added to losses by the server.
      always: whether to look in any round: a client that knows nothing does.
    """
    if refresh is None:
        return logits

    def look() -> Array:
        losses = losses_alone(losses_each, batches, logits.shape[0])
        return refresh.logits(
            logits,
            losses.reshape(-1, logits.shape[0]),
            batches.mask.reshape(-1),
            count=distinct_examples(batches),
            active=active,
            round=round,
            prices=prices,
        )

    return look() if always else jax.lax.cond(refresh.due(round), look, lambda: logits)


def next_prices(
    refresh: Refresh | None, prices: Array, weight: Array, active: Array, round: Array
) -> Array:
    """The server's prices after a round; without a refresh there are none.

    Args:
      refresh: of the mixing.
      prices: [C], this round's.
      weight: [C], the examples that each adaptor had in this round; all zero changes nothing.
      active: [C] bool.
      round: int32, this round.
    """
    if refresh is None:
        return prices
    total = jnp.sum(weight)
    shares = weight / jnp.where(total > 0, total, 1.0)
    return jnp.where(total > 0, refresh.prices(prices, shares, active, round), prices)


def losses_alone(losses_each: Callable[[Batch], Array], batches: Batches, count: int) -> Array:
    """The losses of each of C alone, a step at a time, up to the client's own last live step.

    Args:
      losses_each: ``(batch of B) -> [B, C]``.
      batches: S steps of B examples.
      count: C.

    Returns:
      [S, B, C]; where the mask is False, of no consequence.
    """
    steps, size = batches.mask.shape
    live = jnp.any(batches.mask, axis=1)
    last = jnp.max(jnp.where(live, jnp.arange(1, steps + 1), 0))

    def step(index: Array, losses: Array) -> Array:
        return losses.at[index].set(losses_each(batches.step(index)))

    return jax.lax.fori_loop(0, last, step, jnp.zeros((steps, size, count)))


def one_by_one(losses_of: Callable[[Array, Batch], Array], count: int) -> Callable[[Batch], Array]:
    """The losses of each of C, one after another, from those of a mixture.

    Args:
      losses_of: ``(weights [C], batch of B) -> [B]``.
      count: C.
    """

    def losses_each(batch: Batch) -> Array:
        return jax.lax.map(lambda weights: losses_of(weights, batch), jnp.eye(count)).T

    return losses_each
