"""What a message suggests can be typed: every suggestion is tried, and does what was meant."""

import re

import jax
import pytest
import yaml

import floral as fl
from floral import tree
from floral.adaptors import Rule, additive, low_rank, make_plan
from floral.adaptors.suggest import suggested_rules
from floral.config import areas as places
from floral.config.areas import SCHEMA
from floral.errors import ConfigError, SpecError

PARAMS = {
    "params": {
        "Conv_0": {"kernel": jax.ShapeDtypeStruct((3, 3, 1, 4), "float32")},
        "Dense_0": {
            "kernel": jax.ShapeDtypeStruct((8, 4), "float32"),
            "bias": jax.ShapeDtypeStruct((4,), "float32"),
        },
        "Dense_1": {
            "kernel": jax.ShapeDtypeStruct((4, 2), "float32"),
            "bias": jax.ShapeDtypeStruct((2,), "float32"),
        },
    }
}
PATHS = list(tree.paths(PARAMS))


def suggested(message):
    return re.search(r"did you mean '([^']+)'\?", message)[1]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("Dense_1", "**/Dense_1"),
        ("Dense_1/kernel", "**/Dense_1/kernel"),
        ("params/Dens_1", "params/Dense_1"),
        ("Dens_1", "**/Dense_1"),
        (".*/Dense_1", "**/Dense_1"),
        (".*/bias", "**/bias"),
        ("**/kernal", "**/kernel"),
        ("dense_1", "**/Dense_1"),
    ],
)
def test_a_path_that_matches_nothing_is_answered_with_one_that_matches_all_meant(glob, expected):
    found = suggested(tree.glob_hint(glob, PATHS))
    assert found == expected
    assert any(jax.tree.leaves(tree.matching(PARAMS, [found])))


def test_a_layer_is_suggested_whole_and_never_one_of_its_leaves():
    found = suggested(tree.glob_hint("Dense_1", PATHS))
    marked = tree.paths(tree.matching(PARAMS, [found]))
    assert [path for path, kept in marked.items() if kept] == [
        "params/Dense_1/bias",
        "params/Dense_1/kernel",
    ]


def test_a_path_like_none_is_answered_with_some_that_there_are():
    assert tree.glob_hint("zzz", PATHS).startswith("; there are params/Conv_0/kernel, ")


@pytest.mark.parametrize(
    "match", ["Dense_1", "**/kernel", "kernel", ".*/kernal", "params/Dens_0/bias", "*/bias"]
)
def test_a_rule_that_matches_nothing_is_answered_with_a_rule_that_matches(match):
    with pytest.raises(SpecError) as caught:
        make_plan([Rule(match, None), Rule(".*", None)], PARAMS)
    assert make_plan([Rule(suggested(str(caught.value)), None)], PARAMS).adaptors == {}


def test_rules_that_are_printed_fit_the_model_and_adapt_all_of_it():
    line = suggested_rules(PARAMS)
    rules = [
        SCHEMA.construct(places.ADAPTOR, mapping) for mapping in yaml.safe_load(line)["adaptors"]
    ]
    adaptors = make_plan(rules, PARAMS).adaptors
    assert {path: adaptor.kind for path, adaptor in adaptors.items()} == {
        "params/Conv_0/kernel": "conv separable",
        "params/Dense_0/bias": "additive",
        "params/Dense_0/kernel": "low_rank",
        "params/Dense_1/bias": "additive",
        "params/Dense_1/kernel": "low_rank",
    }


def test_an_adaptor_that_does_not_fit_is_answered_with_the_whole_line():
    with pytest.raises(SpecError) as caught:
        make_plan([Rule(".*/kernel", low_rank(budget=0.1)), Rule(".*/bias", additive())], PARAMS)
    assert str(caught.value).endswith(suggested_rules(PARAMS))


@pytest.mark.parametrize("kind", ["fedper", "fedbn", "local"])
def test_the_names_of_the_readme_are_kinds(kind):
    assert kind in SCHEMA.kinds(places.ALGORITHM)
    assert SCHEMA.form(places.ALGORITHM, kind).summary


def test_a_misspelt_kind_far_from_any_is_answered_with_all():
    with pytest.raises(ConfigError, match="no algorithm is called 'zzz'; known are floral, "):
        SCHEMA.validate(places.ALGORITHM, {"kind": "zzz"})


@pytest.mark.parametrize(
    ("name", "settings", "private"),
    [
        ("fedper", {"head": ["**/Dense_0/bias"]}, ["params/Dense_0/bias"]),
        ("fedbn", {"norms": ["**/Dense_0/bias"]}, ["params/Dense_0/bias"]),
        ("local_only", {}, ["**"]),
    ],
)
def test_a_named_method_is_partial_with_its_part_private(
    build, simulator, after, name, settings, private
):
    named = after(simulator(build(name, **settings)), 2)
    spelt_out = after(simulator(build("partial", private=private)), 2)
    jax.tree.map(lambda one, other: (one == other).all() or pytest.fail("differs"), named.table,
                 spelt_out.table)  # fmt: skip
    assert all(
        (one == other).all()
        for one, other in zip(
            jax.tree.leaves(named.server), jax.tree.leaves(spelt_out.server), strict=True
        )
    )


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("fedper", {"head": ["Dense_0"]}, "head: 'Dense_0' matches no path"),
        ("fedper", {"head": []}, "head: FedPer keeps at least one layer"),
        ("fedbn", {}, "FedBN needs a model with batch norm, as {kind: mlp, norm: batch}"),
        ("fedbn", {"norms": []}, "norms: FedBN keeps at least one norm"),
        ("floral", {"mu": -1.0}, "mu must not be negative, got -1.0"),
    ],
)
def test_a_named_method_says_what_it_lacks(build, name, settings, said):
    with pytest.raises(SpecError) as caught:
        build(name, **settings)
    assert said in str(caught.value)


def test_without_a_proximal_term_floral_is_floral_and_a_strong_one_holds_base_and_bank(
    build, simulator, after
):
    def moved(**settings):
        sim = simulator(build("floral", **settings))
        start = sim.init(jax.random.key(0))
        end, _ = sim.round(start)
        change = tree.subtract(end.server.base, start.server.base)
        return float(sum((leaf**2).sum() for leaf in jax.tree.leaves(change))), end

    (plain, first), (zero, second) = moved(), moved(mu=0.0)
    assert plain == zero > 0
    assert all(
        (one == other).all()
        for one, other in zip(
            jax.tree.leaves(first.table), jax.tree.leaves(second.table), strict=True
        )
    )
    assert moved(mu=5.0)[0] < plain


def test_the_public_names_of_the_methods_are_there():
    assert {"fedper", "fedbn", "local_only"} <= set(fl.algorithms.__all__)
