"""The choice between starts."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from floral.errors import SpecError
from floral.simulate import best_start, start_key


@pytest.fixture
def sim(build, simulator):
    return simulator(build("floral"))


def starts_of(sim, count):
    return [partial(sim.init, start_key(jax.random.key(0), index)) for index in range(count)]


def loss_of(sim):
    return lambda state: float(np.mean(sim.evaluate(state)["loss"]))


def test_the_first_start_is_that_of_a_run_without_others_and_all_differ(sim, same):
    key = jax.random.key(0)
    first, second, third = starts_of(sim, 3)
    same(first(), sim.init(key))
    kernels = [
        np.ravel(jax.tree.leaves(start().server.base)[-1]) for start in (first, second, third)
    ]
    assert not any(np.allclose(kernels[one], kernels[other]) for one, other in ((0, 1), (1, 2)))
    assert start_key(key, 2) == start_key(key, 2)


def test_every_start_is_trained_and_the_smallest_loss_is_best(sim, after):
    starts = starts_of(sim, 3)
    by_hand = [loss_of(sim)(after(sim, 2, state=start())) for start in starts]
    best, losses = best_start(sim, starts, rounds=2, loss=loss_of(sim))
    np.testing.assert_allclose(losses, by_hand, rtol=1e-5)
    assert best == int(np.argmin(by_hand))


def test_what_was_tried_is_not_tried_again(sim):
    starts = starts_of(sim, 3)
    whole, calls = best_start(sim, starts, rounds=2, loss=loss_of(sim)), []

    def never():
        raise AssertionError("tried already")

    again = best_start(
        sim,
        [never, never, starts[2]],
        rounds=2,
        loss=loss_of(sim),
        losses=whole[1][:2],
        tell=lambda losses: calls.append(len(losses)),
    )
    assert again == whole
    assert calls == [3]


def test_a_start_that_diverged_is_never_best(sim):
    losses = iter([math.nan, 2.0, math.inf, 2.0])
    best, told = best_start(sim, starts_of(sim, 4), rounds=1, loss=lambda state: next(losses))
    assert best == 1
    assert len(told) == 4


def test_starts_that_all_diverged_are_refused(sim):
    with pytest.raises(SpecError, match="after 1 rounds no start has a finite loss"):
        best_start(sim, starts_of(sim, 2), rounds=1, loss=lambda state: math.nan)
    with pytest.raises(SpecError, match="starts must be"):
        best_start(sim, [], rounds=1, loss=lambda state: 0.0)
