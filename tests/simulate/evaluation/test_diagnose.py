"""What an evaluation asks of clients beside their predictions, by the merged model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import adaptors, data, losses, mixtures, simulate
from floral.errors import SpecError

SIZES = np.array([4, 1, 7, 4, 7])
CLUSTERS = np.array([0, 1, 0, 1, 1])
MEMBERS = ([0, 2], [1, 3, 4])
EVERYONE = range(5)


def told_apart(state, seed=1):
    """A state whose adaptors and mixtures differ: those of a start are alike."""
    keys = iter(jax.random.split(jax.random.key(seed), 100))

    def moved(leaf):
        return leaf + 0.5 * jax.random.normal(next(keys), leaf.shape)

    server = state.server._replace(bank=jax.tree.map(moved, state.server.bank))
    return state._replace(server=server, table=jax.tree.map(moved, state.table))


@pytest.fixture(scope="module")
def plan(adapt, network):
    return adapt(network).plan


@pytest.fixture(scope="module")
def asked(build, simulator):
    """A simulator, a state in which everything differs, and what five clients say of it."""
    sim = simulator(build("floral"))
    state = told_apart(sim.init(jax.random.key(0)))
    return sim, state, ask(sim, state)


def ask(sim, state, clients=EVERYONE, **settings):
    settings = {"examples": 8, "num_groups": 2} | settings
    return sim.diagnose(state, clients, CLUSTERS[list(clients)], **settings)


def loss_by_hand(network, plan, server, base, bank, weights, examples):
    params = adaptors.merge(base, adaptors.Bank(bank, server.fixed), weights, plan)
    outputs, _ = network.apply(params, server.stats, examples)
    return jnp.mean(losses.squared_error(outputs, examples))


def weights_of(sim, state):
    """[5, C]"""
    return np.asarray(sim.evaluate(state, "test")["mixture"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_losses_are_those_of_the_merged_models(split, asked, network, population, plan):
    sim, state, _ = asked
    told, own = ask(sim, state, split=split), weights_of(sim, state)
    server = state.server
    for client in EVERYONE:
        examples = population.client(client)[split]
        rows = [own[client], *np.eye(2)]
        expected = [
            loss_by_hand(network, plan, server, server.base, server.bank, jnp.array(w), examples)
            for w in np.asarray(rows, np.float32)
        ]
        found = [told["loss"][client], *told["loss_alone"][client]]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert told["examples"][client] == len(examples["x"])


def test_a_client_shows_some_examples_evenly_spaced(asked, network, population, plan):
    sim, state, _ = asked
    told, own, server = ask(sim, state, examples=2), weights_of(sim, state), state.server
    for client, rows in ((0, [0, 2]), (1, [0]), (2, [0, 3])):
        examples = {k: v[rows] for k, v in population.client(client)["train"].items()}
        expected = loss_by_hand(
            network, plan, server, server.base, server.bank, jnp.array(own[client]), examples
        )
        np.testing.assert_allclose(told["loss"][client], expected, rtol=1e-5)
    np.testing.assert_array_equal(told["examples"], np.minimum(SIZES, 2))


def gradients_by_hand(network, plan, server, own, population):
    """Each client's gradients on all its training examples: [5, P] of the base, [5, C, Q]."""
    of_base, of_bank = [], []
    for client in EVERYONE:
        base, bank = jax.grad(
            lambda base, bank, client=client: loss_by_hand(
                network,
                plan,
                server,
                base,
                bank,
                jnp.array(own[client]),
                population.client(client)["train"],
            ),
            argnums=(0, 1),
        )(server.base, server.bank)
        of_base.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(base)]))
        leaves = [np.reshape(leaf, (2, -1)) for leaf in jax.tree.leaves(bank)]
        of_bank.append(np.concatenate(leaves, axis=1))
    return np.array(of_base, float), np.array(of_bank, float)


def unbiased(values, weights):
    share = weights / weights.sum()
    away = np.square(values - share @ values).sum(axis=1)
    return share @ away / (1 - np.square(share).sum())


def test_variances_are_those_of_the_clients_gradients(asked, network, population, plan):
    sim, state, told = asked
    own = weights_of(sim, state)
    base, bank = gradients_by_hand(network, plan, state.server, own, population)
    found = told["variances"]
    assert float(found.base) == pytest.approx(unbiased(base, SIZES), rel=1e-4)
    parts = [SIZES[own].sum() for own in MEMBERS]
    within = [unbiased(base[own], SIZES[own]) for own in MEMBERS]
    assert float(found.within) == pytest.approx(np.average(within, weights=parts), rel=1e-4)
    expected = [unbiased(bank[:, c], SIZES * own[:, c]) for c in range(2)]
    np.testing.assert_allclose(found.bank, expected, rtol=1e-4)


def test_two_devices_say_the_same_as_one(asked, build, simulator):
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    _, _, one = asked
    sim = simulator(build("floral"), execution=simulate.execution(devices=2))
    two = ask(sim, told_apart(sim.init(jax.random.key(0))))
    for found, expected in zip(jax.tree.leaves(two), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("where", ["population", "rows"])
def test_where_data_and_rows_live_changes_nothing(where, asked, build, simulator):
    _, state, expected = asked
    there = simulator(build("floral"), execution=simulate.execution(**{where: "host"}))
    start = there.init(jax.random.key(0))
    table = jax.tree.map(np.asarray, state.table)
    moved = start._replace(
        server=state.server, table={**start.table, **table} if where == "rows" else state.table
    )
    for found, one in zip(
        jax.tree.leaves(ask(there, moved)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, one, rtol=1e-5)


def test_asking_changes_no_state_and_is_the_same_each_time(build, simulator, same):
    sim = simulator(build("floral"))
    state = told_apart(sim.init(jax.random.key(0)))
    before = jax.tree.map(jnp.copy, state)
    first = ask(sim, state, examples=2)
    same(state, before)
    same(ask(sim, state, examples=2), first)


def test_clients_without_a_row_find_one_first(build, simulator):
    sim = simulator(build("floral", stateful=False))
    state = sim.init(jax.random.key(0))
    state = state._replace(server=told_apart(state).server)
    told, report = ask(sim, state, split="test"), sim.evaluate(state, "test")
    np.testing.assert_allclose(told["loss"], report["loss"], rtol=1e-5)


def test_a_base_that_no_one_averages_has_no_variance(build, simulator):
    sim = simulator(build("floral", train=["bank"]))
    found = ask(sim, told_apart(sim.init(jax.random.key(0))))["variances"]
    assert np.isnan(found.base)
    assert np.isnan(found.within)
    assert np.all(found.bank > 0)
    sim = simulator(build("floral", train=["mixture"]))
    assert np.isnan(ask(sim, sim.init(jax.random.key(0)))["variances"].bank).all()


def test_each_layer_may_have_mixtures_of_its_own(build, simulator):
    sim = simulator(build("floral", mixture_per="layer"))
    whole = simulator(build("floral"))
    one, other = (ask(s, s.init(jax.random.key(0)))["variances"] for s in (sim, whole))
    np.testing.assert_allclose(one.bank, other.bank, rtol=1e-5)  # all uniform at the start


def test_what_cannot_be_asked_is_refused(build, simulator, make_population):
    sim = simulator(build("fedavg"))
    with pytest.raises(SpecError, match="no bank"):
        ask(sim, sim.init(jax.random.key(0)))
    for groups in ([0, 1, 0, 1, 2], [0, 1]):
        sim = simulator(build("floral"))
        with pytest.raises(SpecError, match="groups: expected one of 0 to 1 for each of 5 clients"):
            sim.diagnose(sim.init(jax.random.key(0)), EVERYONE, groups, num_groups=2)
    unseen = make_population(unseen=[False, False, False, False, True])
    sim = simulator(build("floral"), dataset=unseen)
    with pytest.raises(SpecError, match="are asked apart"):
        ask(sim, sim.init(jax.random.key(0)))
    for one in ([0, 1, 2, 3], [4]):
        assert len(ask(sim, sim.init(jax.random.key(0)), clients=one)["loss"]) == len(one)


def test_with_known_clusters_and_their_optimum_the_base_varies_within_clusters_alone():
    """One adaptor of full shape a cluster: at each cluster's own optimum the gradients of its
    clients cancel, so that what the base's gradients vary by is what the adaptors' do; averaged
    over K clients it is 1/C of what is left over K/C."""
    num_clusters, num_clients, n = 4, 16, 5
    rng = np.random.default_rng(0)
    offsets = rng.standard_normal((num_clusters, 2, 1)).astype(np.float32)
    cluster = np.arange(num_clients) % num_clusters
    clients = []
    for k in cluster:
        x = rng.standard_normal((n, 2))
        clients.append({"train": {"x": x, "y": x @ offsets[k] + rng.standard_normal((n, 1))}})
    population = data.from_clients(clients, traits={"cluster": cluster})
    for c in range(num_clusters):  # the optimum of a cluster's pooled examples
        own = [clients[k]["train"] for k in np.flatnonzero(cluster == c)]
        x, y = (np.concatenate([part[field] for part in own]) for field in ("x", "y"))
        offsets[c] = np.linalg.lstsq(x, y, rcond=None)[0]
    found = _linear_variances(population, offsets, cluster)
    shares = np.full(num_clients, 1 / num_clients)
    aggregated = found.base * np.square(shares).sum()
    of_adaptors = np.mean(found.bank) * num_clusters / num_clients
    # Within clusters deviations are from a mean of zero, so that the two estimates differ by their
    # degrees of freedom alone: K - 1 for the base's, K - C for the adaptors'.
    freedom = (num_clients - num_clusters) / (num_clients - 1)
    assert aggregated / of_adaptors == pytest.approx(freedom / num_clusters, rel=1e-4)
    np.testing.assert_allclose(found.within, np.mean(found.bank), rtol=1e-4)


def _linear_variances(population, offsets, cluster):
    import optax

    from floral import algorithms, metrics, models

    model = models.from_function(lambda key, x: {"w": jnp.zeros((2, 1))}, lambda p, x: x @ p["w"])
    rules = [adaptors.Rule("w", adaptors.additive())]
    algorithm = algorithms.floral(
        adaptors.adapt(model, rules, simulate.sample_batch(population)),
        losses.squared_error,
        algorithms.local_solver(optax.sgd, learning_rate=0.1),
        mixtures.known(),
        num_adaptors=len(offsets),
    )
    sim = simulate.make_simulator(
        algorithm,
        model,
        population,
        metrics={"loss": metrics.from_per_example(losses.squared_error)},
    )
    state = sim.init(jax.random.key(0))
    bank = {"w": {"offset": jnp.asarray(offsets)}}
    state = state._replace(server=state.server._replace(bank=bank))
    clients = np.arange(len(cluster))
    return sim.diagnose(state, clients, cluster, num_groups=len(offsets))["variances"]


@pytest.mark.parametrize("train", [("mixture",), ("base", "mixture"), ("bank", "mixture")])
def test_what_clients_do_not_train_together_has_no_variance(train, build, simulator):
    sim = simulator(build("floral", train=train))
    variances = ask(sim, told_apart(sim.init(jax.random.key(0))))["variances"]
    assert variances.bank.shape == (2,)
    assert np.isfinite(variances.bank).all() == ("bank" in train)
    assert np.isfinite(variances.base) == np.isfinite(variances.within) == ("base" in train)
