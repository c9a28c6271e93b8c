"""FLoRAL and the Ensemble whose clients are grouped by what their examples are like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import mixtures, simulate, uplink

SCAN = simulate.execution(walk="scan")
MIXING = mixtures.discriminants(size=6, survey_rounds=2, group_rounds=6)
TRAIN = {"floral": {"train": ("base", "bank")}, "ensemble": {"mixture_learning_rate": 0.0}}
CLUSTERS = (0, 1) * 6


@pytest.fixture(scope="module")
def groups(make_population):
    """Twelve clients of two groups, which regress on other targets; the last two are unseen."""
    return make_population((60,) * 12, clusters=CLUSTERS, unseen=[False] * 10 + [True] * 2)


def weights(sim, state, count=12):
    logits = [np.asarray(sim.client(state, client)["mixture"]) for client in range(count)]
    return np.asarray(jax.nn.softmax(jnp.array(logits)))


@pytest.mark.parametrize("name", ["floral", "ensemble"])
@pytest.mark.parametrize("stateful", [True, False])
def test_clients_of_a_group_share_an_adaptor_unseen_ones_too(
    name, stateful, build, simulator, groups, after
):
    algorithm = build(name, mixing=MIXING, stateful=stateful, **TRAIN[name])
    sim = simulator(algorithm, groups, execution=SCAN)
    state = after(sim, 8)
    if stateful:
        np.testing.assert_array_equal(weights(sim, state, 10), 0.5)
    state, _ = sim.round(state)
    assert mixtures.agreement(weights(sim, state), np.array(CLUSTERS)) == 1.0


@pytest.mark.parametrize("name", ["floral", "ensemble"])
def test_mixtures_that_are_trained_start_from_the_groups_that_are_found(
    name, build, simulator, groups, after
):
    sim = simulator(build(name, mixing=MIXING), groups, execution=SCAN)
    state = after(sim, 8)
    np.testing.assert_array_equal(weights(sim, state, 10), 0.5)
    state, _ = sim.round(state)
    assert mixtures.agreement(weights(sim, state, 10), np.array(CLUSTERS[:10])) == 1.0


def test_what_the_server_learns_does_not_depend_on_the_walk(build, simulator, groups, after, near):
    """Which it would if anything but sums over clients reached it."""
    algorithm = build("floral", mixing=MIXING, **TRAIN["floral"])
    learnt = []
    for execution in (SCAN, simulate.execution(walk="vmap"), simulate.execution(devices=2)):
        state = after(simulator(algorithm, groups, execution=execution), 9)
        learnt.append((state.server.inference.clustering, state.table))
    # k-means chooses among starts of equal cost, so the scale is that of sums of squares
    near(learnt[0], learnt[1], 1e-3)
    near(learnt[0], learnt[2], 1e-3)


MIXINGS = {
    "discriminants": MIXING,
    "exponential_weights": mixtures.exponential_weights(every=3, memory=0.5),
    "responsibilities": mixtures.responsibilities(every=3),
}


@pytest.mark.parametrize("stateful", [True, False])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_clients_that_look_at_their_examples_side_by_side_have_no_copies_of_everyones(
    mixing, stateful, build, simulator, groups
):
    algorithm = build("floral", mixing=MIXINGS[mixing], stateful=stateful)
    sim = simulator(algorithm, groups, execution=simulate.execution(walk="vmap"))
    shape = "x".join(map(str, sim.data.examples["train"]["x"].shape))
    state = jax.eval_shape(sim.init, jax.random.key(0))
    program = sim.lower(state).as_text()
    assert f"<{shape}xf32>" in program
    assert f"x{shape}xf32>" not in program


def test_groups_are_found_over_a_frozen_base_and_bank(build, simulator, groups, after):
    algorithm = build("floral", mixing=MIXING, train=("mixture",))
    sim = simulator(algorithm, groups, execution=SCAN)
    state = after(sim, 9)
    assert mixtures.agreement(weights(sim, state, 10), np.array(CLUSTERS[:10])) == 1.0


def test_mixtures_without_groups_tell_nothing(build, simulator):
    algorithm = build("floral")
    sim = simulator(algorithm)
    state = sim.init(jax.random.key(0))
    assert state.server.inference.clustering == ()
    with_groups = simulator(build("floral", mixing=MIXING)).costs
    moments = 6 * 6 + 2 * 6 + 3
    told = moments + 512 * (1 + 2)  # places on a line, their squares and weights of cells
    assert with_groups.sums_bytes == 4 * (told + 1)  # and a weight
    assert sim.costs.sums_bytes == 0
    assert with_groups.uploaded_parameters == sim.costs.uploaded_parameters
    assert with_groups.upload_bytes == sim.costs.upload_bytes
    received = 6 + 6 * 1 + 1 + 2 * 1  # center, directions, scale, centroids
    assert with_groups.download_bytes - sim.costs.download_bytes == 4 * received
    once = 3 * 6 + (1 + 2) * 6 + 2  # tables of inputs, of a constant and two targets; a key
    assert with_groups.cached_bytes - sim.costs.cached_bytes == 4 * once


def test_a_transform_of_updates_leaves_the_sums_of_clients_as_they_are(
    build, simulator, groups, after, same
):
    algorithm = build("floral", mixing=MIXING, **TRAIN["floral"])
    clipped = uplink.uplink(client=[uplink.clip(max_norm=1e-3)])
    plain = after(simulator(algorithm, groups, execution=SCAN), 8)
    small = after(simulator(algorithm, groups, execution=SCAN, uplink=clipped), 8)
    same(small.server.inference.clustering, plain.server.inference.clustering)
    moved = [
        np.concatenate([*map(np.ravel, jax.tree.leaves(s.server.base))]) for s in (plain, small)
    ]
    assert not np.allclose(*moved, rtol=1e-3)
