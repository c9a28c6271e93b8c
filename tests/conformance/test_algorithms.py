"""What every federated algorithm must satisfy; a newly exported one fails here until it is listed.

``CASES`` of ``conftest.py`` says how each algorithm of ``floral.algorithms.__all__`` is built. All
that follows is asked of every case alike.
"""

import functools
import inspect
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import algorithms, losses, simulate, tree
from floral.algorithms import Context, FederatedAlgorithm, Upload
from floral.data import FederatedDataset, batching
from floral.metrics import from_per_example
from floral.simulate.clients import client_context, holdings, own_batches
from floral.simulate.state import gather_rows
from floral.uplink import weighted_mean

BATCHING = batching(batch_size=2)


def _factories():
    """Names of the package that build an algorithm, told by what they are said to return."""
    exported = {name: getattr(algorithms, name) for name in algorithms.__all__}
    return {
        name
        for name, value in exported.items()
        if inspect.isfunction(value)
        and typing.get_type_hints(value).get("return") is FederatedAlgorithm
    }


def test_every_exported_algorithm_has_a_case(cases):
    assert _factories() == {name for name, _ in cases.values()}


LATER = [0, 2, 3]  # the clients of the rounds 2 and 3; everyone's are those before, no one's after


def _places(ids, *, empty=()):
    """A cohort with these clients at its places; no one ever is at those that are empty."""
    ids = np.array(ids)
    filled = ~np.isin(np.arange(len(ids)), empty)
    return simulate.Sampler(
        capacity=lambda population: len(ids),
        sample=lambda key, round_index, clients: (
            jnp.asarray(ids),
            jnp.asarray(filled) & (round_index < 4) & ((round_index < 2) | np.isin(ids, LATER)),
        ),
    )


class Case(typing.NamedTuple):
    """One algorithm, its one-by-one simulator, and its states after no to four rounds."""

    population: Callable[..., FederatedDataset]
    algorithm: FederatedAlgorithm
    simulator: simulate.Simulator
    start: simulate.SimulationState
    half: simulate.SimulationState
    third: simulate.SimulationState
    metrics: dict[str, jax.Array]
    whole: simulate.SimulationState


@pytest.fixture(scope="module")
def case(named, build, simulator, after, make_population, two_classes):
    name, settings = named
    targets = two_classes if settings.get("of_classes") else None
    population = functools.partial(make_population, targets=targets)
    algorithm = build(name, **settings)
    one_by_one = simulate.execution(walk="scan")
    loss = losses.cross_entropy if settings.get("of_classes") else losses.squared_error
    options = {"metrics": {"loss": from_per_example(loss)}, "execution": one_by_one}
    sim = simulator(algorithm, population(), cohort=_places(range(5)), **options)
    start = sim.init(jax.random.key(0))
    half = after(sim, 2, state=start)
    third, metrics = sim.round(half)
    whole = after(sim, 1, state=third)
    return Case(population, algorithm, sim, start, half, third, metrics, whole)


def test_rounds_move_the_server_or_the_rows_of_clients_that_send_nothing(case):
    moved = "server" if case.simulator.costs.upload_bytes else "table"
    start, whole = (jax.tree.leaves(getattr(s, moved)) for s in (case.start, case.whole))
    assert any(np.any(a != b) for a, b in zip(start, whole, strict=True))
    assert int(case.whole.round) == 4


def test_a_round_that_no_one_attends_changes_nothing_but_the_count(case, same):
    idle, metrics = case.simulator.round(case.whole)
    server = case.whole.server
    counted = {"round": server.round + 1} if hasattr(server, "round") else {}
    same(idle, case.whole._replace(round=np.int32(5), server=server._replace(**counted)))
    expected = dict.fromkeys(metrics, 0.0) | {"first_non_finite": -1.0}
    assert {key: float(value) for key, value in metrics.items()} == expected


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


@pytest.fixture(scope="module")
def chunked(case, simulator):
    """Chunks of two: five clients leave the last one half empty, and so do three."""
    chunks = simulate.execution(walk="chunk", chunk=2)
    cohort = _places([3, 4, 0, 1, 2])
    return simulator(case.algorithm, case.population(), cohort=cohort, execution=chunks)


def test_chunks_and_the_order_of_the_cohort_change_nothing_beyond_the_order_of_sums(
    case, chunked, after, near
):
    near(after(chunked, 2, state=case.start)._replace(key=()), case.half._replace(key=()))
    third, metrics = chunked.round(case.half)
    near(third._replace(key=()), case.third._replace(key=()))
    near(metrics, case.metrics)


def test_clients_side_by_side_have_no_copies_of_everyones_examples(case, chunked):
    shape = "x".join(map(str, chunked.data.examples["train"]["x"].shape))
    program = chunked.lower(case.start).as_text()
    assert f"<{shape}xf32>" in program
    assert f"x{shape}xf32>" not in program


def test_a_client_that_is_not_sampled_keeps_its_row_bit_for_bit(case, same):
    others = np.setdiff1d(np.arange(5), LATER)
    same(*(jax.tree.map(lambda leaf: leaf[others], s.table) for s in (case.third, case.half)))


def test_neither_empty_places_nor_longer_padding_of_every_client_change_anything_bit_for_bit(
    case, simulator, after, same
):
    """A sixth client, never sampled and larger than all, makes every grid of batches longer."""
    sizes, clusters = (4, 1, 7, 4, 7), (0, 1, 0, 1, 1)
    unseen = np.array([False] * 5 + [True])
    # The synthetic draws run client by client, so the first five are the same data.
    larger = case.population((*sizes, 13), clusters=(*clusters, 0), unseen=unseen)
    cohort = _places([0, 5, 1, 2, 3, 0, 4], empty=[1, 5])
    sim = simulator(
        case.algorithm, larger, cohort=cohort, execution=simulate.execution(walk="scan")
    )
    half = after(sim, 2)
    third, metrics = sim.round(half)
    for state, expected in ((half, case.half), (third, case.third)):
        same(state._replace(table=jax.tree.map(lambda leaf: leaf[:5], state.table)), expected)
    same(metrics, case.metrics)


def _batches_of(case, client):
    """A client's context and batches, where the run is at half."""
    state, data = case.half, case.simulator.data
    context = client_context(data, client, state.round, state.key, jnp.ones(()))
    held = holdings(data, "train", client[None])
    return context, own_batches(held, 0, client, state.key, BATCHING, max_size=7)


def _prediction(case, client):
    """What a client that finds its row anew predicts."""
    state, algorithm = case.half, case.algorithm
    context, batches = _batches_of(case, client)
    row = algorithm.client_init(state.key, state.server, context.traits)
    row = algorithm.personalize(state.key, state.server, row, batches, context)
    return algorithm.predict(state.server, row, {"x": jnp.ones((3, 3)), "mask": jnp.ones(3, bool)})


class Turns(typing.NamedTuple):
    """The turns of three clients side by side, as the uplink gets them, and their predictions."""

    upload: Upload
    metrics: dict[str, jax.Array]
    context: Context
    predictions: jax.Array


@pytest.fixture(scope="module")
def turns(case, jit):
    state, algorithm = case.half, case.algorithm

    def one(client):
        context, batches = _batches_of(case, client)
        row = gather_rows(state.table, client)["client"]
        received = algorithm.download(state.server, context)
        key = jax.random.fold_in(state.key, client)
        upload, _, metrics = algorithm.client_update(key, received, row, batches, context)
        return Turns(upload, metrics, context, _prediction(case, client))

    return jit(jax.vmap(one))(jnp.array([0, 1, 2]))


def test_the_weight_is_a_prefix_of_the_update_and_says_how_much_evidence_there_is(turns):
    upload, metrics = turns.upload, turns.metrics
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


def test_a_client_of_weight_zero_changes_nothing_even_with_a_nan(case, turns, same):
    upload, context = turns.upload, jax.tree.map(lambda leaf: leaf[0], turns.context)
    silent = jax.tree.map(lambda weight: weight.at[1].set(0.0), upload.weight)
    poisoned = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), upload.update)

    @jax.jit
    def aggregate(update):
        reduced, _ = weighted_mean().reduce(update, silent, ())
        return case.algorithm.aggregate(case.half.server, reduced, context)

    same(aggregate(poisoned), aggregate(upload.update))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(aggregate(poisoned)))


def test_predictions_and_personalization_can_be_mapped_over_clients(case, turns, near, jit):
    assert turns.predictions.shape == (3, 3, 2)
    alone = jit(lambda client: _prediction(case, client))(jnp.array(1))
    near(turns.predictions[1], alone)


def test_a_client_may_train_all_by_itself_and_the_state_stays(case, same):
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(case.whole.server)]
    alone = simulate.personalization(trains="all", steps=4, batch_size=2)
    report = case.simulator.evaluate(case.whole, "train", [2, 4], alone)
    start = case.simulator.evaluate(case.whole, "train", [2, 4], alone._replace(limit=0))
    # A round of its own ends with the server's optimizer, whose moments are of everyone.
    assert np.all(report["loss"] != start["loss"])
    assert report["loss"].sum() < start["loss"].sum()
    same(before, [np.asarray(leaf) for leaf in jax.tree.leaves(case.whole.server)])
