r"""Mixtures that follow evidence: what each adaptor alone loses on a client's own examples.

A gradient looks at the mixed model and moves a logit a little; losses compare the adaptors
themselves and may decide at once. One look costs a forward pass an adaptor.
"""

from typing import Any

import jax
import jax.numpy as jnp

from floral import check
from floral.errors import SpecError
from floral.first_argument import first_by_place
from floral.mixtures.base import LARGEST, Mixing, Refresh, finite, softmax_over, zeros
from floral.mixtures.weights import softmax
from floral.typing import Array, Key

__all__ = ["exponential_weights", "responsibilities"]

_ONE_HOT = 110.0  # a logit beside which others, of zero, weigh nothing in float32, not even 1e-45


@first_by_place
def exponential_weights(
    *,
    rate: float = 1.0,
    every: int = 1,
    anneal: int = 0,
    memory: float = 0.0,
    random_rounds: int = 0,
    balance: float = 0.0,
    settle: int = 0,
) -> Mixing:
    r"""Weights ``π_c ∝ exp(-rate Σ_i f_c(i))``: the minimiser of ``rate π·f - H(π)``.

    At rate one they are the posterior over adaptors of a client whose examples all come from one
    of them, under a uniform prior, where losses are negative log-likelihoods. Rates near zero give
    uniform weights, large ones the adaptor of least loss.

    Source: Almansoori, Horváth, Takáč, "Collaborative and Efficient Personalization with Mixtures
    of Adaptors", appendix D.1, where losses are means.

    Args:
      rate: of the sum of losses over a client's examples; one over temperature.
      every: rounds from one look at the losses to the next; between them logits stay, or follow
        their gradient where the mixture is trained.
      anneal: rounds in which the rate rises linearly to its own value.
      memory: the share of the former logits that stays; of those of a random start none does.
      random_rounds: in as many rounds at first each client belongs to one adaptor drawn at random.
        Adaptors that are alike give no evidence: groups that differ by chance make them differ in
        what tells clients apart.
      balance: how much dearer an adaptor becomes in a round in which it had all examples, in units
        of the mean loss: adaptors that serve two groups lose one of them to those that serve none.
        Prices fade by a tenth a round.
      settle: how many rounds from the random ones on clients look in every round, and adaptors have
        prices. After them clients look in every ``every``-th, and nothing is priced any more:
        groups need not be of one size.

    Raises:
      SpecError: for settings out of range.

    Example:
      >>> mixing = exponential_weights()
      >>> losses = jnp.array([[0.25, 1.0], [0.25, 0.0]])
      >>> logits = mixing.refresh.logits(
      ...     jnp.zeros(2), losses, jnp.ones(2, bool), count=2, active=jnp.ones(2, bool), round=0,
      ...     prices=jnp.zeros(2)
      ... )
      >>> logits.tolist()  # sums 0.5 and 1.0
      [0.0, -0.5]
    """
    check.positive(rate=rate)
    check.positive_int(every=every)
    check.non_negative(anneal=anneal, random_rounds=random_rounds, balance=balance)
    check.non_negative(settle=settle)
    check.in_range(0.0, 1.0, memory=memory)
    if balance and not settle:
        raise SpecError(
            f"exponential_weights: balance = {balance} prices adaptors in settle = 0 rounds; give "
            "settle as many rounds as mixtures need to find themselves, such as 100"
        )

    def init(key: Key, num_adaptors: int, traits: Any) -> Array:
        if not random_rounds:
            return zeros(key, num_adaptors, traits)
        group = jax.random.randint(key, (), 0, num_adaptors)
        return _ONE_HOT * jax.nn.one_hot(group, num_adaptors)

    def logits(logits, losses, mask, *, count, active, round, prices):
        mean = prices + jnp.sum(jnp.where(mask[:, None], losses, 0.0), axis=0) / jnp.maximum(
            mask.sum(), 1
        )
        since = round - random_rounds
        risen = jnp.clip((since + 1) / anneal, 0.0, 1.0) if anneal else 1.0
        kept = jnp.where(since > 0, memory, 0.0) * finite(logits)
        new = kept - rate * risen * count * mean
        return new - jnp.max(jnp.where(active, new, -LARGEST))

    def due(round):
        since = round - random_rounds
        return (since >= 0) & ((since < settle) | (since % every == 0))

    def price(prices, shares, active, round):
        since = round - random_rounds
        fair = active / jnp.maximum(active.sum(), 1)
        open_market = (since >= 0) & (since < settle)
        return jnp.where(open_market, 0.9 * prices + balance * (shares - fair), 0.0)

    return Mixing(init=init, weights=softmax().weights, refresh=Refresh(due, logits, price))


@first_by_place
def responsibilities(*, every: int = 1, steps: int = 1) -> Mixing:
    r"""Weights by expectation maximisation: each example asks which adaptor explains it.

    ``π_c ← mean_i softmax_c(log π_c - f_c(i))``, so that a client may truly be a mixture.

    Source: Marfoq et al., "Federated Multi-Task Learning under a Mixture of Distributions", 2021,
    equations 5 and 6.

    Args:
      every: rounds from one look at the losses to the next.
      steps: of expectation maximisation in each.

    Raises:
      SpecError: for settings below one.

    Example:
      >>> mixing = responsibilities(steps=100)
      >>> losses = jnp.array([[0.0, 9.0], [0.0, 9.0], [9.0, 0.0], [0.0, 9.0]])
      >>> logits = mixing.refresh.logits(
      ...     jnp.zeros(2), losses, jnp.ones(4, bool), count=4, active=jnp.ones(2, bool), round=0,
      ...     prices=jnp.zeros(2)
      ... )
      >>> mixing.weights(logits, active=jnp.ones(2, bool)).round(2).tolist()
      [0.75, 0.25]
    """
    check.positive_int(every=every, steps=steps)

    def logits(logits, losses, mask, *, count, active, round, prices):
        def step(_, weights):
            prior = jnp.log(weights)
            each = jax.vmap(lambda own: softmax_over(prior - own, active))(losses)
            total = jnp.sum(jnp.where(mask[:, None], each, 0.0), axis=0)
            return jnp.where(mask.any(), total / jnp.maximum(mask.sum(), 1), weights)

        weights = jax.lax.fori_loop(0, steps, step, softmax_over(logits, active))
        return jnp.maximum(jnp.log(weights), -_ONE_HOT)

    def due(round):
        return jnp.asarray(round) % every == 0

    def price(prices, shares, active, round):
        return prices

    return Mixing(init=zeros, weights=softmax().weights, refresh=Refresh(due, logits, price))
