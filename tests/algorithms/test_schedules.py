"""Learning-rate schedules over rounds, asked of a network with a hidden layer."""

import jax.numpy as jnp
import optax
import pytest

from floral import algorithms
from floral.algorithms.toolbox import optimizers, schedules
from floral.errors import SpecError


def _local(schedule=None, rate=0.1):
    return algorithms.local_solver(optax.sgd, learning_rate=rate, schedule=schedule)


def test_half_the_rate_by_schedule_is_half_the_rate(build, simulator, after, same):
    """A power of two, so that no product is rounded."""
    by_rate, by_schedule = (
        after(simulator(build("floral", local=local)), 2).server
        for local in (_local(rate=0.05), _local(optax.constant_schedule(0.5)))
    )
    same(by_schedule, by_rate)


@pytest.mark.parametrize("name", ["fedavg", "floral"])
def test_a_schedule_of_one_is_none_and_a_step_to_zero_stops_the_model(
    build, simulator, after, same, name
):
    stops = schedules.step(every=1, factor=0.0)
    one = after(simulator(build(name)), 1)
    same(after(simulator(build(name, local=_local(optax.constant_schedule(1.0)))), 1), one)
    stopping = simulator(build(name, local=_local(stops)))
    first = after(stopping, 1)
    same(first.server, one.server)
    later = after(stopping, 2, state=first).server
    for part in {"params", "base", "bank"} & set(later._fields):
        same(getattr(later, part), getattr(first.server, part))


def test_a_warm_up_goes_on_with_another_schedule_and_all_keep_their_last_value():
    warm = schedules.linear_warm_up(rounds=4, start=0.0, then=schedules.cosine(rounds=4, end=0.5))
    assert [float(warm(t)) for t in (0, 2, 4, 6, 8, 1_000)] == pytest.approx(
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.5]
    )
    line = schedules.linear(rounds=10, end=0.2)
    assert [float(line(t)) for t in (0, 5, 10, 1_000)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert float(schedules.linear_warm_up(rounds=2)(1_000)) == 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: _local(0.5),
        lambda: _local(lambda t: -1.0 * t),
        lambda: _local(lambda t: 1.0 / t),
        lambda: _local(lambda t: jnp.ones(2)),
        lambda: _local(lambda t: 0.5 if t < 3 else 0.1),
        lambda: _local(lambda: 1.0),
        lambda: schedules.cosine(rounds=0),
        lambda: schedules.linear(rounds=3, end=-1.0),
        lambda: schedules.step(every=2, factor=-0.5),
        lambda: schedules.linear_warm_up(rounds=2, start=-0.1),
    ],
    ids=[
        "number",
        "negative",
        "infinite",
        "two-factors",
        "untraceable",
        "no-round",
        "no-rounds",
        "negative-end",
        "negative-step",
        "negative-start",
    ],
)
def test_a_schedule_that_is_no_factor_of_a_round_is_refused(make):
    with pytest.raises(SpecError):
        make()


def test_nesterov_steps_by_the_gradient_and_by_the_momentum_after_it():
    params, gradient = jnp.ones(()), jnp.ones(())
    steps = optimizers.sgd(learning_rate=1.0, momentum=0.5, nesterov=True)
    move, _ = steps.update(gradient, steps.init(params), params)
    assert float(move) == -1.5  # g + 0.5 m, with m = g


def test_adamw_decays_what_has_no_gradient_and_adam_does_not():
    params, gradient = jnp.ones(()), jnp.zeros(())

    def move(steps):
        return float(steps.update(gradient, steps.init(params), params)[0])

    assert move(optimizers.adamw(learning_rate=0.1, weight_decay=0.5)) == pytest.approx(-0.05)
    assert move(optimizers.adam(learning_rate=0.1)) == 0.0
