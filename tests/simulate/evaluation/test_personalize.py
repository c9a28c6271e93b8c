"""Clients that join: by how many examples and steps, and by training what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import data, mixtures, simulate, tree
from floral.errors import SpecError

STEPS = simulate.personalization(steps=3, batch_size=2)
ALL = STEPS._replace(trains="all")
GROUPS = mixtures.discriminants(size=8, survey_rounds=1, group_rounds=1)
LOSSES = mixtures.exponential_weights()


def values(tree_):
    """Every leaf as it is now, also of a table that lives on the host."""
    return {
        path: np.array(jax.random.key_data(leaf) if path == "key" else leaf)
        for path, leaf in tree.paths(tree_).items()
    }


def test_fedavg_trained_whole_is_fedavg_with_fine_tuning(build, simulator, after, near):
    """Which FedBABU without a head is."""
    sim = simulator(build("fedavg"), personalization=ALL)
    tuned = simulator(build("fedbabu", head=()), personalization=STEPS)
    state = after(sim, 2)
    near(sim.evaluate(state), tuned.evaluate(state))
    near(sim.export(state, 2), tuned.export(state, 2))
    untuned = simulator(build("fedavg"))
    assert np.all(sim.evaluate(state, "train")["loss"] < untuned.evaluate(state, "train")["loss"])


@pytest.mark.parametrize("name", ["floral", "ensemble"])
@pytest.mark.parametrize("mixing", [None, LOSSES], ids=["softmax", "losses"])
def test_training_all_is_a_round_of_one_client(name, mixing, build, simulator, near):
    """In the stored order, so that the round shows the same batches."""
    algorithm = build(name, stateful=False, mixing=mixing)
    batching = data.batching(batch_size=2, steps=3, shuffle=False)
    own = simulate.Personalization(batching)
    sim = simulator(
        algorithm,
        cohort=simulate.scheduled([[2]]),
        batching=batching,
        personalization=own,
    )
    state = sim.init(jax.random.key(0))
    trained, _ = sim.round(state)
    by_itself = sim.evaluate(state, "test", [2], own._replace(trains="all"))
    near(by_itself, sim.evaluate(trained, "test", [2]))
    assert np.all(by_itself["loss"] != sim.evaluate(state, "test", [2])["loss"])


@pytest.mark.parametrize("home", ["device", "host"])
def test_nothing_of_it_reaches_the_state(home, build, simulator, after, same):
    execution = simulate.execution(devices=1, rows=home, population=home)
    sim = simulator(build("floral"), execution=execution)
    state = after(sim, 2)
    before, report = values(state), sim.evaluate(state)
    joined = sim.evaluate(state, personalization=ALL)
    assert np.all(joined["loss"] != report["loss"])
    same(values(state), before)
    same(sim.evaluate(state), report)
    plain = simulator(build("floral"))
    same(joined, plain.evaluate(after(plain, 2), personalization=ALL))


def test_a_client_that_keeps_its_mixture_joins_like_one_that_keeps_none(
    build, simulator, after, near
):
    keeps, forgets = (
        simulator(build("floral", stateful=stateful), personalization=STEPS)
        for stateful in (True, False)
    )
    state = after(keeps, 3)
    joined = keeps.evaluate(state, personalization=STEPS)
    near(
        joined, forgets.evaluate(after(forgets, 0)._replace(server=state.server, round=state.round))
    )
    assert np.all(joined["mixture"] != keeps.evaluate(state)["mixture"])


def test_unseen_clients_join_by_what_the_simulator_was_told(
    build, simulator, make_population, after, same
):
    dataset = make_population(unseen=[False, True, False, False, True])
    for personalization in (STEPS, ALL):
        sim = simulator(build("floral"), dataset, personalization=personalization)
        state = after(sim, 2)
        unseen = sim.evaluate(state, clients=[1, 4])
        same(unseen, sim.evaluate(state, clients=[1, 4], personalization=personalization))
        test = dataset.client(4)["test"]
        wrong = np.asarray(sim.predict(state, 4, test["x"])) - test["y"]
        np.testing.assert_allclose(unseen["loss"][1], np.mean(wrong**2), rtol=1e-4)


@pytest.mark.parametrize("mixing", [None, LOSSES, GROUPS], ids=["softmax", "losses", "groups"])
def test_without_steps_or_examples_a_client_predicts_as_it_starts(
    mixing, build, simulator, after, near
):
    sim = simulator(build("floral", mixing=mixing))
    state = after(sim, 3)
    no_example = simulate.personalization(examples=0)
    no_step = simulate.personalization(trains="all", steps=0)
    start = sim.evaluate(state, personalization=no_example)
    np.testing.assert_array_equal(start["mixture"], 0.5)
    assert np.isfinite(start["loss"]).all()
    near(sim.evaluate(state, personalization=no_step), start)


def test_what_lies_beyond_the_examples_it_may_use_is_never_read(
    build, simulator, population, after, same
):
    two = simulate.personalization(trains="all", steps=4, batch_size=2, examples=2)
    state = after(simulator(build("floral")), 2)
    clients = [population.client(k) for k in range(population.num_clients)]
    cut = [
        {**splits, "train": {name: array[:2] for name, array in splits["train"].items()}}
        for splits in clients
    ]
    same(
        *(
            simulator(build("floral"), data.from_clients(given, traits=population.traits)).evaluate(
                state, personalization=two
            )
            for given in (clients, cut)
        )
    )


def test_a_newcomer_is_told_how_many_examples_it_uses_and_starts_and_shuffles_by_two_keys(
    build, simulator, make_population, after
):
    """An algorithm whose row is what it was given."""
    five = simulate.personalization(steps=3, batch_size=2, examples=5)

    def start(key, server, traits):
        rows = jnp.zeros((3, 2), jnp.int32)
        return {"key": jax.random.key_data(key), "rows": rows, "examples": jnp.zeros(())}

    def given(key, server, client, batches, context):
        return {**client, "rows": batches.rows, "examples": context.num_examples}

    algorithm = build("fedavg")._replace(client_init=start, personalize=given)
    dataset = make_population(unseen=[False, False, True, False, False])
    sim = simulator(algorithm, dataset, personalization=five)
    row = sim.client(sim.init(jax.random.key(0)), 2)
    assert row["examples"] == 5
    key, first = jax.random.wrap_key_data(row["key"]), dataset.splits["train"].offsets[2]
    ids, starts, sizes = (jnp.array([number]) for number in (2, first, 5))
    as_started, _ = data.schedule(ids, starts, sizes, key, five.batching, max_size=7)
    assert sorted(row["rows"].ravel()[:5]) == [*range(first, first + 5)]
    assert as_started.tolist() != [row["rows"].tolist()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trains": "everything"}, "trains must be one of own, all"),
        ({"steps": -1}, "steps must not be negative, got -1"),
        ({"steps": 1.5}, "steps must be"),
        ({"examples": -1}, "examples must not be negative, got -1"),
        ({"examples": True}, "examples must be"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(SpecError, match=message):
        simulate.personalization(**settings)
