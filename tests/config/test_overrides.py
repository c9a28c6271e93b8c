"""Dotted overrides and the one rule by which mappings are laid over each other."""

import copy
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floral.config.reading.merge import merge
from floral.config.reading.overrides import Override, override, parse
from floral.errors import ConfigError

CONFIG = {
    "seed": 0,
    "privacy": None,
    "algorithm": {"kind": "fedavg", "momentum": 0.9},
    "data": {"source": "mnist", "shift": {"kind": "permute", "blocks": 4}},
    "adaptors": [{"match": ".*/kernel", "kind": "low_rank", "budget": 0.1}, {"match": ".*/bias"}],
}


def at(config, path):
    for part in path.split("."):
        config = config[int(part)] if isinstance(config, list) else config[part]
    return config


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed=3", "seed", 3),
        ("seed=1e-3", "seed", 1e-3),
        ("seed=1E5", "seed", 1e5),
        ("seed=-2.5e+3", "seed", -2500.0),
        ("seed=on", "seed", "on"),
        ("seed=no", "seed", "no"),
        ("seed=true", "seed", True),
        ("seed=null", "seed", None),
        ("seed=''", "seed", ""),
        ("seed='3'", "seed", "3"),
        ("seed=a=b", "seed", "a=b"),
        ("seed=[1, 2.0, x]", "seed", [1, 2.0, "x"]),
        ("adaptors.0.budget=0.01", "adaptors.0.budget", 0.01),
        ("adaptors.1.match=.*/scale", "adaptors.1.match", ".*/scale"),
        ("faults.rate=0.5", "faults", {"rate": 0.5}),
        ("privacy.epsilon=4", "privacy", {"epsilon": 4}),
        ("algorithm.momentum=0", "algorithm", {"kind": "fedavg", "momentum": 0}),
        ("algorithm.kind=fedavg", "algorithm", {"kind": "fedavg", "momentum": 0.9}),
        ("algorithm.kind=floral", "algorithm", {"kind": "floral"}),
        ("algorithm={kind: fedprox, mu: 1}", "algorithm", {"kind": "fedprox", "mu": 1}),
        ("algorithm={mu: 1}", "algorithm", {"kind": "fedavg", "momentum": 0.9, "mu": 1}),
        ("data.shift.kind=rotate", "data", {"source": "mnist", "shift": {"kind": "rotate"}}),
        ("adaptors.0={kind: additive}", "adaptors.0", {"kind": "additive"}),
        ("adaptors=[]", "adaptors", []),
    ],
)
def test_an_override_sets_one_place(text, path, value):
    found = at(override(CONFIG, [text]), path)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed", "'seed' sets nothing; write seed=value"),
        ("=3", "'=3' has an empty name before '='; write it as algorithm.num_adaptors=8"),
        ("a..b=3", "'a..b=3' has an empty name before '='; write it as algorithm.num_adaptors=8"),
        (
            "seed=",
            "seed=: there is no value; write seed=null for none and seed=\"''\" for empty text",
        ),
        ("sead=3", "sead: no top-level key is called 'sead'; did you mean 'seed'?"),
        (
            "zzz.a=3",
            "zzz.a: no top-level key is called 'zzz'; "
            "there are seed, privacy, algorithm, data, adaptors",
        ),
        ("seed.a=3", "seed.a: seed is 0, so it has no setting 'a'"),
        (
            "adaptors.5.budget=1",
            "adaptors.5.budget: there is no entry 5; adaptors has the entries 0 to 1",
        ),
        ("adaptors.2=1", "adaptors.2: there is no entry 2; adaptors has the entries 0 to 1"),
        (
            "adaptors.first=1",
            "adaptors.first: adaptors is a list; expected the number of an entry, got 'first'",
        ),
        (
            "adaptors.-1.a=1",
            "adaptors.-1.a: adaptors is a list; expected the number of an entry, got '-1'",
        ),
        ("privacy.0=1", "privacy.0: privacy is no list, so it has no entry 0"),
        (
            "seed={a: ",
            "'seed={a: ': not YAML: expected the node content, but found '<stream end>'",
        ),
    ],
)
def test_a_wrong_override_is_named(text, expected):
    with pytest.raises(ConfigError) as caught:
        override(CONFIG, [text], known=list(CONFIG))
    assert str(caught.value) == expected


def test_the_order_of_overrides_does_not_matter():
    texts = ["algorithm.kind=fedprox", "algorithm.mu=1", "data={keep: 0.5}", "data.shift.kind=none"]
    results = [override(CONFIG, order) for order in itertools.permutations(texts)]
    assert all(result == results[0] for result in results)
    assert results[0]["algorithm"] == {"kind": "fedprox", "mu": 1}


def test_of_two_overrides_of_one_place_the_later_wins():
    assert override(CONFIG, ["seed=1", "seed=2"])["seed"] == 2


def test_an_override_changes_nothing_in_the_mapping_it_is_given():
    before = copy.deepcopy(CONFIG)
    changed = override(CONFIG, ["adaptors.0.budget=1", "data.shift.blocks=2", "privacy.a=1"])
    changed["adaptors"][1]["match"] = "changed"
    assert before == CONFIG


def test_an_override_keeps_its_text():
    assert parse("a.b=0..4") == Override(("a", "b"), "0..4")
    assert parse("a.b=0..4").value == "0..4"


keys = st.sampled_from(["a", "b", "kind"])
trees = st.recursive(
    st.integers(0, 3) | st.none() | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(keys, trees, max_size=3)


@given(mappings)
def test_merging_with_nothing_changes_nothing(a):
    assert merge(a, {}) == merge({}, a) == merge(a, a) == a


@given(mappings, mappings)
def test_merging_the_same_child_twice_is_merging_it_once(a, b):
    assert merge(merge(a, b), b) == merge(a, b)


@given(mappings, mappings)
def test_what_the_child_states_holds(a, b):
    def holds(stated, merged):
        if not isinstance(stated, dict):
            return stated == merged
        return all(holds(value, merged[key]) for key, value in stated.items())

    assert holds(b, merge(a, b))


@given(mappings, mappings)
def test_another_kind_leaves_nothing_of_the_parent(a, b):
    assert merge({**a, "kind": "one"}, {**b, "kind": "two"}) == {**b, "kind": "two"}


@given(mappings, mappings)
def test_merging_leaves_both_sides_alone(a, b):
    before = copy.deepcopy((a, b))
    merge(a, b)
    assert (a, b) == before


def test_what_is_merged_shares_nothing_with_either_side():
    parent, child = {"a": [1], "b": {"c": [1]}}, {"d": [1], "b": {"e": [1]}}
    merged = merge(parent, child)
    for shared in (merged["a"], merged["b"]["c"], merged["d"], merged["b"]["e"]):
        shared.append(2)
    assert (parent, child) == ({"a": [1], "b": {"c": [1]}}, {"d": [1], "b": {"e": [1]}})


def test_a_list_is_replaced_and_null_is_a_value():
    assert merge({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": None}) == {"a": [3], "b": None}
