"""Which leaves are trained, shared or private, and at which rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import adaptors, algorithms, data, losses, mixtures, models, simulate, tree
from floral.algorithms.toolbox.parts import by_part, roles
from floral.errors import SpecError
from floral.uplink import uplink, weighted_mean

KERNELS = ["params/Dense_0/kernel", "params/Dense_1/kernel"]
BIAS = "params/Dense_0/bias"
BASE = 3 * 4 + 4 + 4 * 2 + 2
A, B, OFFSETS = 3 + 4, 4 + 2, 4 + 2  # of one adaptor: rank one in each kernel, additive biases
VALUES = {
    "base": {"w": jnp.zeros(2)},
    "bank": {"w": {"a": jnp.zeros(2), "b": jnp.zeros(2)}},
    "mixture": jnp.zeros(2),
}


def _true(mask):
    return [path for path, hit in tree.paths(mask).items() if hit]


def test_every_leaf_has_its_role():
    parts = roles(VALUES, ["base", "bank/**/b", "mixture"], ["bank/**/a", "mixture"])
    assert _true(parts.trained) == ["bank/w/b", "base/w", "mixture"]
    assert _true(parts.private) == ["bank/w/a", "mixture"]
    assert _true(parts.shared) == ["bank/w/b", "base/w"]


@pytest.mark.parametrize("setting", ["train", "private"])
def test_a_glob_that_matches_nothing_is_refused_with_the_nearest_path(setting):
    globs = {"train": ["base"], "private": ["mixture"]} | {setting: ["bnak"]}
    with pytest.raises(SpecError) as caught:
        roles(VALUES, **globs)
    assert str(caught.value) == (
        f"{setting}: 'bnak' matches none of the parts base, bank, mixture nor a path below them; "
        "did you mean 'bank'?"
    )


def test_each_part_has_its_own_optimizer_and_state():
    optimizer = by_part({"base": optax.sgd(1.0), "bank": optax.adam(0.1), "mixture": optax.sgd(0)})
    steps, _ = optimizer.update(
        jax.tree.map(lambda leaf: leaf + 2, VALUES), optimizer.init(VALUES), VALUES
    )
    assert steps["base"]["w"].tolist() == [-2, -2]
    np.testing.assert_allclose(steps["bank"]["w"]["a"], -0.1, rtol=1e-5)
    assert steps["mixture"].tolist() == [0, 0]


@pytest.fixture(scope="module")
def turn(build, simulator):
    """One round of a floral with these settings: ``(simulator, before, after)``."""

    def take(**settings):
        sim = simulator(build("floral", **settings))
        before = sim.init(jax.random.key(0))
        # Factors that are all non-zero, so that each has a gradient.
        rng = np.random.default_rng(0)
        bank = jax.tree.map(
            lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32),
            before.server.bank,
        )
        before = before._replace(server=before.server._replace(bank=bank))
        return sim, before, sim.round(before)[0]

    return take


def _moved(before, after):
    """The paths of the server's values that a round has moved."""
    values = [{"base": s.server.base, "bank": s.server.bank} for s in (before, after)]
    ones, others = map(tree.paths, values)
    return sorted(path for path in ones if np.any(ones[path] != others[path]))


def test_training_the_mixture_alone_leaves_the_model_and_uploads_no_array(turn):
    sim, before, after = turn(train=["mixture"])
    assert _moved(before, after) == []
    assert sim.costs.uploaded_parameters == sim.costs.upload_bytes == 0
    assert sim.costs.download_bytes == 2  # which adaptors are active
    assert np.all(after.table["client"]["mixture"] != 0)


def test_training_one_factor_of_each_pair_moves_that_factor_alone(turn):
    sim, before, after = turn(train=["bank/**/b", "mixture"])
    assert _moved(before, after) == [f"bank/{kernel}/b" for kernel in KERNELS]
    assert sim.costs.uploaded_parameters == 2 * B
    assert sim.costs.upload_bytes == 4 * (2 * B + 2)


def test_a_private_factor_stays_in_the_row_while_its_partner_is_shared(turn):
    """Shared A and personal B, as in FedSA-LoRA."""
    sim, before, after = turn(private=["bank/**/b"])
    for kernel in KERNELS:
        assert f"bank/{kernel}/b" not in _moved(before, after)
        assert f"bank/{kernel}/a" in _moved(before, after)
    row = after.table["client"]["bank"][KERNELS[1]]
    assert row["a"] is None
    assert row["b"].shape == (5, 2, 1, 2)
    assert len(np.unique(np.asarray(row["b"])[:, 0, 0, 0])) == 5
    assert sim.costs.client_state_bytes == 4 * (2 + 2 * B)


def test_what_is_not_trained_is_sent_once_and_what_is_private_never(turn):
    sim, _, _ = turn(train=["bank", "mixture"])
    assert sim.costs.cached_bytes == 4 * BASE
    assert sim.costs.uploaded_parameters == 2 * (A + B + OFFSETS)


def test_a_frozen_mixture_stays_where_it_was(turn):
    _, _, after = turn(train=["base", "bank"])
    assert np.all(after.table["client"]["mixture"] == 0)


def test_rates_are_separate(build, simulator, population):
    """One full-batch step: what moved is proportional to its own rate and to no other."""
    one_step = data.batching(batch_size=7, shuffle=False)

    def step(**rates):
        sim = simulator(build("floral", mixing=mixtures.known(), **rates), batching=one_step)
        state = sim.init(jax.random.key(0))
        after, _ = sim.round(state)
        return (
            after.server.base["params"]["Dense_0"]["bias"]
            - state.server.base["params"]["Dense_0"]["bias"],
            after.server.bank[BIAS]["offset"],
        )

    base, bank = step()
    base_again, bank_doubled = step(bank_learning_rate=0.2)
    np.testing.assert_array_equal(base, base_again)
    np.testing.assert_allclose(bank_doubled, 2 * bank, rtol=1e-5)


def test_a_mixture_rate_of_zero_is_a_frozen_mixture_not_the_solvers_rate(turn):
    _, _, after = turn(mixture_learning_rate=0.0)
    assert np.all(after.table["client"]["mixture"] == 0)


@pytest.fixture(scope="module")
def deep(population):
    """FLoRAL with a mixture per layer on a network of two layers."""
    network = models.mlp(2, hidden=(4,))
    batch = simulate.sample_batch(population)
    params, _ = jax.eval_shape(network.init, jax.random.key(0), batch)
    rules = [adaptors.Rule(".*/kernel", adaptors.low_rank(rank=1))]
    model = adaptors.adapted(network, adaptors.make_plan(rules, params), batch)
    local = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    algorithm = algorithms.floral(
        model,
        losses.squared_error,
        local,
        mixtures.softmax(),
        num_adaptors=3,
        mixture_per="layer",
        train=["bank", "mixture"],
    )
    return simulate.make_simulator(algorithm, network, population, metrics={})


def test_a_mixture_per_layer_is_one_vector_for_every_adapted_layer(deep):
    state = deep.init(jax.random.key(0))
    shapes = jax.tree.map(jnp.shape, state.table["client"]["mixture"])
    assert shapes == {"params/Dense_0": (5, 3), "params/Dense_1": (5, 3)}
    assert deep.costs.client_state_bytes == 4 * 3 * 2
    report = deep.evaluate(state)
    assert {path: w.shape for path, w in report["mixture"].items()} == shapes


def test_a_mixture_per_layer_weighs_the_bank_by_path(deep, same):
    state = deep.init(jax.random.key(0))
    logits = {
        "params/Dense_0": jnp.full((5, 3), jnp.array([0.0, 0.0, -jnp.inf])),
        "params/Dense_1": jnp.full((5, 3), jnp.array([-jnp.inf, 0.0, 0.0])),
    }
    rng = np.random.default_rng(0)
    bank = jax.tree.map(
        lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), state.server.bank
    )
    client = {**state.table["client"], "mixture": logits}
    state = state._replace(
        server=state.server._replace(bank=bank), table={**state.table, "client": client}
    )
    after, _ = deep.round(state)
    for layer, silent, spoken in (("Dense_0", 2, 0), ("Dense_1", 0, 2)):
        for name, factor in after.server.bank[f"params/{layer}/kernel"].items():
            before = state.server.bank[f"params/{layer}/kernel"][name]
            same(factor[silent], before[silent])
            assert np.any(factor[spoken] != before[spoken])


def test_settings_that_make_no_floral_are_refused(build):
    with pytest.raises(SpecError, match="num_adaptors must be a whole number"):
        build("floral", num_adaptors=0)
    with pytest.raises(SpecError, match="mixture_per must be one of client, layer"):
        build("floral", mixture_per="network")
    with pytest.raises(SpecError, match="'head' matches none of the parts"):
        build("floral", train=["head"])


def test_a_plan_without_adaptors_is_refused(population, network):
    batch = simulate.sample_batch(population)
    params, _ = jax.eval_shape(network.init, jax.random.key(0), batch)
    empty = adaptors.adapted(network, adaptors.make_plan([], params), batch)
    local = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    with pytest.raises(SpecError, match="at least one adapted leaf"):
        algorithms.floral(empty, losses.squared_error, local, mixtures.softmax())


@pytest.mark.parametrize("stateful", [True, False])
def test_a_newcomer_fits_its_mixture_to_the_frozen_model(
    stateful, build, simulator, after, population, network, adapt, near
):
    """Three steps of gradient descent on the logits, from zero; base and bank stand still."""
    steps = data.batching(batch_size=7, steps=3, shuffle=False)
    algorithm = build("floral", stateful=stateful)
    unseen = np.array([False, False, True, False, False])
    sim = simulator(
        algorithm,
        population._replace(unseen=unseen),
        personalization=simulate.Personalization(steps),
    )
    state = after(sim, 3)
    bank, plan = adaptors.Bank(state.server.bank, state.server.fixed), adapt(network).plan
    batch = population.client(2)["train"]

    @jax.jit
    @jax.grad
    def gradient(logits):
        params = adaptors.merge(state.server.base, bank, jax.nn.softmax(logits), plan)
        return losses.squared_error(network.apply(params, (), batch)[0], batch).mean()

    logits = jnp.zeros(2)
    for _ in range(3):
        logits = logits - 0.1 * gradient(logits)
    near(sim.client(state, 2)["mixture"], logits)


def test_adaptors_are_averaged_by_the_mixtures_that_clients_end_with(build, simulator, near):
    algorithm = build("floral", mixture_learning_rate=1.0)
    reducer = weighted_mean()
    seen = []

    def fold_finish(sums, server):
        reduced = reducer.fold.finish(sums, server)
        jax.debug.callback(lambda weight: seen.append(np.asarray(weight)), reduced.weight["bank"])
        return reduced

    spy = reducer._replace(fold=reducer.fold._replace(finish=fold_finish))
    sim = simulator(algorithm, uplink=uplink(reduce=spy))
    state, _ = sim.round(sim.init(jax.random.key(0)))
    jax.effects_barrier()
    ended = jax.nn.softmax(state.table["client"]["mixture"])
    near(seen[0], np.array([4.0, 1, 7, 4, 7]) @ np.asarray(ended))
    assert abs(seen[0][0] - seen[0][1]) > 1e-3  # no longer the uniform start


def test_a_factor_is_preconditioned_by_its_frozen_partner(
    build, simulator, population, slope_of, near
):
    """FFA-LoRA's b alone, one full-batch step on one client: b moves by (aᵀ a + ε)⁻¹ aᵀ G."""
    algorithm = build("floral", num_adaptors=1, train=["bank/**/b"], precondition_epsilon=0.5)
    alone = data.from_clients([population.client(2)], traits={"cluster": np.array([0])})
    sim = simulator(algorithm, alone, batching=data.batching(batch_size=7, shuffle=False))
    before = sim.init(jax.random.key(0))
    after, _ = sim.round(before)
    slope = slope_of(before.server.base, alone.client(0)["train"])["params"]
    for layer, kernel in zip(("Dense_0", "Dense_1"), KERNELS, strict=True):
        a = np.asarray(before.server.bank[kernel]["a"][0])
        step = a @ slope[layer]["kernel"] / (np.square(a).sum() + 0.5)
        near(after.server.bank[kernel]["b"][0], np.float32(-0.1 * step))
