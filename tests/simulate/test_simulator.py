import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import adaptors, algorithms, data, losses, metrics, mixtures, models, simulate, uplink
from floral.errors import SpecError
from floral.simulate.machine.execution import chunk_size, evaluated_together


@pytest.fixture(scope="module")
def sim(build, simulator):
    """Stateful FLoRAL, two adaptors, everyone in every round."""
    return simulator(build("floral"))


@pytest.fixture(scope="module")
def trained(sim, after):
    return after(sim, 3)


def test_chunked_whole_and_one_by_one_are_the_same_round(build, simulator, sim, near):
    state = sim.init(jax.random.key(0))
    rounds = {
        "vmap": simulate.execution(walk="vmap"),
        "scan": simulate.execution(walk="scan"),
        "uneven": simulate.execution(walk="chunk", chunk=2),
        "wide": simulate.execution(walk="chunk", chunk=99),
    }
    results = {}
    for name, walk in rounds.items():
        walked = simulator(build("floral"), execution=walk)
        results[name] = walked.round(state)
        assert walked.chunk == {"vmap": 5, "scan": 1, "uneven": 2, "wide": 5}[name]
    for state, sums in results.values():
        near(state._replace(key=()), results["vmap"][0]._replace(key=()))
        near(sums, results["vmap"][1])


def test_padding_a_cohort_to_whole_chunks_changes_nothing_bit_for_bit(build, simulator, sim, same):
    """Five clients in chunks of two, with one empty place or with three."""
    roomy = simulate.Sampler(
        capacity=lambda population: 8,
        sample=lambda key, round_index, clients: (
            jnp.concatenate([clients, jnp.zeros(3, clients.dtype)]),
            jnp.arange(8) < 5,
        ),
    )
    twos = simulate.execution(walk="chunk", chunk=2)
    state = sim.init(jax.random.key(0))
    left = simulator(build("floral"), execution=twos).round(state)
    same(simulator(build("floral"), execution=twos, cohort=roomy).round(state), left)


def test_a_round_moves_nothing_between_host_and_device(sim, trained):
    with jax.transfer_guard("disallow_explicit"):
        state, sums = sim.round(trained)
        state, sums = sim.round(state)
    assert float(sums["cohort"]) == 5


def test_the_transfer_guard_would_notice(sim, trained):
    on_host = trained._replace(round=np.zeros((), np.int32))
    with jax.transfer_guard("disallow_explicit"), pytest.raises(Exception, match="Disallowed"):
        sim.round(on_host)


def test_many_rounds_are_traced_once(network, simulator):
    traces = []

    def loss(outputs, batch):
        traces.append(1)
        return losses.squared_error(outputs, batch)

    local = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    counted = simulator(algorithms.fedavg(network, loss, local))
    state = counted.init(jax.random.key(0))
    state, _ = counted.round(state)
    before = len(traces)
    for _ in range(5):
        state, _ = counted.round(state)
    assert len(traces) == before > 0


def test_a_key_decides_a_run(sim, after, same):
    same(after(sim, 2), after(sim, 2))
    one, other = (jax.tree.leaves(after(sim, 2, seed=seed).server) for seed in (0, 1))
    assert any(np.any(a != b) for a, b in zip(one, other, strict=True))


def test_rounds_draw_apart_and_cohorts_are_without_repetition(build, simulator):
    sampler = simulate.fixed(size=3)
    cohorts = [
        tuple(sampler.sample(jax.random.key(i), 0, jnp.arange(5))[0].tolist()) for i in range(20)
    ]
    assert all(len(set(cohort)) == 3 for cohort in cohorts)
    assert len({frozenset(cohort) for cohort in cohorts}) > 5
    assert set().union(*cohorts) == set(range(5))


def test_examples_come_in_a_fresh_order_every_round_if_shuffled(build, simulator):
    for shuffle in (True, False):
        batching = data.batching(batch_size=2, shuffle=shuffle)
        ordered = simulator(build("fedavg"), batching=batching)
        state = ordered.init(jax.random.key(0))
        later = state._replace(round=state.round + 1)
        ends = [jax.tree.leaves(ordered.round(s)[0].server) for s in (state, later)]
        assert any(np.any(a != b) for a, b in zip(*ends, strict=True)) == shuffle


def test_metrics_are_sums_over_the_cohort(sim):
    _, sums = sim.round(sim.init(jax.random.key(0)))
    assert int(sums["examples"]) == 23
    assert int(sums["cohort"]) == 5


def test_the_first_loss_is_the_starting_models(build, simulator, population, network):
    one_step = simulator(build("fedavg"), batching=data.batching(batch_size=7))
    state = one_step.init(jax.random.key(0))
    examples = population.splits["train"].examples
    outputs, _ = network.apply(state.server.params, (), examples)
    expected = float(losses.squared_error(outputs, examples).sum())
    # A sum of 23 terms of order one.
    assert float(one_step.round(state)[1]["loss_sum"]) == pytest.approx(expected, rel=1e-5)


def test_given_params_replace_the_models_own_start(sim, same):
    params = jax.tree.map(jnp.ones_like, sim.init(jax.random.key(0)).server.base)
    same(sim.init(jax.random.key(0), params).server.base, params)
    with pytest.raises(SpecError, match="params lacks"):
        sim.init(jax.random.key(0), {})


def test_stateful_floral_keeps_four_bytes_an_adaptor_and_nothing_else(sim, trained):
    assert sim.costs.client_state_bytes == 4 * 2
    (logits,) = jax.tree.leaves(trained.table)
    assert logits.shape == (5, 2)


@pytest.mark.parametrize("name", ["fedavg", "floral", "ensemble"])
def test_a_stateless_client_keeps_no_byte(name, build, simulator):
    settings = {} if name == "fedavg" else {"stateful": False}
    stateless = simulator(build(name, **settings))
    assert stateless.costs.client_state_bytes == 0
    assert jax.tree.leaves(stateless.init(jax.random.key(0)).table) == []


def test_costs_are_the_formulas(build, simulator):
    base = (3 * 4 + 4) + (4 * 2 + 2)
    adaptor = (3 + 4 + 4) + (4 + 2 + 2)  # rank one and an additive bias in each layer
    active = 2  # one byte for each adaptor: whether it is in use
    fedavg = simulator(build("fedavg")).costs
    assert fedavg.model_parameters == fedavg.uploaded_parameters == base
    assert fedavg.upload_bytes == 4 * (base + 1)
    assert fedavg.download_bytes == fedavg.server_state_bytes == 4 * base
    floral = simulator(build("floral")).costs
    assert floral.model_parameters == base
    assert floral.uploaded_parameters == base + 2 * adaptor
    assert floral.upload_bytes == 4 * (base + 2 * adaptor + 1 + 2)
    assert floral.download_bytes == 4 * (base + 2 * adaptor) + active
    assert floral.cached_bytes == 0
    ensemble = simulator(build("ensemble")).costs
    assert ensemble.uploaded_parameters == 2 * base
    assert ensemble.upload_bytes == 4 * (2 * base + 2)
    adam = simulator(build("fedavg", server_optimizer=optax.adam(0.1))).costs
    assert adam.server_state_bytes == 4 * (3 * base + 1)  # values, two moments, a count


def test_evaluating_some_clients_gives_the_rows_of_evaluating_all(sim, trained, near):
    everyone = sim.evaluate(trained)
    some = sim.evaluate(trained, clients=[3, 1])
    assert everyone["client"].tolist() == [0, 1, 2, 3, 4]
    assert some["client"].tolist() == [1, 3]
    near(some, {name: values[[1, 3]] for name, values in everyone.items()})


def test_an_evaluation_is_each_clients_own_model_on_its_own_test_data(sim, trained, population):
    report = sim.evaluate(trained)
    for client in range(5):
        test = population.client(client)["test"]
        outputs = sim.predict(trained, client, test["x"])
        loss = float(np.mean(losses.squared_error(outputs, test)))
        assert report["loss"][client] == pytest.approx(loss, rel=1e-5)
        assert report["examples"][client] == len(test["x"])
    np.testing.assert_allclose(
        report["mixture"], jax.nn.softmax(trained.table["client"]["mixture"]), rtol=1e-6
    )


def test_the_size_of_evaluation_batches_is_irrelevant(build, simulator, sim, trained, near):
    small = simulator(build("floral"), evaluation_batch=2)
    near(small.evaluate(trained), sim.evaluate(trained))


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_split_can_be_evaluated(split, sim, trained, population):
    report = sim.evaluate(trained, split)
    assert report["examples"].tolist() == population.splits[split].sizes.tolist()


def test_an_exported_model_predicts_what_the_client_does(sim, trained, network, near):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
    for client in range(5):
        params = sim.export(trained, client)
        near(network.apply(params, (), {"x": x})[0], sim.predict(trained, client, x))


def test_an_ensemble_says_that_it_has_no_model_to_export(build, simulator):
    ensemble = simulator(build("ensemble"))
    with pytest.raises(SpecError, match="mixes outputs, not parameters"):
        ensemble.export(ensemble.init(jax.random.key(0)), 0)


@pytest.fixture(scope="module")
def with_unseen(build, simulator, make_population):
    newcomers = np.array([False, True, False, False, True])
    sampled = simulator(
        build("floral"), make_population(unseen=newcomers), cohort=simulate.fixed(size=2)
    )
    return sampled


def test_unseen_clients_are_never_sampled(with_unseen, after, same):
    start = with_unseen.init(jax.random.key(0))
    state = after(with_unseen, 12, state=start)
    logits, first = (np.asarray(s.table["client"]["mixture"]) for s in (state, start))
    assert np.all(logits[[0, 2, 3]] != first[[0, 2, 3]])
    np.testing.assert_array_equal(logits[[1, 4]], first[[1, 4]])


def test_unseen_clients_personalize_before_they_predict(with_unseen, after):
    state = after(with_unseen, 12)
    mixture = with_unseen.evaluate(state)["mixture"]
    assert np.all(mixture[[1, 4]] != 0.5)
    row = with_unseen.client(state, 4)
    np.testing.assert_allclose(jax.nn.softmax(row["mixture"]), mixture[4], rtol=1e-5)


def test_a_stateless_client_personalizes_before_it_predicts(build, simulator, after, near):
    stateless = simulator(build("floral", stateful=False))
    state = after(stateless, 3)
    report = stateless.evaluate(state)
    assert np.all(report["mixture"] != 0.5)
    near(stateless.evaluate(state, clients=[2])["mixture"][0], report["mixture"][2])


def test_how_much_a_newcomer_personalizes_is_a_setting(build, simulator, after):
    def mixture(**settings):
        personalization = simulate.Personalization(**settings)
        sim = simulator(build("floral", stateful=False), personalization=personalization)
        return sim.evaluate(state, clients=[2])["mixture"][0, 0]

    state = after(simulator(build("floral", stateful=False)), 3)
    one = mixture(batching=data.batching(batch_size=2, steps=1))
    many = mixture(batching=data.batching(batch_size=2, steps=30))
    few = mixture(batching=data.batching(batch_size=2, steps=30), limit=1)
    assert abs(many - 0.5) > abs(one - 0.5) > 0
    assert few != many


def test_server_momentum_and_adam_take_the_mean_update_as_their_gradient(
    build, simulator, after, near
):
    plain = simulator(build("fedavg"))
    for optimizer in (optax.sgd(0.5, momentum=0.9), optax.adam(0.05)):
        state = plain.init(jax.random.key(0))
        params, moments = state.server.params, optimizer.init(state.server.params)
        served = simulator(build("fedavg", server_optimizer=optimizer))
        for _ in range(2):
            moved, _ = plain.round(state)
            update = jax.tree.map(jnp.subtract, state.server.params, moved.server.params)
            deltas, moments = optimizer.update(update, moments, params)
            params = optax.apply_updates(params, deltas)
            state = moved._replace(server=moved.server._replace(params=params))
        near(after(served, 2).server.params, params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simulate.fixed(), "either size or fraction"),
        (lambda: simulate.fixed(size=2, fraction=0.5), "either size or fraction"),
        (lambda: simulate.fixed(size=0), "size must be a whole number"),
        (lambda: simulate.fixed(fraction=1.5), "fraction must lie between"),
        (lambda: simulate.execution(walk="chunk"), "chunk belongs to walk = 'chunk'"),
        (lambda: simulate.execution(walk="scan", chunk=2), "chunk belongs to walk = 'chunk'"),
        (lambda: simulate.execution(walk="sacn"), "did you mean 'scan'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_a_cohort_larger_than_the_population_is_refused(build, simulator):
    with pytest.raises(SpecError, match="6 clients a round, but only 5 clients train"):
        simulator(build("fedavg"), cohort=simulate.fixed(size=6))


def test_unseen_clients_do_not_count_towards_a_cohort(build, simulator, make_population):
    unseen = np.array([False, True, False, False, True])
    with pytest.raises(SpecError, match="only 3 clients train"):
        simulator(build("fedavg"), make_population(unseen=unseen), cohort=simulate.fixed(size=4))


@pytest.mark.parametrize("wrong", [[5], [-1], []])
def test_an_unknown_client_is_refused(wrong, sim, trained):
    with pytest.raises(SpecError, match="ids from 0 to 4"):
        sim.evaluate(trained, clients=wrong)


def test_an_unknown_split_is_refused_with_the_nearest(sim, trained):
    with pytest.raises(SpecError, match="did you mean 'test'"):
        sim.evaluate(trained, "tset")


def test_known_mixtures_without_the_trait_are_refused_before_anything_is_compiled(
    build, simulator, population
):
    with pytest.raises(SpecError, match="need the client trait 'group'"):
        simulator(build("floral", mixing=mixtures.known(trait="group")))


def test_a_fraction_is_rounded_and_never_empty():
    assert [simulate.fixed(fraction=0.5).capacity(n) for n in (1, 4, 7)] == [1, 2, 4]
    assert simulate.fixed(fraction=0.01).capacity(10) == 1
    assert simulate.full().capacity(7) == 7


@pytest.mark.parametrize(
    ("platform", "own_weights", "convolves", "step_bytes", "expected"),
    [
        ("cpu", True, False, 1e6, 1),
        ("cpu", False, True, 1e6, 1),
        ("cpu", False, False, 1e6, 20),
        ("gpu", True, False, 1e6, 300),
        ("gpu", False, True, 1e6, 60),
        ("gpu", True, False, 1e8, 100),  # 100 steps move half of the device's bytes
        ("gpu", True, True, 1e9, 10),
        ("gpu", True, True, 1e12, 1),
    ],
)
def test_automatic_walks_follow_the_device_and_what_clients_do(
    platform, own_weights, convolves, step_bytes, expected
):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 20 * 10**9}

    device = Device()
    device.platform = platform
    chosen = chunk_size(
        simulate.execution(),
        300,
        own_weights=own_weights,
        convolves=convolves,
        step_bytes=step_bytes,
        device=device,
    )
    assert chosen == expected


def test_a_step_of_products_moves_about_what_a_client_adds_to_a_round():
    """So that the automatic walk of an accelerator fits."""
    model = models.mlp(10, hidden=(50,))
    clients = [{"train": {"x": np.ones((8, 100)), "y": np.arange(8)}} for _ in range(2)]
    local = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    algorithm = algorithms.fedavg(model, losses.cross_entropy, local)

    def chunk(size):
        return simulate.make_simulator(
            algorithm,
            model,
            data.from_clients(clients, num_classes=10),
            metrics={},
            batching=data.batching(batch_size=8),
            execution=simulate.execution(walk="chunk", chunk=size, devices=1),
            donate=True,
        )

    alone = chunk(1)
    added = chunk(2).memory().device - alone.memory().device
    assert 0.25 * added < alone.costs.product_bytes < 4 * added


@pytest.mark.parametrize(
    ("backend", "examples", "convolves", "expected"),
    [
        ("cpu", 1, False, 16),
        ("cpu", 10, False, 4),
        ("cpu", 60, False, 1),
        ("cpu", 300, False, 1),
        ("cpu", 10, True, 1),
        ("gpu", 300, True, 16),
    ],
)
def test_evaluations_stay_in_a_cpus_cache(backend, examples, convolves, expected):
    assert evaluated_together(examples, convolves=convolves, backend=backend) == expected


def test_clients_that_convolve_go_one_by_one_on_a_cpu(adapt):
    """Even over a frozen base: side by side they would be several times slower."""
    rng = np.random.default_rng(0)
    clients = [
        {"train": {"x": rng.standard_normal((4, 8, 8, 1)), "y": np.arange(4) % 2}} for _ in range(3)
    ]
    dataset = data.from_clients(clients, num_classes=2)
    sample = simulate.sample_batch(dataset)

    def chunk(model):
        rules = [adaptors.Rule(".*/kernel", adaptors.low_rank(rank=1))]
        if model is convolving:
            rules.insert(0, adaptors.Rule(".*/Conv_0/kernel", adaptors.conv(rank=1)))
        algorithm = algorithms.floral(
            adaptors.adapt(model, rules, sample),
            losses.cross_entropy,
            algorithms.local_solver(optax.sgd, learning_rate=0.1),
            mixtures.softmax(),
            num_adaptors=2,
            train=("mixture",),
        )
        execution = simulate.execution(devices=1)
        return simulate.make_simulator(
            algorithm, model, dataset, metrics={}, execution=execution
        ).chunk

    convolving = models.cnn(2, channels=(2,), kernels=(3,), pools=(2,), hidden=(3,))
    assert (chunk(convolving), chunk(models.mlp(2, hidden=(3,)))) == (1, 3)


def test_metrics_of_nothing_are_nan_and_not_zero():
    metric = metrics.from_per_example(losses.squared_error)
    batch = {"x": jnp.ones((2, 3)), "y": jnp.ones((2, 2)), "mask": jnp.zeros(2, bool)}
    assert np.isnan(metric.compute(metric.from_outputs(jnp.ones((2, 2)), batch)))


def test_clients_that_keep_nothing_but_uplink_state_still_personalize_anew(
    build, network, population
):
    """Error feedback and the like live in the row too; they are not what a client predicts with."""
    remembers = uplink.uplink(client=[optax.with_extra_args_support(optax.trace(0.5))])
    sim = simulate.make_simulator(
        build("floral", stateful=False),
        network,
        population,
        metrics={"loss": metrics.from_per_example(losses.squared_error)},
        uplink=remembers,
    )
    state, _ = sim.round(sim.init(jax.random.key(0)))
    assert sim.costs.client_state_bytes > 0
    assert np.isfinite(sim.evaluate(state)["loss"]).all()


def test_an_algorithm_is_given_batches_to_look_up_wherever_it_is_called(build, network, population):
    def look(batches):
        return jnp.sum(batches.step(0)["x"]) * 0

    plain = build("fedavg")

    def client_update(key, received, client, batches, context):
        upload, client, sums = plain.client_update(key, received, client, batches, context)
        weights = jax.tree.map(lambda weight: weight + look(batches), upload.weight)
        return upload._replace(weight=weights), client, sums

    def personalize(key, server, client, batches, context):
        return {"seen": look(batches)}

    sim = simulate.make_simulator(
        plain._replace(client_update=client_update, personalize=personalize),
        network,
        population,
        metrics={"loss": metrics.from_per_example(losses.squared_error)},
    )
    state, _ = sim.round(sim.init(jax.random.key(0)))
    assert sim.client(state, 0) == {"seen": 0}
