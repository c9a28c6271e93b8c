"""What every federated algorithm must satisfy; a newly exported one fails here until it is listed.

``CASES`` says how each algorithm of ``floral.algorithms.__all__`` is built. All that follows is
asked of every case alike.
"""

import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms, simulate, tree
from floral.algorithms import FederatedAlgorithm, Upload
from floral.data import batching
from floral.simulate.clients import client_context, holdings, on_devices, own_batches
from floral.simulate.shard import make_mesh
from floral.simulate.state import gather_rows
from floral.uplink import weighted_mean

BATCHING = batching(batch_size=2)

CASES = {
    "fedavg": ("fedavg", {}),
    "floral": ("floral", {"server_optimizer": optax.adam(0.01)}),
    "floral, stateless": ("floral", {"stateful": False}),
    "local_adaptor": ("local_adaptor", {}),
    "ensemble": ("ensemble", {}),
    "ensemble, stateless": ("ensemble", {"stateful": False}),
    "partial": ("partial", {"private": ("params/Dense_0/bias",)}),
    "fedrep": ("fedrep", {"private": ("params/Dense_0/bias",), "head_passes": 2}),
    "fedbabu": ("fedbabu", {"head": ("params/Dense_0/bias",)}),
    "fedprox": ("fedprox", {"server_optimizer": optax.adam(0.01)}),
    "ditto": ("ditto", {}),
    "scaffold": ("scaffold", {}),
    "apfl": ("apfl", {}),
    "pfedme": ("pfedme", {"pull": 2.0}),
    "fedsa_lora": ("fedsa_lora", {}),
    "dual_adaptor": ("dual_adaptor", {}),
    "ffa_lora": ("ffa_lora", {}),
    "fedem": ("fedem", {"num_models": 2}),
    "ifca": ("ifca", {"num_models": 2}),
}


def _factories():
    """Names of the package that build an algorithm, told by what they are said to return."""
    exported = {name: getattr(algorithms, name) for name in algorithms.__all__}
    return {
        name
        for name, value in exported.items()
        if inspect.isfunction(value)
        and typing.get_type_hints(value).get("return") is FederatedAlgorithm
    }


def test_every_exported_algorithm_has_a_case():
    assert _factories() == {name for name, _ in CASES.values()}


class Case(typing.NamedTuple):
    """One algorithm, its one-by-one simulator, and its states after no, two and four rounds."""

    algorithm: FederatedAlgorithm
    simulator: simulate.Simulator
    start: simulate.SimulationState
    half: simulate.SimulationState
    whole: simulate.SimulationState


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(", ", "-"))
def case(request, build, simulator, after):
    name, settings = CASES[request.param]
    algorithm = build(name, **settings)
    sim = simulator(algorithm, execution=simulate.execution(walk="scan"))
    start = sim.init(jax.random.key(0))
    half = after(sim, 2, state=start)
    return Case(algorithm, sim, start, half, after(sim, 2, state=half))


def _of_cohort(ids, active=None):
    """Always these clients."""
    ids = np.array(ids)
    active = np.ones(len(ids), bool) if active is None else np.array(active)
    return simulate.Sampler(
        capacity=lambda population: len(ids),
        sample=lambda key, round_index, clients: (jnp.asarray(ids), jnp.asarray(active)),
    )


def test_rounds_move_the_server(case):
    start, whole = (jax.tree.leaves(state.server) for state in (case.start, case.whole))
    assert any(np.any(a != b) for a, b in zip(start, whole, strict=True))
    assert int(case.whole.round) == 4


def test_the_state_holds_nothing_but_arrays_and_no_round_changes_its_shapes(case):
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(case.start))
    structs = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
        for state in (case.start, case.whole)
    ]
    assert structs[0] == structs[1]


def test_half_a_run_saved_and_resumed_is_the_whole_run_bit_for_bit(case, after, same):
    saved = {
        path: np.asarray(jax.random.key_data(leaf) if path == "key" else leaf)
        for path, leaf in tree.paths(case.half).items()
    }
    restored = tree.map_with_path(
        lambda path, _: (
            jax.random.wrap_key_data(jnp.asarray(saved[path]))
            if path == "key"
            else jnp.asarray(saved[path])
        ),
        case.start,
    )
    same(after(case.simulator, 2, state=restored), case.whole)


def test_walking_in_chunks_changes_nothing_beyond_the_order_of_sums(case, simulator, after, near):
    # Five clients in chunks of two: the last chunk is half empty.
    sim = simulator(case.algorithm, execution=simulate.execution(walk="chunk", chunk=2))
    near(after(sim, 2, state=case.start)._replace(key=()), case.half._replace(key=()))


@pytest.fixture(scope="module")
def three(case, simulator):
    """A round of clients 0, 2 and 3: ``(state, metrics)``."""
    scan = simulate.execution(walk="scan")
    return simulator(case.algorithm, cohort=_of_cohort([0, 2, 3]), execution=scan).round(case.half)


def test_the_order_of_the_cohort_is_irrelevant(case, three, simulator, near):
    sim = simulator(case.algorithm, cohort=_of_cohort([3, 0, 2]))
    state, metrics = sim.round(case.half)
    near(state._replace(key=()), three[0]._replace(key=()))
    near(metrics, three[1])


def test_an_empty_place_in_the_cohort_changes_nothing_bit_for_bit(case, three, simulator, same):
    gaps = _of_cohort([0, 1, 2, 3, 0], [1, 0, 1, 1, 0])
    same(
        simulator(case.algorithm, cohort=gaps, execution=simulate.execution(walk="scan")).round(
            case.half
        ),
        three,
    )


def test_a_client_that_is_not_sampled_keeps_its_row_bit_for_bit(case, three, same):
    others = np.array([1, 4])
    same(*(jax.tree.map(lambda leaf: leaf[others], s.table) for s in (three[0], case.half)))


def test_longer_padding_of_every_client_changes_nothing_bit_for_bit(
    case, simulator, make_population, after, same
):
    """A sixth client, never sampled and larger than all, makes every grid of batches longer."""
    sizes, clusters = (4, 1, 7, 4, 7), (0, 1, 0, 1, 1)
    unseen = np.array([False] * 5 + [True])
    # The synthetic draws run client by client, so the first five are the same data.
    larger = make_population((*sizes, 13), clusters=(*clusters, 0), unseen=unseen)
    grown = simulator(case.algorithm, larger, execution=simulate.execution(walk="scan"))
    state = after(grown, 2)
    same(state.server, case.half.server)
    rows = jax.tree.map(lambda leaf: leaf[:5], state.table)
    same(rows, case.half.table)


def _turn(case, population):
    """The uploads of three clients side by side, as the uplink gets them."""
    sim_state = case.half
    data = on_devices(population, make_mesh(jax.devices()[:1]))

    def one(client):
        context = client_context(data, client, sim_state.round, sim_state.key, jnp.ones(()))
        held = holdings(data, "train", client[None])
        batches = own_batches(held, 0, client, sim_state.key, BATCHING, max_size=7)
        row = gather_rows(sim_state.table, client)["client"]
        received = case.algorithm.download(sim_state.server, context)
        key = jax.random.fold_in(sim_state.key, client)
        return case.algorithm.client_update(key, received, row, batches, context), context

    return jax.jit(jax.vmap(one))(jnp.array([0, 1, 2]))


@pytest.fixture(scope="module")
def uploads(case, population):
    (upload, _, metrics), context = _turn(case, population)
    return upload, metrics, jax.tree.map(lambda leaf: leaf[0], context)


def test_the_weight_is_a_prefix_of_the_update_and_says_how_much_evidence_there_is(uploads):
    upload, metrics, _ = uploads
    assert isinstance(upload, Upload)

    def fits(weight, update):
        assert weight.shape == update.shape[: weight.ndim]
        assert np.all(weight >= 0)
        return ()

    tree.prefix_map(fits, upload.weight, upload.update)
    for part, weight in upload.weight.items():
        # A client's weight, over all adaptors, is its number of examples: 4, 1 and 7.
        total = weight.sum(axis=1) if weight.ndim == 2 else weight
        np.testing.assert_allclose(total, [4, 1, 7], rtol=1e-5, err_msg=part)
    assert metrics["examples"].tolist() == [4, 1, 7]


def test_a_client_of_weight_zero_changes_nothing_even_with_a_nan(case, uploads, same):
    upload, _, context = uploads
    silent = jax.tree.map(lambda weight: weight.at[1].set(0.0), upload.weight)
    poisoned = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), upload.update)

    def aggregate(update):
        reduced, _ = weighted_mean().reduce(update, silent, ())
        return case.algorithm.aggregate(case.half.server, reduced, context)

    same(aggregate(poisoned), aggregate(upload.update))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(aggregate(poisoned)))


def test_predictions_and_personalization_can_be_mapped_over_clients(case, population, near):
    state, algorithm = case.half, case.algorithm
    data = on_devices(population, make_mesh(jax.devices()[:1]))
    x = jnp.ones((3, 3))
    batch = {"x": x, "mask": jnp.ones(3, bool)}

    def one(client):
        context = client_context(data, client, state.round, state.key, jnp.ones(()))
        row = algorithm.client_init(state.key, state.server, context.traits)
        held = holdings(data, "train", client[None])
        batches = own_batches(held, 0, client, state.key, BATCHING, max_size=7)
        row = algorithm.personalize(state.key, state.server, row, batches, context)
        return algorithm.predict(state.server, row, batch)

    together = jax.jit(jax.vmap(one))(jnp.arange(3))
    assert together.shape == (3, 3, 2)
    near(together[1], jax.jit(one)(jnp.array(1)))
