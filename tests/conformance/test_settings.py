"""Every setting of every factory does something: two values of it give two programs or two data.

A setting that is read and never used is a silent wrong number. Algorithms and mixings are compared
by what they trace to, which compiles nothing; partitions and shifts by what they deal.
"""

import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms, data, mixtures, simulate
from floral.algorithms import FederatedAlgorithm
from floral.errors import SpecError
from floral.messages import Context, Reduced
from floral.mixtures import Mixing

HEAD, BIAS = "params/Dense_1", "params/Dense_1/bias"

ALGORITHMS = {
    "apfl": {"alpha": (0.5, 0.7), "alpha_learning_rate": (None, 0.3)},
    "ditto": {"pull": (0.1, 0.2), "personal_learning_rate": (None, 0.3)},
    "dual_adaptor": {"own_learning_rate": (None, 0.3)},
    "ensemble": {
        "num_models": (2, 3),
        "mixture_learning_rate": (None, 0.3),
        "stateful": (True, False),
    },
    "fedavg": {},
    "fedavg_finetuned": {
        "tuned": (("**",), (HEAD,)),
        "tuning_steps": (None, 1),
        "tuning_learning_rate": (None, 0.3),
    },
    "fedbabu": {
        "head": ((HEAD,), (BIAS,)),
        "tuned": (("**",), (HEAD,)),
        "tuning_steps": (None, 1),
        "tuning_learning_rate": (None, 0.3),
    },
    "fedbn": {"norms": ((HEAD,), (BIAS,))},
    "fedem": {"num_models": (2, 3)},
    "fedper": {"head": ((HEAD,), (BIAS,))},
    "fedprox": {"mu": (0.01, 0.02)},
    "fedrep": {"private": ((HEAD,), (BIAS,)), "head_passes": (1, 2)},
    "fedsa_lora": {"train": (("bank",), ("bank/**/b",)), "bank_learning_rate": (None, 0.3)},
    "ffa_lora": {"train": (("bank/**/b",), ("bank/**/a",)), "bank_learning_rate": (None, 0.3)},
    "floral": {
        "num_adaptors": (2, 3),
        "train": (("base", "bank", "mixture"), ("bank", "mixture")),
        "private": (("mixture",), ("mixture", "bank/**/b")),
        "stateful": (True, False),
        "mixture_per": ("client", "layer"),
        "bank_learning_rate": (None, 0.3),
        "mixture_learning_rate": (None, 0.3),
        "precondition_epsilon": (None, 0.1),
        "mu": (0.0, 0.1),
        "bank_server_optimizer": (None, optax.sgd(0.5)),
        "center_adaptors": (False, True),
    },
    "ifca": {"num_models": (2, 3)},
    "knn_per": {"num_neighbors": (10, 1), "scale": (1.0, 2.0), "local_weight": (None, 0.3)},
    "local_adaptor": {"bank_learning_rate": (None, 0.3), "precondition_epsilon": (None, 0.1)},
    "local_only": {},
    "partial": {"private": ((HEAD,), (BIAS,))},
    "pfedme": {"pull": (2.0, 3.0), "inner_steps": (5, 4), "personal_learning_rate": (None, 0.3)},
    "scaffold": {},
}
"""By factory and setting two values; ``server_optimizer`` is asked of all but one."""
SENDS_NOTHING = {"local_only"}
RATE_IN_FORMULA = {"pfedme", "scaffold"}
REQUIRED = {
    "fedbabu": {"head": (HEAD,)},
    "fedbn": {"norms": (HEAD,)},
    "fedper": {"head": (HEAD,)},
    "fedrep": {"private": (HEAD,)},
    "partial": {"private": (HEAD,)},
    "pfedme": {"pull": 2.0},
}
"""What a factory needs to be built at all, or to be built with the values above."""

MIXINGS = {
    "discriminants": {
        "size": (16, 32),
        "survey_rounds": (2, 3),
        "group_rounds": (2, 3),
        "cells": (8, 16),
        "starts": (2, 3),
        "find_count": (False, True),
    },
    "exponential_weights": {
        "rate": (1.0, 2.0),
        "every": (1, 2),
        "anneal": (0, 5),
        "memory": (0.0, 0.5),
        "random_rounds": (0, 2),
        "balance": (0.0, 0.5),
        "settle": (0, 9),
    },
    "known": {"trait": ("cluster", "site"), "floor": (0.0, 0.01), "renormalize": (True, False)},
    "responsibilities": {"every": (1, 2), "steps": (1, 2)},
    "softmax": {
        "temperature": (1.0, 2.0),
        "noise": (0.0, 1.0),
        "floor": (0.0, 0.01),
        "renormalize": (True, False),
        "plain_shares": (False, True),
    },
    "top_k": {"k": (1, 2), "temperature": (1.0, 2.0)},
}
BESIDE = {
    ("exponential_weights", "balance"): {"settle": 9},
    ("exponential_weights", "memory"): {"random_rounds": 2},
    ("known", "renormalize"): {"floor": 0.01},
    ("softmax", "renormalize"): {"floor": 0.01},
    ("softmax", "plain_shares"): {"temperature": 2.0},
    ("top_k", "temperature"): {"k": 2},
}
"""What else must be set for a setting to say anything."""

PARTITIONS = {
    "blocks": {"clients": (3, 4)},
    "dirichlet": {"clients": (3, 4), "alpha": (0.5, 5.0), "min_examples": (1, 15)},
    "iid": {"clients": (3, 4)},
    "label_clusters": {"clients": (4, 6), "clusters": (2, 4)},
    "natural": {"field": ("writer", "site")},
    "quantity_skew": {"clients": (3, 4), "alpha": (0.5, 5.0), "min_examples": (1, 15)},
    "shards": {"clients": (3, 4), "shards_per_client": (1, 2)},
}
SHIFTS = {
    "label_shift": {"clusters": (2, 4), "sizes": (None, (1, 1, 1, 3))},
    "noise": {"std": (0.1, 0.2), "clusters": (None, 2)},
    "none": {},
    "permute": {"clusters": (2, 4), "sizes": (None, (1, 1, 1, 3))},
    "rotate": {"clusters": (2, 4), "sizes": (None, (1, 1, 1, 3)), "keep_turns": (False, True)},
}


def _settings(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _returning(module, result):
    """The public factories of a module that return this type, and their settings."""
    factories = {name: getattr(module, name) for name in module.__all__}
    return {
        name: _settings(value)
        for name, value in factories.items()
        if inspect.isfunction(value) and typing.get_type_hints(value).get("return") is result
    }


def _rows(table):
    return [
        pytest.param(name, setting, values, id=f"{name}-{setting}")
        for name, settings in table.items()
        for setting, values in settings.items()
    ]


def test_every_setting_of_every_factory_is_asked_about():
    listed = {name: set(settings) | {"server_optimizer"} for name, settings in ALGORITHMS.items()}
    listed |= {name: set(ALGORITHMS[name]) for name in SENDS_NOTHING}
    assert _returning(algorithms, FederatedAlgorithm) == listed
    # Mixings may be refined by others: per_layer takes one and has no settings.
    given = {name: names for name, names in _returning(mixtures, Mixing).items() if names}
    assert given == {name: set(settings) for name, settings in MIXINGS.items()}
    for table, kind in ((PARTITIONS, data.Partitioner), (SHIFTS, data.Shift)):
        listed = {name: set(settings) for name, settings in table.items()}
        found = _returning(data, kind)
        found.pop("saved", None)  # reads a file, whose path is its only setting
        assert found == listed


@pytest.fixture(scope="module")
def program(population, network):
    """``(algorithm) -> text``: everything that it traces to, with the constants within."""
    batch = simulate.sample_batch(population)
    batches = {name: jnp.zeros((3, *leaf.shape), leaf.dtype) for name, leaf in batch.items()}
    batches["mask"] = jnp.ones((3, len(batch["mask"])), bool)
    traits = {"cluster": jnp.int32(0), "site": jnp.int32(1)}
    context = Context(jnp.int32(0), jax.random.key(1), jnp.ones(()), jnp.ones(()), traits)

    def text(algorithm, of_classes=False):
        shown = batches
        if of_classes:
            shown = batches | {"y": jnp.zeros((3, len(batch["mask"])), jnp.int32)}

        def everything(key):
            params, stats = network.init(key, batch)
            server = algorithm.init(key, params, stats)
            row = algorithm.client_init(key, server, traits)
            received = algorithm.download(server, context)
            given = data.as_batches(shown)
            upload, after, metrics = algorithm.client_update(key, received, row, given, context)
            reduced = Reduced(*upload)
            moved = algorithm.aggregate(server, reduced, context)
            own = algorithm.personalize(key, moved, row, given, context)
            return moved, after, metrics, algorithm.predict(moved, own, batch)

        traced = jax.make_jaxpr(everything)(jax.random.key(0))
        constants = [np.asarray(value).tobytes() for value in traced.consts]
        return f"{traced.jaxpr} {traced.out_avals} {constants}"

    return text


@pytest.mark.parametrize(("name", "setting", "values"), _rows(ALGORITHMS))
def test_a_setting_of_an_algorithm_changes_its_program(build, program, name, setting, values):
    of_classes = name == "knn_per"
    required = REQUIRED.get(name, {})
    one, other = (
        program(
            build(name, of_classes=of_classes, **required | {setting: value}),
            of_classes=of_classes,
        )
        for value in values
    )
    assert one != other


@pytest.mark.parametrize("name", sorted(ALGORITHMS.keys() - SENDS_NOTHING))
def test_the_server_optimizer_of_every_algorithm_changes_its_program(build, program, name):
    of_classes = name == "knn_per"
    required = REQUIRED.get(name, {})
    one, other = (
        program(
            build(name, of_classes=of_classes, server_optimizer=optimizer, **required),
            of_classes=of_classes,
        )
        for optimizer in (None, optax.sgd(0.5))
    )
    assert one != other


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_schedule_of_rates_changes_the_program_of_every_algorithm_or_is_refused(
    build, program, name
):
    of_classes = name == "knn_per"
    local = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    half = local.with_schedule(optax.constant_schedule(0.5))
    settings = REQUIRED.get(name, {}) | {"of_classes": of_classes}
    if name in RATE_IN_FORMULA:
        with pytest.raises(SpecError, match="schedule: this algorithm trains at one rate"):
            build(name, local=half, **settings)
        return
    one, other = (
        program(build(name, local=solver, **settings), of_classes) for solver in (local, half)
    )
    assert one != other


@pytest.mark.parametrize(("name", "setting", "values"), _rows(MIXINGS))
def test_a_setting_of_a_mixing_changes_floral(build, program, name, setting, values):
    factory, beside = getattr(mixtures, name), BESIDE.get((name, setting), {})
    if name == "discriminants":
        beside = {"size": 16, "cells": 8, "starts": 2} | beside
    one, other = (
        program(build("floral", mixing=factory(**beside | {setting: value}))) for value in values
    )
    assert one != other


@pytest.fixture(scope="module")
def fields():
    rng = np.random.default_rng(0)
    return {"y": rng.integers(0, 4, 60), "writer": np.arange(60) % 3, "site": np.arange(60) % 4}


@pytest.mark.parametrize(("name", "setting", "values"), _rows(PARTITIONS))
def test_a_setting_of_a_partition_changes_who_has_what(fields, name, setting, values):
    required = {"natural": {}, "label_clusters": {"clients": 4, "clusters": 2}}
    beside = required.get(name, {"clients": 3})
    one, other = (
        getattr(data, name)(**beside | {setting: value})(fields, np.random.default_rng(0))
        for value in values
    )
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(("name", "setting", "values"), _rows(SHIFTS))
def test_a_setting_of_a_shift_changes_the_data(name, setting, values):
    rng = np.random.default_rng(0)
    clients = [
        {"train": {"x": rng.random((2, 4, 4, 1)), "y": np.array([k % 4, 3])}} for k in range(8)
    ]
    population = data.from_clients(clients, num_classes=4)
    beside = {"clusters": 4} if setting == "sizes" else {}
    one, other = (
        getattr(data, name)(**beside | {setting: value})(population, np.random.default_rng(0))
        for value in values
    )
    assert one.fingerprint != other.fingerprint


def test_small_alphas_make_sizes_and_labels_less_even(fields):
    """What alpha does, and not only that it does something."""

    def sizes(alpha):
        return data.quantity_skew(clients=5, alpha=alpha)(fields, np.random.default_rng(0)).sizes

    assert sizes(0.05).std() > 3 * sizes(100.0).std()

    def classes(alpha):
        partition = data.dirichlet(clients=5, alpha=alpha)(fields, np.random.default_rng(0))
        return np.mean([len(np.unique(fields["y"][rows])) for rows in partition.rows()])

    assert classes(0.05) < classes(100.0) == 4


def test_known_mixtures_get_no_gradient(build):
    mixing = mixtures.known()
    logits = mixing.init(jax.random.key(0), 3, {"cluster": jnp.array([0.2, 0.3, 0.5])})

    def first(logits):
        return mixing.weights(logits, active=jnp.ones(3, bool))[0]

    assert first(logits) == pytest.approx(0.2)
    assert np.all(jax.grad(first)(logits) == 0)


def test_noise_on_logits_moves_mixtures_in_training_and_no_prediction(build, simulator):
    """The mixing gets a key where a client trains, and none where it predicts."""
    start, tables, predictions = None, [], []
    x = np.ones((2, 3), np.float32)
    for noise in (0.0, 1.0):
        algorithm = build("floral", mixing=mixtures.softmax(noise=noise))
        sim = simulator(algorithm, execution=simulate.execution(walk="scan"))
        start = sim.init(jax.random.key(0)) if start is None else start
        state, _ = sim.round(start)
        tables.append(np.asarray(state.table["client"]["mixture"]))
        predictions.append(np.asarray(sim.predict(state._replace(table=start.table), 0, x)))
        again = sim.predict(state._replace(table=start.table), 0, x)
        np.testing.assert_array_equal(predictions[-1], again)
    assert not np.allclose(tables[0], tables[1])
