"""FedProx and SCAFFOLD: one model for all, on clients that pull apart."""

import jax
import numpy as np
import optax
import pytest

from floral import algorithms, data, losses, simulate
from floral.errors import SpecError

ORDERED = data.batching(batch_size=2, shuffle=False)


def test_fedprox_that_holds_no_one_is_fedavg_bit_for_bit(build, simulator, after, same):
    prox, average = (after(simulator(build(*n)), 3) for n in (["fedprox"], ["fedavg"]))
    assert np.any(_kernel(prox) != _kernel(average))
    prox = after(simulator(build("fedprox", mu=0.0)), 3)
    same(prox.server, average.server)


def _kernel(state):
    return state.server.params["params"]["Dense_0"]["kernel"]


def test_fedprox_comes_to_rest_where_the_held_minimisers_average_to_it(quadratics):
    """``w = Σ_k p_k (h_k w)-minimiser``: each solves ``f_k' + mu (v - w) = 0`` exactly."""
    mu = 0.5
    _, state = quadratics.run("fedprox", rounds=40, steps=200, mu=mu)
    shares, held = quadratics.shares, quadratics.curvature + mu
    rest = np.sum(shares * quadratics.slope / held) / (1 - np.sum(shares * mu / held))
    np.testing.assert_allclose(state.server.params["w"], rest, rtol=1e-5)
    assert abs(rest - quadratics.minimum) > 0.01


def test_fedprox_reports_the_loss_alone(build, simulator):
    """The first step's loss is taken at the server's model, where there is no pull yet."""
    full = data.batching(batch_size=7)
    held, free = (simulator(build("fedprox", mu=mu), batching=full).round for mu in (5.0, 0.0))
    start = simulator(build("fedavg"), batching=full).init(jax.random.key(0))
    assert float(held(start)[1]["loss_sum"]) == float(free(start)[1]["loss_sum"])


def _descend(quadratics, rounds, steps, rate):
    """SCAFFOLD with every client in every round, in plain numpy: ``(w, c, c_k)``."""
    w, c, own = 0.0, 0.0, np.zeros(3)
    for _ in range(rounds):
        ends, controls = np.zeros(3), np.zeros(3)
        for k in range(3):
            y, gradients = w, []
            for _ in range(steps):
                gradients.append(quadratics.curvature[k] * y - quadratics.slope[k])
                y = y - rate * (gradients[-1] + c - own[k])
            ends[k], controls[k] = y, np.mean(gradients)
        w = np.sum(quadratics.shares * ends)
        c = c + np.sum(quadratics.shares * (controls - own))
        own = controls
    return w, c, own


def test_scaffold_is_the_algorithm_written_out(quadratics):
    _, state = quadratics.run("scaffold", rounds=3, steps=4, wiring=(7,))
    w, c, own = _descend(quadratics, rounds=3, steps=4, rate=0.1)
    np.testing.assert_allclose(state.server.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(state.server.controls["w"], c, rtol=1e-4)
    np.testing.assert_allclose(state.table["client"]["controls"]["w"][:, 0], own, rtol=1e-4)


def test_scaffold_finds_the_common_minimum_that_many_local_steps_lead_fedavg_away_from(quadratics):
    _, scaffold = quadratics.run("scaffold", rounds=60, steps=20, wiring=(7,))
    _, fedavg = quadratics.run("fedavg", rounds=60, steps=20)
    np.testing.assert_allclose(scaffold.server.params["w"], quadratics.minimum, rtol=1e-4)
    assert abs(float(fedavg.server.params["w"][0]) - quadratics.minimum) > 0.1


def test_scaffold_of_one_client_is_fedavg(make_population, network, build, simulator, after, near):
    alone = make_population((7,), clusters=(0,))
    local = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    scaffold = algorithms.scaffold(network, losses.squared_error, local, 7)
    near(
        after(simulator(scaffold, alone), 3).server.params,
        after(simulator(build("fedavg"), alone), 3).server.params,
    )


def test_the_servers_control_variate_is_the_mean_of_the_clients_whoever_took_part(
    build, simulator, after, population, near
):
    sim = simulator(build("scaffold"), cohort=simulate.fixed(size=2), batching=ORDERED)
    state = after(sim, 5)
    sizes = population.splits["train"].sizes
    mean = jax.tree.map(
        lambda rows: np.average(rows, axis=0, weights=sizes).astype(np.float32),
        state.table["client"]["controls"],
    )
    near(state.server.controls, mean)
    assert np.abs(jax.tree.leaves(mean)[1]).max() > 0.1


@pytest.mark.parametrize("local", [optax.adam, lambda rate: optax.sgd(rate, momentum=0.9)])
def test_scaffold_refuses_local_optimizers_that_remember(build, local):
    with pytest.raises(SpecError, match="the local optimizer has a state"):
        build("scaffold", local=algorithms.local_solver(local, learning_rate=0.1))
