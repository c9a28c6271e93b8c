"""Whatever one argument of a public call is, the call is right, or says one sentence."""

import inspect
import math
import typing

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import floral as fl
from floral.algorithms import FederatedAlgorithm
from floral.algorithms.toolbox import optimizers
from floral.data.ownership import Partition
from floral.errors import FloralError

# Numbers are small or absurd. Between the two lie settings that are right, and take gigabytes.
NUMBERS = [0, 1, 2, 3, -1, -0.0, 0.5, 1.5, -0.5, math.nan, math.inf, -math.inf, 1e-320, 1e39]
HUGE = [2**31, 2**63, 2**64, -(2**63), 10**400]
SCALARS = [np.float32(0.5), np.float64("nan"), np.int8(2), np.uint64(2), np.bool_(True), 1j]
TEXTS = ["", "a", "é日", "\x00", "\ud800", "a\nb", "own", "train", "mixture", "params/**", "("]
ARRAYS = [np.arange(2), np.zeros((2, 2)), np.zeros(0), np.array(["a"]), np.array([None, 1], object)]
OTHERS = [None, True, False, b"a", {1}, len, object, object(), jax.random.key(0), optax.sgd(0.1)]
SINGLE = st.sampled_from([*NUMBERS, *HUGE, *SCALARS, *TEXTS, *ARRAYS, *OTHERS])
ODD = st.one_of(
    SINGLE,
    st.lists(SINGLE, max_size=3),
    st.lists(SINGLE, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["a", "train", "test", "é日", 1, None]), SINGLE, max_size=2),
)

POPULATION = fl.data.from_clients(
    [
        {
            split: {"x": np.ones((size, 2), np.float32), "y": np.arange(size) % 2}
            for split in ("train", "test")
        }
        for size in (3, 1, 2)
    ],
    traits={"cluster": [0, 1, 0]},
)
MODEL = fl.models.mlp(2, hidden=(2,))
SAMPLE = fl.simulate.sample_batch(POPULATION)
ADAPTED = fl.adaptors.adapt(
    MODEL, [fl.adaptors.Rule(".*/kernel", fl.adaptors.low_rank(rank=1))], SAMPLE
)
LOSS = fl.losses.cross_entropy
LOCAL = fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
SOURCE = fl.data.arrays(np.ones((6, 2, 2, 1)), np.arange(6) % 2, fields={"who": list("aabbcc")})
WIRING = {
    "model": MODEL,
    "loss": LOSS,
    "local": LOCAL,
    "mixing": fl.mixtures.softmax(),
    "sample": SAMPLE,
    "total_examples": 6,
}
NEEDED = {
    "head": ("params/Dense_1",),
    "private": ("params/Dense_1",),
    "norms": ("params/Dense_1",),
    "k": 1,
    "rank": 1,
    "max_norm": 1.0,
    "field": "who",
}
ADAPTED_ONLY = {"dual_adaptor", "fedsa_lora", "ffa_lora", "floral", "local_adaptor"}


def algorithm(name):
    """The call of an algorithm's factory with its wiring by name, which may be odd too."""

    def call(**given):
        model = ADAPTED if name in ADAPTED_ONLY else MODEL
        parameters = inspect.signature(getattr(fl.algorithms, name)).parameters
        wiring = {**WIRING, "model": model}
        known = {key: value for key, value in wiring.items() if key in parameters}
        private = ("mixture",) if name == "floral" else NEEDED["private"]
        needed = {"private": private} if "private" in parameters else {}
        needed |= {key: NEEDED[key] for key in ("head", "norms") if key in parameters}
        return getattr(fl.algorithms, name)(**{**known, **needed, **given})

    return call


def factory(area, name):
    parameters = inspect.signature(getattr(area, name)).parameters
    needed = {key: NEEDED[key] for key in NEEDED if key in parameters}
    if "budget" in parameters:
        needed = {"rank": 1}
    return lambda **given: getattr(area, name)(**{**needed, **given})


def dealt(name):
    return lambda **given: fl.data.federate(SOURCE, partition=factory(fl.data, name)(**given))


def shifted(name):
    return lambda **given: fl.data.federate(
        SOURCE, partition=fl.data.natural(field="who"), shift=factory(fl.data, name)(**given)
    )


def simulator(**given):
    return fl.simulate.make_simulator(
        **{
            "algorithm": fl.algorithms.fedavg(MODEL, LOSS, LOCAL),
            "model": MODEL,
            "dataset": POPULATION,
            "metrics": {"accuracy": fl.metrics.accuracy()},
            **given,
        }
    )


def named(area, *names):
    return {f"{area.__name__.rpartition('.')[2]}.{name}": factory(area, name) for name in names}


ALGORITHMS = [
    name
    for name in fl.algorithms.__all__
    if inspect.isfunction(function := getattr(fl.algorithms, name))
    and typing.get_type_hints(function).get("return") is FederatedAlgorithm
]
PARTITIONS = ("iid", "blocks", "dirichlet", "shards", "quantity_skew", "natural", "label_clusters")
SHIFTS = ("rotate", "label_shift", "permute", "noise")
MIXINGS = ("softmax", "top_k", "exponential_weights", "responsibilities", "discriminants", "known")
UNCERTAINTY = {
    "over_clients": {"values": [0.5, 1.0], "seed": 0, "resamples": 10},
    "between_clients": {"one": [0.5, 1.0], "other": [0.0, 1.0], "seed": 0, "resamples": 10},
    "over_seeds": {"values": [0.5, 1.0]},
    "between_seeds": {"one": {0: 0.5, 1: 1.0}, "other": {0: 0.0, 1: 1.5}},
    "welch": {"one": (0.5, 0.1, 3), "other": (0.6, 0.1, 3)},
    "gini": {"values": np.array([0.5, 1.0])},
    "jain": {"values": np.array([0.5, 1.0])},
    "worst_share": {"values": np.array([0.5, 1.0])},
}
MEASURED = {"weights": np.full((2, 2), 0.5), "clusters": np.array([0, 1])}
SIZED = {"weights": np.full((2, 2), 0.5), "sizes": np.array([1, 2])}
ABOUT_MIXTURES = {
    "agreement": MEASURED,
    "cluster_scores": MEASURED,
    "matching": MEASURED,
    "aggregation_mismatch": {**MEASURED, **SIZED},
    "aggregation_weights": SIZED,
    "effective_clients": SIZED,
    "effective_adaptors": {"weights": SIZED["weights"]},
    "sharpness": {"weights": SIZED["weights"]},
}


RULES = [fl.adaptors.Rule(".*/kernel", fl.adaptors.additive())]
MIXING = {"mixing": fl.mixtures.softmax()}
ARRAYS_OF = {"outputs": np.zeros((2, 2), np.float32), "batch": {"y": np.zeros(2, int)}}
ZOO = ("cnn", "linear", "mlp", "resnet", "vgg", "vit")
DOORS = {
    "adaptors.adapt": {"model": MODEL, "rules": RULES, "batch": SAMPLE},
    "adaptors.make_plan": {"rules": RULES, "params": ADAPTED.params},
    "adaptors.plan_table": {"plan": ADAPTED.plan},
    "adaptors.bank_parameters": {"plan": ADAPTED.plan},
    "adaptors.init_bank": {"key": jax.random.key(0), "plan": ADAPTED.plan, "num_adaptors": 2},
    "algorithms.as_local": {"factory": optimizers.sgd},
    "data.arrays": {"x": np.zeros((4, 2)), "y": np.arange(4)},
    "data.cifar": {"folder": "nowhere"},
    "data.digits": {},
    "data.from_dataset": {"dataset": {"image": np.zeros((4, 2)), "label": np.arange(4)}},
    "data.from_npz": {"path": "nowhere"},
    "data.generated": {
        "function": lambda rng, client, size: {"x": np.ones((size, 2)), "y": np.zeros(size, int)},
        "sizes": {"train": [2, 2]},
    },
    "data.idx": {"images": "nowhere", "labels": "nowhere"},
    "data.load_partition": {"path": "nowhere"},
    "data.mapped": {"folder": "nowhere"},
    "data.mnist": {"folder": "nowhere"},
    "data.npz": {"path": "nowhere"},
    "data.saved": {"path": "nowhere"},
    "data.split_clients": {"partition": Partition.of([[0, 1], [2]])},
    "data.synthetic_linear": {},
    "data.synthetic_mlp": {},
    "data.synthetic_population": {},
    "data.tfds": {"name": "nowhere"},
    "losses.cross_entropy": ARRAYS_OF,
    "losses.squared_error": {**ARRAYS_OF, "batch": {"y": np.zeros((2, 2))}},
    "mixtures.entropy": {"weights": np.full((2, 2), 0.5)},
    "mixtures.per_layer": {**MIXING, "prefixes": ["params"]},
    "mixtures.shares_of": {**MIXING, "logits": np.zeros(2), "active": np.ones(2, bool)},
    "mixtures.traits_check": {**MIXING, "num_adaptors": 2},
    "models.augmented": {"model": MODEL, "augment": fl.data.flip_crop()},
    "models.from_equinox": {"make": lambda key: None},
    "models.from_function": {"init": lambda key, x: {}, "apply": lambda params, x: x},
    "models.from_linen": {"module": nn.Dense(2)},
    "models.from_nnx": {"make": lambda rngs: nnx.Linear(2, 2, rngs=rngs)},
    **{f"models.{name}": {"outputs": 2} for name in ZOO},
    "simulate.sample_batch": {"dataset": POPULATION},
    "simulate.start_key": {"key": jax.random.key(0), "index": 0},
}


def measured(area, name, right):
    return lambda **given: getattr(area, name)(**{**right, **given})


def door(name, right):
    return lambda **given: public(name)(**{**right, **given})


CALLS = {
    **{f"algorithms.{name}": algorithm(name) for name in ALGORITHMS},
    **{f"data.{name}": dealt(name) for name in PARTITIONS},
    **{f"data.{name}": shifted(name) for name in SHIFTS},
    **named(fl.mixtures, *MIXINGS),
    **named(fl.adaptors, "low_rank", "conv", "embedding", "additive"),
    **named(fl.uplink, "clip", "product_mean", "uplink"),
    **named(fl.simulate, "execution", "fixed", "personalization", "scheduled"),
    **named(fl.metrics, "auc", "top_k_accuracy", "from_per_example"),
    **named(fl.data, "batching", "flip_crop"),
    **{f"metrics.{name}": measured(fl.metrics, name, right) for name, right in UNCERTAINTY.items()},
    **{
        f"mixtures.{name}": measured(fl.mixtures, name, right)
        for name, right in ABOUT_MIXTURES.items()
    },
    "data.federate": lambda **given: fl.data.federate(
        **{"source": SOURCE, "partition": fl.data.iid(clients=2), **given}
    ),
    "algorithms.local_solver": lambda **given: fl.algorithms.local_solver(
        **{"make": optax.sgd, "learning_rate": 0.1, **given}
    ),
    "simulate.make_simulator": simulator,
    **{name: door(name, right) for name, right in DOORS.items()},
}


def arguments_of(function):
    """The names of what a function takes."""
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind != each.VAR_KEYWORD]


def public(name):
    area, _, last = name.partition(".")
    return getattr(getattr(fl, area), last)


ASK_NETWORK = ("data.cifar", "data.tfds")
TAKEN = {name: arguments_of(public(name)) for name in CALLS if name not in ASK_NETWORK}
# What the random calls leave out, and why.
TRACED = "takes what is inside compiled functions: banks, batches, steps"
FOLDERS = "reads and writes whole folders, which test_any_config.py makes"
DATA = "test_any_data.py draws its arguments"
NETWORK = "asks the network"
LEFT_OUT = {
    **dict.fromkeys(("adaptors.adapted", "adaptors.add_adaptors", "adaptors.best_pair"), TRACED),
    **dict.fromkeys(("adaptors.best_pair_of_sum", "adaptors.center", "adaptors.cosines"), TRACED),
    **dict.fromkeys(("adaptors.check_centers", "adaptors.concatenate", "adaptors.merge"), TRACED),
    **dict.fromkeys(("adaptors.factor_pairs", "adaptors.format_table", "adaptors.permute"), TRACED),
    **dict.fromkeys(("adaptors.likeness", "adaptors.precondition", "adaptors.select"), TRACED),
    **dict.fromkeys(("adaptors.remove_adaptors", "adaptors.truncate"), TRACED),
    **dict.fromkeys(("adaptors.weights_at", "algorithms.solve", "data.as_batches"), TRACED),
    **dict.fromkeys(("data.distinct_examples", "data.gather", "data.locate"), TRACED),
    **dict.fromkeys(("data.num_steps", "data.schedule", "data.show"), TRACED),
    **dict.fromkeys(("simulate.best_start", "simulate.grow"), TRACED),
    **dict.fromkeys(("data.save_mapped", "data.save_partition"), FOLDERS),
    **dict.fromkeys(("data.from_clients", "data.from_flat", "data.federated"), DATA),
    "data.huggingface": NETWORK,
}


def check_call(call, given):
    """What a call gave, or None if it said one sentence."""
    try:
        return call(**given)
    except FloralError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said
    assert len(said) <= 600
    return None


@st.composite
def odd_calls(draw):
    name = draw(st.sampled_from([name for name in TAKEN if TAKEN[name]]))
    return name, {draw(st.sampled_from(TAKEN[name])): draw(ODD)}


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.fixture(scope="module")
def small():
    """A simulator that is compiled, and its first state."""
    made = simulator()
    return made, made.init(jax.random.key(0))


METHODS = {
    "init": ("key", "server"),
    "rounds": ("state", "num_rounds"),
    "round": ("state",),
    "evaluate": ("state", "split", "clients", "personalization"),
    "client": ("state", "client"),
    "predict": ("state", "client", "x"),
    "export": ("state", "client"),
}


@st.composite
def odd_uses(draw):
    name = draw(st.sampled_from(list(METHODS)))
    return name, draw(st.integers(0, len(METHODS[name]) - 1)), draw(ODD)


RIGHT = {
    "init": lambda state: [jax.random.key(0)],
    "rounds": lambda state: [state, 1],
    "round": lambda state: [state],
    "evaluate": lambda state: [state, "test", None, None],
    "client": lambda state: [state, 0],
    "predict": lambda state: [state, 0, np.ones((1, 2), np.float32)],
    "export": lambda state: [state, 0],
}


def check_use(small, name, place, value):
    made, state = small
    given = RIGHT[name](state)
    given[place : place + 1] = [value]
    check_call(lambda: getattr(made, name)(*given), {})


AREAS = (
    *(fl.adaptors, fl.algorithms, fl.data, fl.losses, fl.metrics),
    *(fl.mixtures, fl.models, fl.simulate, fl.uplink),
)
PUBLIC = {
    f"{area.__name__.rpartition('.')[2]}.{name}": getattr(area, name)
    for area in AREAS
    for name in area.__all__
    if inspect.isfunction(getattr(area, name)) and arguments_of(getattr(area, name))
}


def test_every_public_function_is_among_the_calls_or_left_out_for_a_reason():
    assert set(PUBLIC) - set(CALLS) == set(LEFT_OUT)


BOOLEANS = [
    (name, setting)
    for name, function in {**PUBLIC, "optimizers.sgd": optimizers.sgd}.items()
    for setting, kind in typing.get_type_hints(function).items()
    if kind is bool and setting != "return"
]


@pytest.mark.parametrize("value", [np.zeros(2), "yes", 1.5, 1, None], ids=repr)
@pytest.mark.parametrize(("name", "setting"), BOOLEANS)
def test_what_is_asked_for_its_truth_is_true_or_false(name, setting, value):
    sgd = {"optimizers.sgd": lambda **given: optimizers.sgd(learning_rate=0.1, **given)}
    with pytest.raises(FloralError, match=f"{setting} must be True or False, got") as refused:
        (CALLS | sgd)[name](**{setting: value})
    assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore")
@given(asked=odd_calls())
@settings(max_examples=400, derandomize=True, **QUIET)
def test_a_call_is_right_or_says_one_sentence(asked):
    name, given = asked
    check_call(CALLS[name], given)


@pytest.mark.filterwarnings("ignore")
@given(asked=odd_uses())
@settings(max_examples=100, derandomize=True, **QUIET)
def test_a_simulator_does_what_it_is_asked_or_says_one_sentence(small, asked):
    check_use(small, *asked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@given(asked=odd_calls())
@settings(max_examples=4500, **QUIET)
def test_thousands_of_calls_do_too(asked):
    name, given = asked
    check_call(CALLS[name], given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@given(asked=odd_uses())
@settings(max_examples=1000, **QUIET)
def test_a_simulator_of_a_thousand_odd_uses_does_too(small, asked):
    check_use(small, *asked)


BY_PLACE = {
    "mixtures.softmax": 0.5,
    "mixtures.top_k": 1,
    "mixtures.known": "cluster",
    "mixtures.exponential_weights": 0.5,
    "mixtures.responsibilities": 2,
    "adaptors.low_rank": 2,
    "metrics.top_k_accuracy": 2,
    "uplink.clip": 1.0,
}


@pytest.mark.parametrize(("name", "value"), BY_PLACE.items())
def test_the_first_setting_of_a_factory_may_stand_without_its_name(name, value):
    module, _, function = name.partition(".")
    factory = getattr(getattr(fl, module), function)
    factory(value)
    with pytest.raises(FloralError, match=rf"{function} takes \w+ alone by place.*, got 2 values"):
        factory(value, value)
