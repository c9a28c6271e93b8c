"""FLoRAL whose mixtures follow losses: each client's logits are what its own examples say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import adaptors, mixtures, simulate

SCAN = simulate.execution(walk="scan")
SHARED = ("base", "bank")
FLOAT32 = 1e-4  # what differences of sums of some tens keep of their last places


def told_apart(state, seed=1):
    """A state whose adaptors differ: those of a start are all zero."""
    keys = iter(jax.random.split(jax.random.key(seed), 100))
    bank = jax.tree.map(
        lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape), state.server.bank
    )
    return state._replace(server=state.server._replace(bank=bank))


@pytest.fixture(scope="module")
def summed_loss(outputs_of):
    """``(params, examples) -> float``: a model's squared errors, summed over examples."""

    def summed(params, examples):
        errors = np.asarray(outputs_of(params, examples["x"])) - examples["y"]
        return float(np.mean(errors**2, axis=1).sum())

    return summed


@pytest.fixture(scope="module")
def losses_by_hand(adapt, network, summed_loss):
    """``(server, examples) -> [2]``: the summed loss of each adaptor alone, in the merged model."""
    plan = adapt(network).plan

    def by_hand(server, examples):
        bank = adaptors.Bank(server.bank, server.fixed)
        alone = [adaptors.merge(server.base, bank, jnp.eye(2)[c], plan) for c in (0, 1)]
        return np.array([summed_loss(params, examples) for params in alone])

    return by_hand


@pytest.mark.parametrize("chunk", [1, 5])
def test_logits_are_the_losses_of_each_adaptor_as_received(
    chunk, build, simulator, population, losses_by_hand
):
    algorithm = build("floral", mixing=mixtures.exponential_weights(rate=0.5), train=SHARED)
    walk = simulate.execution(walk="chunk", chunk=chunk)
    sim = simulator(algorithm, execution=walk)
    start = told_apart(sim.init(jax.random.key(0)))
    state, _ = sim.round(start)
    for client in range(5):
        sums = losses_by_hand(start.server, population.client(client)["train"])
        logits = np.asarray(sim.client(state, client)["mixture"])
        np.testing.assert_allclose(
            logits[0] - logits[1], 0.5 * (sums[1] - sums[0]), rtol=1e-4, atol=FLOAT32
        )
        assert logits.max() == 0


def test_between_looks_logits_stay(build, simulator, same):
    algorithm = build("floral", mixing=mixtures.exponential_weights(every=2), train=SHARED)
    sim = simulator(algorithm, execution=SCAN)
    first, _ = sim.round(told_apart(sim.init(jax.random.key(0))))
    second, _ = sim.round(first)
    third, _ = sim.round(second)
    same(first.table["client"], second.table["client"])
    assert not np.allclose(
        np.asarray(jax.tree.leaves(second.table["client"])[0]),
        np.asarray(jax.tree.leaves(third.table["client"])[0]),
    )


def test_a_look_and_a_gradient_add_up(build, simulator, near):
    """Training the mixture too moves the logits on from where the losses put them."""
    mixing = mixtures.exponential_weights()
    only = simulator(build("floral", mixing=mixing, train=SHARED), execution=SCAN)
    both = simulator(build("floral", mixing=mixing, mixture_learning_rate=0.0), execution=SCAN)
    moved = simulator(build("floral", mixing=mixing, mixture_learning_rate=1.0), execution=SCAN)
    states = [sim.round(told_apart(sim.init(jax.random.key(0))))[0] for sim in (only, both, moved)]
    rows = [
        np.asarray(sim.client(state, 4)["mixture"])
        for sim, state in zip((only, both, moved), states, strict=True)
    ]
    near(rows[0], rows[1])
    assert np.abs(rows[2] - rows[1]).max() > 1e-3


def test_stateless_and_unseen_clients_find_their_mixture_without_a_gradient(
    build, simulator, make_population, losses_by_hand
):
    population = make_population(unseen=[False, False, False, False, True])
    mixing = mixtures.exponential_weights()
    for stateful in (True, False):
        algorithm = build("floral", mixing=mixing, train=SHARED, stateful=stateful)
        sim = simulator(algorithm, population, execution=SCAN)
        state = told_apart(sim.init(jax.random.key(0)))
        sums = losses_by_hand(state.server, population.client(4)["train"])
        logits = np.asarray(sim.client(state, 4)["mixture"])
        np.testing.assert_allclose(
            logits[0] - logits[1], sums[1] - sums[0], rtol=1e-4, atol=FLOAT32
        )


def test_every_walk_gives_the_same_clients(build, simulator, near):
    algorithm = build("floral", mixing=mixtures.responsibilities(), train=SHARED)
    states = []
    for execution in (SCAN, simulate.execution(walk="vmap"), simulate.execution(devices=2)):
        sim = simulator(algorithm, execution=execution)
        state = told_apart(sim.init(jax.random.key(0)))
        states.append(sim.round(sim.round(state)[0])[0])
    near(states[0].table, states[1].table)
    near(states[0].table, states[2].table)


def test_an_ensembles_logits_are_the_losses_of_its_models(
    build, simulator, population, summed_loss
):
    algorithm = build("ensemble", mixing=mixtures.exponential_weights(), mixture_learning_rate=0.0)
    sim = simulator(algorithm, execution=SCAN)
    start = sim.init(jax.random.key(0))
    state, _ = sim.round(start)
    for client in range(5):
        examples = population.client(client)["train"]
        models = [jax.tree.map(lambda leaf, c=c: leaf[c], start.server.models) for c in (0, 1)]
        sums = [summed_loss(params, examples) for params in models]
        logits = np.asarray(sim.client(state, client)["mixture"])
        np.testing.assert_allclose(
            logits[0] - logits[1], sums[1] - sums[0], rtol=1e-4, atol=FLOAT32
        )


@pytest.mark.parametrize("name", ["floral", "ensemble"])
def test_the_server_prices_adaptors_by_the_examples_they_had(name, build, simulator, population):
    mixing = mixtures.exponential_weights(balance=0.5, settle=9)
    options = {"train": SHARED} if name == "floral" else {"mixture_learning_rate": 0.0}
    sim = simulator(build(name, mixing=mixing, **options), execution=SCAN)
    start = sim.init(jax.random.key(0))
    state, _ = sim.round(told_apart(start) if name == "floral" else start)
    sizes = population.splits["train"].sizes
    had = sum(
        size * np.asarray(sim.evaluate(state, "train")["mixture"][client])
        for client, size in enumerate(sizes)
    )
    np.testing.assert_allclose(
        state.server.inference.prices, 0.5 * (had / sizes.sum() - 0.5), atol=1e-6
    )
    inference = state.server.inference._replace(prices=jnp.array([50.0, 0.0]))
    dearer = state._replace(server=state.server._replace(inference=inference))
    after, _ = sim.round(dearer)
    assert (sim.evaluate(after, "train")["mixture"][:, 1] > 0.99).all()


def test_mixtures_that_follow_no_losses_send_no_prices(build, simulator):
    sim = simulator(build("floral"), execution=SCAN)
    assert sim.init(jax.random.key(0)).server.inference.prices == ()
