"""What a notebook puts into a mapping becomes a plain value, or one sentence; so large numbers."""

import collections
import datetime
import decimal
import enum
import fractions
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import floral
from floral.check import positive
from floral.config.reading.plain import plain
from floral.config.reading.resolve import read
from floral.config.reading.yaml_file import dump, read_value
from floral.errors import ConfigError, SpecError


class Method(enum.Enum):
    FEDAVG = "fedavg"


class Size(enum.IntEnum):
    THREE = 3


class Word(str):
    pass


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.logspace(-1, 0, 2)[0], 0.1),
        (np.float32(0.5), 0.5),
        (np.longdouble(1.5), 1.5),
        (np.int64(3), 3),
        (np.uint64(2**40), 2**40),
        (np.bool_(True), True),
        (np.str_("sgd"), "sgd"),
        (jnp.float32(0.5), 0.5),
        (jnp.bfloat16(0.5), 0.5),
        (jnp.arange(3)[1], 1),
        (np.array(0.5), 0.5),
        (np.array([200, 10]), [200, 10]),
        (jnp.ones((1, 1)), [[1.0]]),
        (np.array(["a", "b"], object), ["a", "b"]),
        ((1, (2, 3)), [1, [2, 3]]),
        (range(2), [0, 1]),
        (collections.deque([1]), [1]),
        (collections.UserDict(a=np.int8(1)), {"a": 1}),
        ({Method.FEDAVG: 1}, {"fedavg": 1}),
        (Method.FEDAVG, "fedavg"),
        (Size.THREE, 3),
        (Word("w"), "w"),
        (Path("a/b"), "a/b"),
        (decimal.Decimal("0.1"), 0.1),
        (fractions.Fraction(1, 4), 0.25),
        (None, None),
    ],
    ids=lambda value: f"{type(value).__name__} {value!r:.20}",
)
def test_a_value_that_yaml_has_a_form_for_becomes_it(value, expected):
    found = plain({"x": value})
    assert found == {"x": expected}
    assert type(found["x"]) is type(expected)
    assert read_value(dump(found), where="dumped") == found


def circular():
    mapping = {}
    mapping["a"] = [mapping]
    return mapping


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1, 2}, "local.x: .* type set; a set has no order: give a list"),
        (b"sgd", "local.x: .* type bytes; give text"),
        (lambda step: 0.1, "local.x: .* type function; .* my_module:name"),
        (np.complex64(1), "local.x: .* type numpy.complex64; its values are complex64"),
        (np.datetime64("2026"), "local.x: .* numpy.datetime64"),
        (np.zeros(1, [("a", int)]), "local.x: .* numpy.ndarray"),
        (np.ma.masked, "local.x: .* masked"),
        (datetime.date(2026, 1, 1), "local.x: .* type datetime.date"),
        (Pair(1, 2), r"local.x: .*Pair; give its fields as a mapping, as x._asdict\(\)"),
        (object(), "local.x: .* type object"),
        (iter([1]), "local.x: .* type list_iterator"),
        (jax.ShapeDtypeStruct((1,), jnp.float32), r"local.x: .*ShapeDtypeStruct"),
        ({1: 2}, "local.x: a key must be text, got 1"),
        ("\ud800", r"local.x: '\\ud800' is no Unicode text"),
        (10**400, "local.x: a whole number of 1329 bits is too large"),
        (circular(), "local: nested too deeply; does it contain itself"),
    ],
    ids=lambda value: f"{type(value).__name__} {value!r:.12}".encode("ascii", "replace").decode(),
)
def test_any_other_value_is_one_sentence_that_names_its_place_and_type(value, said):
    with pytest.raises(ConfigError, match=said) as error:
        plain({"local": {"x": value}})
    assert "\n" not in str(error.value)


def test_a_random_key_is_no_seed():
    with pytest.raises(ConfigError, match=r"seed: a config cannot hold .*PRNGKeyArray"):
        plain({"seed": jax.random.key(0)})


def test_a_config_of_numpys_numbers_trains_as_one_of_pythons(config, whole, tmp_path):
    local = {"kind": "sgd", "learning_rate": np.logspace(-1, 0, 2)[0], "batch_size": np.int64(3)}
    run = floral.run(config(local=local, rounds=jnp.int32(2)), out=tmp_path / "runs")
    name = "metrics.jsonl"
    assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_config_that_cannot_be_written_leaves_no_folder(config, tmp_path):
    local = {"kind": "sgd", "learning_rate": lambda step: 0.1}
    with pytest.raises(ConfigError, match=r"local.learning_rate: .* type function"):
        floral.run(config(local=local), out=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


# Whole numbers.


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=99999999999999999999", "seed: expected a whole number of at most 4294967295, got 9"),
        ("seed=4294967296", "seed: expected a whole number of at most 4294967295"),
        ("seed=-1", "seed: expected a whole number of at least 0"),
        ("data.seed=4294967296", "data.seed: expected a whole number of at most 4294967295"),
        ("data.source.seed=1e3", "data.source.seed: expected a whole number, got 1000.0"),
        ("data.source.seed=4294967296", "data.source.seed: .* at most 4294967295"),
        ("rounds=2147483648", "rounds: expected a whole number of at most 2147483647"),
        ("data.source.clients=2147483648", "data.source.clients: .* at most 2147483647"),
        ("local.batch_size=99999999999", "local.batch_size: .* at most 2147483647"),
        ("local.steps=99999999999", r"local.steps: .* at most 2147483647"),
        ("evaluate.every=99999999999", "evaluate.every: .* at most 2147483647"),
        ("algorithm.num_adaptors=99999999999", "algorithm.num_adaptors: .* at most 2147483647"),
        ("local.learning_rate=1e39", r"local.learning_rate: .* at most 3.4028234e\+38"),
    ],
)
def test_numbers_beyond_32_bits_are_refused(config, override, said):
    with pytest.raises(ConfigError, match=said):
        read(config(), [override])


def test_the_largest_seed_is_a_seed(config):
    assert read(config(), ["seed=4294967295"])["seed"] == 4294967295


def test_a_library_call_refuses_them_too():
    with pytest.raises(SpecError, match="batch_size must be at most 2147483647, got 2147483648"):
        floral.data.batching(batch_size=2**31)
    with pytest.raises(SpecError, match="must be finite"):
        positive(x=10**400)
