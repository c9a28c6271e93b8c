"""Whatever a message quotes, it has a line for each fault, short, with its place and answer."""

import pickle

import numpy as np
import pandas
import pytest

import floral as fl
from floral.check import brief, described
from floral.errors import ConfigError, DataError, FloralError, SpecError

MONSTERS = {
    "matrix": np.zeros((100, 100)),
    "table": pandas.DataFrame(np.zeros((50, 5))),
    "mapping of matrices": {"a": np.zeros((20, 20)), "b": np.ones((9, 9))},
    "long text": "x" * 10_000,
    "long name": {"x" * 10_000: 1},
    "lines": "a\nb\r\nc\u2028d" * 100,
    "huge number": 10**5000,
    "list of huge numbers": [10**5000],
}


def rank(value):
    fl.adaptors.low_rank(rank=value)


def chunk(value):
    fl.simulate.execution(chunk=value)


def truth(value):
    fl.mixtures.softmax(plain_shares=value)


def of_a_config(value):
    fl.run({"rounds": value, "algorithm": {"kind": value}})


def override(value):
    fl.run({}, value)


DOORS = [rank, chunk, truth, of_a_config, override]


@pytest.mark.parametrize("value", MONSTERS.values(), ids=MONSTERS)
@pytest.mark.parametrize("door", DOORS)
def test_a_message_is_short_lines_whatever_it_quotes(door, value):
    with pytest.raises(FloralError) as refused:
        door(value)
    lines = str(refused.value).splitlines()
    assert len(lines) == len(refused.value.args)
    assert all(line.strip() and len(line) <= 600 for line in lines)


@pytest.mark.parametrize("value", MONSTERS.values(), ids=MONSTERS)
def test_a_value_is_quoted_on_one_short_line(value):
    for text in (brief(value), described(value)):
        assert len(text.splitlines()) == 1
        assert len(text) <= 80


def test_a_long_sentence_keeps_its_place_and_its_answer():
    said = str(DataError(f"no file at {'x' * 10_000!r}; did you mean 'examples.npz'?"))
    assert said.startswith("no file at 'xxx")
    assert said.endswith("xxx'; did you mean 'examples.npz'?")


def test_each_fault_of_an_error_has_a_line_of_its_own():
    error = ConfigError("rounds: 'a\nb'", "seed: 1.5")
    assert str(error) == "rounds: 'a b'\nseed: 1.5"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_wrong_boolean_is_answered_by_the_nearest():
    for given, meant in (("yes", True), (0, False), (np.True_, True), (np.array(False), False)):
        with pytest.raises(
            SpecError, match=f"must be True or False, got .*; did you mean {meant}?"
        ):
            fl.data.batching(shuffle=given)
