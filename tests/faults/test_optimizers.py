"""Optimizers whose state is random, must outlive a round, or asks for more than a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms, data, losses, models, simulate
from floral.algorithms.toolbox.steps import first_moving_step
from floral.errors import SpecError
from floral.uplink import uplink


def _model(shape):
    return models.from_function(
        lambda key, x: {"w": jnp.zeros(shape)}, lambda params, x: x @ params["w"]
    )


def _simulator(optimizer, *, clients=2, size=4, inputs=3, server=None, batch_size=4, **settings):
    """Regressions with inputs of zero, whose gradient is zero: what moves is noise."""
    zeros = {"x": np.zeros((size, inputs), "f"), "y": np.zeros((size, 2), "f")}
    population = data.from_clients([{"train": zeros}] * clients)
    model = _model((inputs, 2))
    local = algorithms.local_solver(optimizer, learning_rate=0.1)
    algorithm = algorithms.fedavg(model, losses.squared_error, local, server_optimizer=server)
    batching = data.batching(batch_size=batch_size)
    return simulate.make_simulator(
        algorithm, model, population, metrics={}, batching=batching, **settings
    )


def _noisy(rate):
    return optax.noisy_sgd(rate, eta=1.0, key=3)


def _moves(sim, rounds=1, seed=0):
    """The server's change in each of some rounds."""
    state, moves = sim.init(jax.random.key(seed)), []
    for _ in range(rounds):
        after, _ = sim.round(state)
        moves.append(np.asarray(after.server.params["w"] - state.server.params["w"]))
        state = after
    return moves


def test_noise_of_local_training_differs_by_client_so_that_a_mean_of_sixteen_has_a_quarter():
    # 1,000 draws: a standard deviation is within 10 % of what it should be by four sigmas.
    (alone,) = _moves(_simulator(_noisy, clients=1, inputs=500))
    (together,) = _moves(_simulator(_noisy, clients=16, inputs=500))
    assert np.std(together) == pytest.approx(np.std(alone) / 4, rel=0.15)


def test_noise_of_local_training_differs_by_round_and_by_the_seed_of_the_run():
    sim = _simulator(_noisy)
    first, second = _moves(sim, rounds=2)
    (other,) = _moves(sim, seed=1)
    assert not np.any(first == second)
    assert not np.any(first == other)
    np.testing.assert_array_equal(first, _moves(sim)[0])


def test_noise_of_the_server_optimizer_differs_by_the_seed_of_the_run():
    sim = _simulator(optax.sgd, server=_noisy(1.0))
    assert not np.any(_moves(sim)[0] == _moves(sim, seed=1)[0])


def test_noise_on_the_way_to_the_server_differs_by_client():
    noise = optax.with_extra_args_support(optax.add_noise(1.0, 0.0, 3))

    def sent(clients):
        sim = _simulator(optax.sgd, clients=clients, inputs=500, uplink=uplink(client=[noise]))
        return np.std(_moves(sim)[0])

    assert sent(16) == pytest.approx(sent(1) / 4, rel=0.15)


@pytest.mark.parametrize(
    ("optimizer", "first"),
    [
        (optax.sgd(0.1), 1),
        (optax.MultiSteps(optax.sgd(0.1), 3), 3),
        (optax.chain(optax.apply_every(4), optax.sgd(0.1)), 4),
        (optax.sgd(optax.linear_schedule(0.0, 1.0, 10)), 2),
        (optax.sgd(0.0), None),
        (optax.masked(optax.sgd(0.1), {"of": {"one": True}, "tree": False}), None),
    ],
    ids=["sgd", "multi-steps", "apply-every", "warm-up", "rate-of-zero", "bound-to-a-tree"],
)
def test_the_first_step_that_moves_anything_is_found(optimizer, first):
    assert first_moving_step(optimizer) == first


@pytest.mark.parametrize("size", [4, 8], ids=["one step a round", "two steps a round"])
def test_gradients_that_are_accumulated_over_more_steps_than_a_round_has_are_refused(size):
    def accumulating(rate):
        return optax.MultiSteps(optax.sgd(rate), 2)

    if size == 8:
        _simulator(accumulating, size=size)
        return
    with pytest.raises(SpecError, match=r"moves nothing before its step 2.*takes? 1 step"):
        _simulator(accumulating, size=size)


_ASKING = {
    "lbfgs": (optax.lbfgs, r"value=…, grad=…, value_fn=…"),
    "plateau": (lambda r: optax.chain(optax.sgd(r), optax.contrib.reduce_on_plateau()), "value=…"),
    "polyak": (optax.polyak_sgd, "value=…"),
}


@pytest.mark.parametrize(("make", "asked"), _ASKING.values(), ids=_ASKING)
@pytest.mark.parametrize("whose", ["local training", "the server"])
def test_an_optimizer_that_asks_for_the_loss_is_refused_by_what_it_asks_for(make, asked, whose):
    local, server = (make, None) if whose == "local training" else (optax.sgd, make(0.1))
    with pytest.raises(SpecError, match=f"optimizer of {whose} needs {asked}, which {whose} does"):
        _simulator(local, server=server)


def _stepping(update):
    return lambda rate: optax.stateless(lambda updates, params: jax.tree.map(update, updates))


_UNFIT = {
    "an axis more": (_stepping(lambda u: u[None]), "an update of shape \\[1, "),
    "one number for all": (_stepping(jnp.mean), r"an update of shape \[\], expected"),
    "nothing": (
        lambda rate: optax.stateless(lambda u, p: {}),
        "updates that do not fit the params",
    ),
    "labels of no transform": (
        lambda rate: optax.multi_transform(
            {"a": optax.sgd(rate)}, lambda p: jax.tree.map(lambda _: "b", p)
        ),
        "does not fit the params: Some parameters have no corresponding transformation",
    ),
}


@pytest.mark.parametrize(("make", "said"), _UNFIT.values(), ids=_UNFIT)
@pytest.mark.parametrize("whose", ["local training", "the server"])
def test_an_optimizer_whose_steps_are_of_other_shapes_than_the_params_is_refused(make, said, whose):
    local, server = (make, None) if whose == "local training" else (optax.sgd, make(0.1))
    with pytest.raises(SpecError, match=f"optimizer.* {said}"):
        _simulator(local, server=server)


@pytest.mark.parametrize(
    ("make", "message"),
    [(optax.sgd(0.1), "pass optax.sgd and learning_rate"), (lambda rate: rate, "got float")],
    ids=["a transform", "a function of something else"],
)
def test_a_local_solver_takes_functions_that_make_a_transform_alone(make, message):
    with pytest.raises(SpecError, match=message):
        algorithms.local_solver(make, learning_rate=0.1)


def test_a_server_optimizer_that_was_not_called_is_refused():
    with pytest.raises(SpecError, match=r"such as optax\.adam\(0\.1\)"):
        _simulator(optax.sgd, server=optax.adam)
