"""A part of the wrong type is refused where it is given, with the name of what makes the right one."""

# ruff: noqa: E501  (a row is a line)

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import floral as fl
from floral.errors import FloralError, SpecError

LOCAL = fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
SE = fl.losses.squared_error
MODEL = fl.models.linear(2)


def fedavg(model=MODEL, loss=SE, local=LOCAL, **settings):
    return fl.algorithms.fedavg(model, loss, local, **settings)


def simulator(population, algorithm=None, model=MODEL, dataset=None, metrics=None, **settings):
    return fl.simulate.make_simulator(
        algorithm or fedavg(), model, dataset or population, metrics=metrics or {}, **settings
    )


def nnx_layer():
    return nnx.Linear(3, 2, rngs=nnx.Rngs(0))


def equinox_layer():
    import equinox as eqx

    return eqx.nn.Linear(3, 2, key=jax.random.key(0))


SOURCE = fl.data.arrays(np.zeros((12, 2), "f"), np.arange(12) % 2)
MODULES = {
    "linen": (lambda: nn.Dense(3), r"wrap it: fl.models.from_linen\(module\)"),
    "a class of linen": (lambda: nn.Dense, r"from_linen\(module\)"),
    "NNX": (nnx_layer, r"wrap it: fl.models.from_nnx\(lambda rngs"),
    "equinox": (equinox_layer, r"wrap it: fl.models.from_equinox\(lambda key"),
    "a function": (lambda: lambda params, x: x, "from_function"),
    "a factory": (lambda: fl.models.mlp, "the function mlp; call it"),
    "a pair of functions": (lambda: (len, len), "must be a Model.*got tuple"),
    "nothing": (lambda: None, "got NoneType"),
}


def test_a_package_that_is_not_installed_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(SpecError, match=r"equinox, which is not installed: pip install equinox$"):
        fl.models.from_equinox(lambda key: None)


@pytest.mark.parametrize(("make", "said"), MODULES.values(), ids=MODULES)
def test_what_is_no_model_is_told_its_wrapper(make, said, population):
    with pytest.raises(SpecError, match=said):
        fedavg(make())
    with pytest.raises(SpecError, match=said):
        simulator(population, model=make())


def test_an_adapted_model_and_its_own_are_told_apart(adapt, population):
    with pytest.raises(SpecError, match="pass the model that was adapted"):
        fedavg(adapt(MODEL))
    with pytest.raises(SpecError, match=r"must be an AdaptedModel, as fl\.adaptors\.adapted"):
        fl.algorithms.floral(MODEL, SE, LOCAL, fl.mixtures.softmax())


WRAPPERS = {
    "an NNX module": (lambda: fl.models.from_nnx(nnx_layer()), "give a maker"),
    "an equinox module": (lambda: fl.models.from_equinox(equinox_layer()), "give a maker"),
    "a class of linen": (lambda: fl.models.from_linen(nn.Dense), "made, as nn.Dense"),
    "a function for linen": (lambda: fl.models.from_linen(len), "got the function len"),
    "a module for a function": (lambda: fl.models.from_function({}, len), "init must be a function"),
    "text for a maker": (lambda: fl.models.from_nnx("mlp"), "got str 'mlp'"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_names_what_it_takes(make, said):
    with pytest.raises(SpecError, match=said):
        make()


SOLVERS = {
    "an optimizer": (lambda: fl.algorithms.local_solver(optax.sgd(0.1)), "pass optax.sgd and learning_rate=0.1, or a lambda"),
    "an optimizer and a rate": (lambda: fl.algorithms.local_solver(optax.sgd(0.1), learning_rate=0.1), "pass optax.sgd"),
    "no rate": (lambda: fl.algorithms.local_solver(optax.sgd), "needs learning_rate"),
    "a name": (lambda: fl.algorithms.local_solver("sgd", learning_rate=0.1), "got str 'sgd'"),
    "a setting that is not there": (lambda: fl.algorithms.local_solver(optax.adamw, learning_rate=0.1, decay=1.0), "adamw.* unexpected keyword argument 'decay'"),
    "no optimizer": (lambda: fl.algorithms.local_solver(lambda rate: rate, learning_rate=0.1), "local_solver"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), SOLVERS.values(), ids=SOLVERS)
def test_a_local_solver_takes_what_makes_an_optimizer(make, said):
    with pytest.raises(SpecError, match=said):
        make()


def test_settings_of_an_optimizer_reach_it():
    params = {"w": jnp.ones(3)}
    solver = fl.algorithms.local_solver(optax.adamw, learning_rate=0.1, weight_decay=0.5)
    for rate in (None, 0.3):
        mine, theirs = solver.optimizer(rate), optax.adamw(rate or 0.1, weight_decay=0.5)
        steps = [o.update(params, o.init(params), params)[0]["w"] for o in (mine, theirs)]
        np.testing.assert_array_equal(*steps)


INPUTS = {
    "local": ({"local": optax.sgd(0.1)}, "local: expected LocalSolver"),
    "loss": ({"loss": "mse"}, "loss must be a function"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "ditto", "apfl", "pfedme", "scaffold", "partial", "fedrep", "fedbabu", "fedavg_finetuned", "knn_per", "ensemble", "fedem", "ifca"])  # fmt: skip
@pytest.mark.parametrize(("wrong", "said"), INPUTS.values(), ids=INPUTS)
def test_every_algorithm_checks_what_it_is_made_of(name, wrong, said, population):
    batch = fl.simulate.sample_batch(population)
    settings = {"partial": {"private": ()}, "fedrep": {"private": ()}, "fedbabu": {"head": ()}}
    parts = {"model": MODEL, "loss": SE, "local": LOCAL, "mixing": fl.mixtures.softmax()}
    parts |= {"sample": batch, "total_examples": 7}
    order = {"ensemble": ["mixing", "sample"], "scaffold": ["total_examples"]}
    plain = ("fedavg", "fedprox", "ditto", "apfl", "pfedme")
    beside = order.get(name, [] if name in plain else ["sample"])
    given = {**parts, **wrong}
    with pytest.raises(SpecError, match=said):
        getattr(fl.algorithms, name)(
            *(given[part] for part in ("model", "loss", "local", *beside)),
            **settings.get(name, {}),
        )


PARTS = {
    "algorithm": ({"algorithm": fl.algorithms.fedavg}, "algorithm: expected FederatedAlgorithm"),
    "a source": ({"dataset": SOURCE}, "dataset: expected FederatedDataset, as fl.data.federate"),
    "metrics": ({"metrics": [fl.metrics.rmse()]}, "metrics must be a mapping of names"),
    "cohort": ({"cohort": 3}, "cohort: expected Sampler, as fl.simulate.fixed"),
    "batching": ({"batching": 32}, "batching: expected Batching"),
    "a batch of none": ({"batching": fl.data.Batching(batch_size=0)}, "batch_size must be"),
    "a reducer": ({"uplink": fl.uplink.weighted_mean()}, r"pass fl.uplink.uplink\(reduce=...\)"),
    "uplink": ({"uplink": []}, "uplink: expected Uplink"),
    "execution": ({"execution": "scan"}, "execution: expected Execution"),
    "personalization": ({"personalization": 5}, "personalization: expected Personalization"),
    "data": ({"data": {}}, "data: expected DeviceData"),
}


@pytest.mark.parametrize(("wrong", "said"), PARTS.values(), ids=PARTS)
def test_a_simulator_names_the_part_that_is_of_another_type(wrong, said, population):
    with pytest.raises(SpecError, match=said):
        simulator(population, **wrong)


@pytest.mark.parametrize(
    "settings",
    [{"walk": "sequential"}, {"walk": "chunk"}, {"memory": 0}, {"rows_folder": 3}, {"devices": 0}],
    ids=str,
)
def test_an_execution_is_checked_however_it_is_made(settings, population):
    with pytest.raises(SpecError):
        fl.simulate.execution(**settings)
    with pytest.raises(SpecError):
        fl.simulate.Execution(**settings)
    with pytest.raises(SpecError):
        simulator(population, execution=fl.simulate.Execution()._replace(**settings))


UPLINKS = {
    "a function": ({"reduce": lambda updates, weights: updates}, "reduce: expected a Reducer.*becomes one by fl.uplink.Reducer"),
    "a factory": ({"reduce": fl.uplink.weighted_mean}, "the function weighted_mean"),
    "a number": ({"client": 1.0}, "client: expected a list of optax transforms"),
    "a factory of transforms": ({"server": [fl.uplink.clip]}, "server.0: expected an optax transform"),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "said"), UPLINKS.values(), ids=UPLINKS)
def test_an_uplink_names_what_it_takes(wrong, said):
    with pytest.raises(SpecError, match=said):
        fl.uplink.uplink(**wrong)


def test_one_transform_is_a_list_of_one():
    alone = fl.uplink.uplink(client=fl.uplink.clip(max_norm=1.0))
    listed = fl.uplink.uplink(client=[fl.uplink.clip(max_norm=1.0)])
    update = {"w": jnp.full(4, 3.0)}
    assert alone.transforms == listed.transforms == 1
    clipped = [u.client.update(update, u.client.init(update))[0]["w"] for u in (alone, listed)]
    np.testing.assert_array_equal(*clipped)


ADDITIVE = fl.adaptors.additive()
RULES = {
    "a rule alone": (fl.adaptors.Rule(".*", ADDITIVE), "rules: expected a list, as .*got Rule"),
    "a pair": ([(".*", ADDITIVE)], "rules: expected rules, as .*got tuple"),
    "no pattern": ([fl.adaptors.Rule(None, ADDITIVE)], "rules: expected rules"),
    "a word for an adaptor": ([fl.adaptors.Rule(".*", "low_rank")], "expected an adaptor, as .*got str 'low_rank'"),
    "a factory that was not called": ([fl.adaptors.Rule(".*", fl.adaptors.additive)], r"call it: additive\(\.\.\.\)"),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "said"), RULES.values(), ids=RULES)
def test_what_are_no_rules_is_refused(rules, said, population):
    with pytest.raises(SpecError, match=said):
        fl.adaptors.adapt(MODEL, rules, fl.simulate.sample_batch(population))


@pytest.mark.parametrize("steps", [None, 1.5, -1, True])
def test_steps_before_a_prediction_are_a_whole_number(steps):
    with pytest.raises(SpecError, match=r"steps must (be a |be finite|not be negative)"):
        fl.simulate.personalization(steps=steps)


@pytest.mark.parametrize("factory", [fl.data.dirichlet, fl.data.quantity_skew])
@pytest.mark.parametrize("least", [1.5, -1, True, None])
def test_the_least_examples_of_a_client_are_a_whole_number(factory, least):
    with pytest.raises(SpecError, match=r"min_examples must (be a |be finite|not be negative)"):
        factory(clients=2, min_examples=least)


def test_known_adaptors_are_whole_numbers(make_population, build, simulator):
    for trait in (np.array([0.0, 1.0, 0.0, 1.0, 1.0]), np.array([True, False, True, True, False])):
        population = make_population()
        population = population._replace(traits={**population.traits, "mine": trait})
        with pytest.raises(SpecError, match=f"known: the trait 'mine' is {trait.dtype}, expected"):
            simulator(build("floral", mixing=fl.mixtures.known(trait="mine")), population)


ROWS = [[0, 2, 4, 6], [1, 3], [5, 7, 8, 9, 10, 11]]
DEALT = {
    "rows": ROWS,
    "arrays": [np.array(rows) for rows in ROWS],
    "a function that gives rows": lambda fields, rng: ROWS,
    "a function that gives a partition": lambda fields, rng: fl.data.Partition.of(ROWS),
}


@pytest.mark.parametrize("partition", DEALT.values(), ids=DEALT)
def test_rows_of_each_client_are_a_partition(partition):
    population = fl.data.federate(SOURCE, partition=partition)
    assert population.splits["train"].sizes.tolist() == [4, 2, 6]


UNDEALT = {
    "a number": 3,
    "no clients": [],
    "numbers": [1, 2, 3],
    "floats": [[0.0, 1.0], [2.0]],
    "names": [["a"], ["b"]],
    "a factory that was not called": fl.data.iid,
    "a function that gives nothing": lambda fields, rng: None,
}


@pytest.mark.parametrize("partition", UNDEALT.values(), ids=UNDEALT)
def test_what_is_no_partition_is_refused(partition):
    with pytest.raises(FloralError, match=r"partition|no client"):
        fl.data.federate(SOURCE, partition=partition)


def sampler(ids, active=True, capacity=2):
    return fl.simulate.Sampler(
        capacity=lambda population: capacity,
        sample=lambda key, round_index, clients: (ids(clients), jnp.full(2, active)),
    )


SAMPLERS = {
    "floats for ids": (sampler(lambda clients: clients[:2] * 1.0), r"got float32\[2\] and bool\[2\]"),
    "more than it has room for": (sampler(lambda clients: clients), r"expected a pair of ids int\[2\]"),
    "numbers for active": (sampler(lambda clients: clients[:2], 1), r"and int32\[2\]"),
    "no room": (sampler(lambda clients: clients[:2], capacity=0), "capacity of cohort"),
    "ids alone": (fl.simulate.Sampler(lambda n: 2, lambda key, t, clients: clients[:2]), r"got int32\[2\]"),
    "other arguments": (fl.simulate.Sampler(lambda n: 2, lambda key: key), "cohort.sample is called with"),
}  # fmt: skip


@pytest.mark.parametrize(("cohort", "said"), SAMPLERS.values(), ids=SAMPLERS)
def test_a_sampler_that_draws_no_cohort_is_refused(cohort, said, population):
    with pytest.raises(SpecError, match=said):
        simulator(population, cohort=cohort)


def reducer(reduce):
    return fl.uplink.uplink(reduce=fl.uplink.Reducer(lambda update: (), reduce))


def transform(change):
    return fl.uplink.uplink(client=optax.stateless(lambda updates, params: change(updates)))


def summed(updates, weights, state, *, key=None, server=None):
    return jax.tree.map(lambda leaf: leaf.sum(0), updates)


def whole(updates, weights, state, *, key=None, server=None):
    return fl.algorithms.Reduced(updates, weights), state


WAYS = {
    "a reducer of updates alone": (reducer(summed), "expected reduce to give a pair of a Reduced"),
    "a reducer that keeps all": (reducer(whole), r"reduced update must keep shapes.* got float32\[5, 2\]"),
    "a reducer of other arguments": (reducer(lambda updates: updates), "uplink.reduce is called with"),
    "a transform to sums": (transform(lambda u: jax.tree.map(jnp.sum, u)), r"uplink.client: a transform must keep shapes"),
    "a transform to a list": (transform(jax.tree.leaves), "uplink.client: a transform must keep the structure"),
}  # fmt: skip


@pytest.mark.parametrize(("uplink", "said"), WAYS.values(), ids=WAYS)
def test_an_uplink_that_changes_the_shape_of_updates_is_refused(uplink, said, population):
    with pytest.raises(SpecError, match=said):
        simulator(population, uplink=uplink)
