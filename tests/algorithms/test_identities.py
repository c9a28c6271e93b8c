"""What the algorithms become in the limits where they are something simpler."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import adaptors, algorithms, data, losses, mixtures
from floral.adaptors import Bank, merge

RATE = 0.1
ORDERED = data.batching(batch_size=2, shuffle=False)


def _batches(dataset, client, batch_size=2):
    """The client's examples in stored order, the way ``ORDERED`` walks them."""
    examples = dataset.client(client)["train"]
    size = len(examples["x"])
    for start in range(0, size, batch_size):
        yield {name: values[start : start + batch_size] for name, values in examples.items()}


def _gradient_steps(loss, values, batches, rate=RATE):
    """Plain gradient descent, one step a batch; nothing of the library's own."""
    for batch in batches:
        values = jax.tree.map(lambda v, g: v - rate * g, values, loss(values, batch))
    return values


def _mean(trees, weights):
    weights = np.asarray(weights, float) / np.sum(weights)
    return jax.tree.map(lambda *leaves: np.tensordot(weights, leaves, axes=1), *trees)


def _sizes(dataset):
    return [int(size) for size in dataset.splits["train"].sizes]


def test_fedavg_is_the_mean_of_what_clients_get_by_plain_gradient_steps(
    build, simulator, population, slope_of, near
):
    sim = simulator(build("fedavg"), batching=ORDERED)
    state = sim.init(jax.random.key(0))
    expected = jax.tree.map(np.asarray, state.server.params)
    for _ in range(2):
        state, _ = sim.round(state)
        ends = [
            _gradient_steps(slope_of, expected, _batches(population, client))
            for client in range(population.num_clients)
        ]
        expected = _mean(ends, _sizes(population))
    near(state.server.params, jax.tree.map(np.float32, expected))


def test_with_one_client_fedavg_is_centralised_training(
    build, simulator, make_population, network, near
):
    alone = make_population((7,), clusters=(0,))
    local = algorithms.local_solver(lambda rate: optax.sgd(rate), learning_rate=RATE)
    sim = simulator(build("fedavg", local=local), alone, batching=ORDERED)
    state = sim.init(jax.random.key(0))
    params, optimizer = state.server.params, optax.sgd(RATE)

    @jax.jit
    def step(params, moments, batch):
        def loss(params):
            return losses.squared_error(network.apply(params, (), batch)[0], batch).mean()

        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    for _ in range(2):
        state, _ = sim.round(state)
        moments = optimizer.init(params)
        for batch in _batches(alone, 0):
            params, moments = step(params, moments, batch)
    near(state.server.params, params)


def test_one_full_batch_step_a_client_is_one_step_on_the_union(
    build, simulator, population, slope_of, near
):
    sim = simulator(build("fedavg"), batching=data.batching(batch_size=7))
    state = sim.init(jax.random.key(0))
    examples = population.splits["train"].examples
    start = jax.tree.map(np.asarray, state.server.params)
    union = _gradient_steps(slope_of, start, [examples])
    near(sim.round(state)[0].server.params, jax.tree.map(np.float32, union))


def test_floral_with_one_adaptor_is_federated_lora(build, simulator, population, outputs_of, near):
    sim = simulator(build("floral", num_adaptors=1), batching=ORDERED)
    state = sim.init(jax.random.key(0))

    def values_of(server):
        bank = jax.tree.map(lambda factor: factor[0], server.bank)
        return {
            layer: {
                "w": dense["kernel"],
                "bias": dense["bias"],
                **bank[f"params/{layer}/kernel"],
                **bank[f"params/{layer}/bias"],
            }
            for layer, dense in server.base["params"].items()
        }

    @jax.jit
    @jax.grad
    def gradient(values, batch):
        merged = {
            layer: {"kernel": v["w"] + v["a"].T @ v["b"], "bias": v["bias"] + v["offset"]}
            for layer, v in values.items()
        }
        return jnp.mean((outputs_of({"params": merged}, batch["x"]) - batch["y"]) ** 2)

    expected = values_of(state.server)
    for _ in range(3):
        state, _ = sim.round(state)
        ends = [
            _gradient_steps(gradient, expected, _batches(population, client))
            for client in range(population.num_clients)
        ]
        expected = _mean(ends, _sizes(population))
    near(values_of(state.server), expected)
    assert all(np.abs(v["b"]).max() > 0.01 for v in expected.values())  # the adaptor did train


def test_floral_that_trains_its_base_alone_is_fedavg(build, simulator, after, near):
    floral = simulator(build("floral", train=["base"]))
    fedavg = simulator(build("fedavg"))
    state = after(floral, 3)
    # The zero delta is added in another place of the sum: equal to a few units in the last place.
    near(state.server.base, after(fedavg, 3).server.params)


def test_known_clusters_with_a_frozen_base_train_each_adaptor_on_its_cluster_alone(
    build, simulator, population, after, near
):
    algorithm = build("floral", mixing=mixtures.known(), train=["bank"])
    state = after(simulator(algorithm, batching=ORDERED), 3)
    for cluster in (0, 1):
        members = np.flatnonzero(population.traits["cluster"] == cluster)
        alone = data.from_clients(
            [population.client(int(k)) for k in members],
            traits={"cluster": np.full(len(members), cluster)},
        )
        restricted = after(simulator(algorithm, alone, batching=ORDERED), 3)
        near(
            jax.tree.map(lambda leaf: leaf[cluster], state.server.bank),  # noqa: B023
            jax.tree.map(lambda leaf: leaf[cluster], restricted.server.bank),  # noqa: B023
        )
        untouched = jax.tree.map(lambda leaf: leaf[1 - cluster], restricted.server.bank)  # noqa: B023
        start = simulator(algorithm, alone).init(jax.random.key(0)).server.bank
        jax.tree.map(
            np.testing.assert_array_equal,
            untouched,
            jax.tree.map(lambda leaf: leaf[1 - cluster], start),  # noqa: B023
        )


def test_an_ensemble_of_one_is_fedavg(build, simulator, after, near):
    ensemble = after(simulator(build("ensemble", num_models=1)), 3)
    fedavg = after(simulator(build("fedavg")), 3)
    near(jax.tree.map(lambda leaf: leaf[0], ensemble.server.models), fedavg.server.params)


def test_an_ensemble_mixes_outputs(build, simulator, network, after, near):
    sim = simulator(build("ensemble"))
    state = after(sim, 2)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    weights = jax.nn.softmax(state.table["client"]["mixture"][2])
    models = [jax.tree.map(lambda leaf, c=c: leaf[c], state.server.models) for c in (0, 1)]
    outputs = [network.apply(params, (), {"x": x})[0] for params in models]
    own = sim.predict(state, 2, x)
    near(own, weights[0] * outputs[0] + weights[1] * outputs[1])
    assert not np.allclose(outputs[0], outputs[1])
    mixed = jax.tree.map(lambda one, other: weights[0] * one + weights[1] * other, *models)
    assert not np.allclose(own, network.apply(mixed, (), {"x": x})[0])


def test_the_models_of_an_ensemble_start_apart_and_the_first_as_given(build, simulator):
    state = simulator(build("ensemble", num_models=3)).init(jax.random.key(0))
    kernels = np.asarray(state.server.models["params"]["Dense_0"]["kernel"])
    fedavg = simulator(build("fedavg")).init(jax.random.key(0))
    np.testing.assert_array_equal(kernels[0], fedavg.server.params["params"]["Dense_0"]["kernel"])
    assert len(np.unique(kernels[:, 0, 0])) == 3


def _permuted(state, order):
    """The state in which adaptor c is what ``order[c]`` was, for the server and every client."""
    server = state.server
    bank = adaptors.permute(Bank(server.bank, server.fixed), order)
    states = jax.tree.map(lambda leaf: leaf[jnp.array(order)], server.bank_optimizer)
    table = jax.tree.map(lambda logits: logits[:, jnp.array(order)], state.table)
    return state._replace(
        server=server._replace(bank=bank.trained, bank_optimizer=states), table=table
    )


@pytest.fixture(scope="module")
def three_adaptors(build, simulator, after):
    sim = simulator(build("floral", num_adaptors=3, server_optimizer=optax.adam(0.01)))
    return sim, after(sim, 1)


def test_permuting_the_adaptors_permutes_everything_and_changes_no_output(
    three_adaptors, after, near
):
    sim, state = three_adaptors
    order = (2, 0, 1)
    plain = after(sim, 2, state=state)
    permuted = after(sim, 2, state=_permuted(state, order))
    near(permuted.server, _permuted(plain, order).server)
    near(permuted.table, _permuted(plain, order).table)
    x = np.ones((2, 3), np.float32)
    for client in range(5):
        near(sim.predict(permuted, client, x), sim.predict(plain, client, x))


def test_shifting_the_logits_of_every_client_by_a_constant_changes_nothing(
    three_adaptors, after, near
):
    sim, state = three_adaptors
    shift = jnp.arange(5.0)[:, None]  # another one for each client
    moved = state._replace(table=jax.tree.map(lambda logits: logits + shift, state.table))
    plain, shifted = after(sim, 2, state=state), after(sim, 2, state=moved)
    near(shifted.server, plain.server)
    near(shifted.table["client"]["mixture"] - shift, plain.table["client"]["mixture"])


def test_the_gradient_of_the_logits_is_the_weight_times_the_slope_towards_the_adaptor(
    build, simulator, population, network, adapt, near
):
    """∂f/∂θ_c = π_c ⟨∇f(ŵ), w_c - ŵ⟩ (the FLoRAL paper, appendix D.2), from what one step did."""
    full_batch = data.batching(batch_size=7, shuffle=False)
    sim = simulator(
        build("floral", num_adaptors=3, mixture_learning_rate=0.25), batching=full_batch
    )
    state = sim.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    bank = jax.tree.map(
        lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), state.server.bank
    )
    logits = jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)
    state = state._replace(
        server=state.server._replace(bank=bank),
        table=jax.tree.map(lambda _: logits, state.table),
    )
    plan = adapt(network).plan

    def personal(weights):
        return merge(state.server.base, Bank(bank, state.server.fixed), weights, plan)

    def client_loss(params, batch):
        return losses.squared_error(network.apply(params, (), batch)[0], batch).mean()

    moved, _ = sim.round(state)
    steps = (logits - moved.table["client"]["mixture"]) / 0.25
    for client in range(5):
        batch = population.client(client)["train"]
        weights = jax.nn.softmax(logits[client])
        mixed = personal(weights)
        slope = jax.grad(client_loss)(mixed, batch)

        def towards(c, slope=slope, mixed=mixed):
            corner = personal(jax.nn.one_hot(c, 3))
            products = jax.tree.map(
                lambda g, one, other: jnp.sum(g * (one - other)), slope, corner, mixed
            )
            return sum(jax.tree.leaves(products))

        by_formula = jnp.stack([weights[c] * towards(c) for c in range(3)])
        by_autodiff = jax.grad(
            lambda logits: client_loss(personal(jax.nn.softmax(logits)), batch)  # noqa: B023
        )(logits[client])
        # Losses of order ten here: relative to them, sums of a dozen float32 terms.
        near(by_formula, by_autodiff, 1e-4)
        near(steps[client], by_autodiff, 1e-4)
        assert abs(float(by_autodiff.sum())) < 1e-4
