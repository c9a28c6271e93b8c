import jax
import jax.numpy as jnp
import pytest

from floral.adaptors import (
    Adaptor,
    Rule,
    additive,
    bank_parameters,
    format_table,
    low_rank,
    make_plan,
    plan_table,
)
from floral.errors import SpecError

PARAMS = {
    "params": {
        "Dense_0": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)},
        "Dense_1": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
    }
}


def kinds(plan):
    return {path: adaptor.kind for path, adaptor in plan.adaptors.items()}


def test_the_first_matching_rule_decides_and_none_leaves_alone():
    rules = [
        Rule(".*/Dense_1/.*", None),
        Rule(".*/kernel", low_rank(rank=1)),
        Rule(".*", additive()),
    ]
    plan = make_plan(rules, PARAMS)
    assert kinds(plan) == {"params/Dense_0/bias": "additive", "params/Dense_0/kernel": "low_rank"}
    assert len(plan.leaves) == 4


def test_a_rule_matches_whole_paths_only():
    plan = make_plan([Rule("params/Dense_0/kernel", low_rank(rank=1))], PARAMS)
    assert list(plan.adaptors) == ["params/Dense_0/kernel"]
    with pytest.raises(SpecError, match="matched none"):
        make_plan([Rule("kernel", low_rank(rank=1))], PARAMS)


def test_arrays_and_structs_make_the_same_plan():
    rules = [Rule(".*/kernel", low_rank(rank=1))]
    structs = jax.eval_shape(lambda: PARAMS)
    assert make_plan(rules, PARAMS) == make_plan(rules, structs)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [Rule(".*/Dens_0/kernel", additive())],
            "rule '.*/Dens_0/kernel' matched none of 4 parameters; did you mean",
        ),
        ([Rule("(", additive())], "rule '(' is no regular expression"),
        (
            [Rule(".*/kernel", None), Rule(".*/Dense_0/kernel", additive())],
            "rule '.*/Dense_0/kernel' decides nothing: all its 1 parameters are taken by earlier "
            "rules, 'params/Dense_0/kernel' by '.*/kernel'",
        ),
        (
            [Rule(".*/Dense_1/kernel", low_rank(rank=3))],
            "low_rank does not fit 'params/Dense_1/kernel': rank 3 is above 2, the largest for "
            "shape (4, 2)",
        ),
        (
            [Rule(".*/bias", Adaptor(lambda key, leaf: ({}, ()), lambda t, f: jnp.ones(3)))],
            "adaptor does not fit 'params/Dense_0/bias': its delta has shape (3,), the leaf (4,)",
        ),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules, message):
    with pytest.raises(SpecError) as error:
        make_plan(rules, PARAMS)
    assert message in str(error.value)


def test_integer_leaves_are_refused():
    with pytest.raises(SpecError, match="'count' is of dtype int32"):
        make_plan([Rule(".*", additive())], {"count": jnp.zeros(3, int)})


def test_the_table_counts_what_one_adaptor_trains():
    plan = make_plan([Rule(".*/kernel", low_rank(rank=2)), Rule(".*_0/bias", additive())], PARAMS)
    rows = {row.path: row for row in plan_table(plan, {"params/Dense_0/kernel": "fast"})}
    assert rows["params/Dense_0/kernel"][1:] == ((8, 4), "low_rank", 2, 24, 0.75, "fast")
    assert rows["params/Dense_0/bias"][1:] == ((4,), "additive", None, 4, 1.0, "-")
    assert rows["params/Dense_1/bias"][1:] == ((2,), "-", None, 0, 0.0, "-")
    assert sum(row.parameters for row in rows.values()) == bank_parameters(plan) == 40
    lines = format_table(list(rows.values())).splitlines()
    assert len(lines) == 6
    assert lines[-1].split() == ["total", "40", "87.0%"]
