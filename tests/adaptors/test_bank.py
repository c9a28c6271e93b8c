import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral.adaptors import (
    Bank,
    Rule,
    add_adaptors,
    additive,
    concatenate,
    init_bank,
    low_rank,
    make_plan,
    merge,
    permute,
    remove_adaptors,
    select,
    truncate,
    weights_at,
)
from floral.errors import SpecError

BASE = {"layer": {"kernel": jnp.ones((5, 4)), "bias": jnp.zeros(4)}, "head": jnp.ones((4, 2))}
PLAN = make_plan([Rule("layer/kernel|head", low_rank(rank=2)), Rule(".*", additive())], BASE)
WEIGHTS = jnp.array([0.5, 0.2, 0.3])


def equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_a_fresh_bank_changes_nothing():
    equal(merge(BASE, init_bank(jax.random.key(0), PLAN, 3), WEIGHTS, PLAN), BASE)


def test_every_adaptor_draws_its_own_factor_and_a_larger_bank_begins_with_the_smaller():
    small, large = (init_bank(jax.random.key(0), PLAN, size) for size in (2, 3))
    drawn = large.trained["layer/kernel"]["a"]
    assert not np.any(np.isclose(drawn[0], drawn[1]))
    assert not np.any(np.isclose(drawn[0, 0, :4], large.trained["head"]["a"][0, 0]))
    equal(permute(large, [0, 1]), small)


def test_leaves_of_one_shape_draw_factors_of_their_own():
    base = {"one": jnp.zeros((4, 3)), "other": jnp.zeros((4, 3))}
    plan = make_plan([Rule(".*", low_rank(rank=2))], base)
    bank = init_bank(jax.random.key(0), plan, 2).trained
    assert not np.allclose(bank["one"]["a"], bank["other"]["a"])


def test_offsets_that_start_at_random_differ_by_adaptor_and_stay_within_their_bound():
    plan = make_plan([Rule(".*/bias", additive(bound=0.5)), Rule(".*", None)], BASE)
    offsets = init_bank(jax.random.key(0), plan, 200).trained["layer/bias"]["offset"]
    assert len(np.unique(offsets)) == offsets.size
    assert 0.49 < np.abs(offsets).max() <= 0.5
    assert np.abs(offsets.mean()) < 0.04  # 800 numbers of deviation 0.29: four standard errors
    with pytest.raises(SpecError, match="bound"):
        additive(bound=-0.5)


def test_merge_is_the_base_and_the_weighted_sum_of_deltas(random_bank):
    bank = random_bank(PLAN)
    merged = merge(BASE, bank, WEIGHTS, PLAN)
    kernel, bias = bank.trained["layer/kernel"], bank.trained["layer/bias"]["offset"]
    deltas = sum(float(WEIGHTS[c]) * kernel["a"][c].T @ kernel["b"][c] for c in range(3))
    np.testing.assert_allclose(merged["layer"]["kernel"], BASE["layer"]["kernel"] + deltas, 1e-5)
    np.testing.assert_allclose(merged["layer"]["bias"], WEIGHTS @ bias, rtol=1e-5)


def test_one_hot_weights_are_the_one_adaptor(random_bank):
    bank = random_bank(PLAN)
    merged = merge(BASE, bank, jnp.array([0.0, 1.0, 0.0]), PLAN)
    one = select(bank, jnp.array(1))["head"]
    np.testing.assert_allclose(merged["head"], BASE["head"] + one["a"].T @ one["b"], rtol=1e-5)


def test_leaves_keep_their_dtype(random_bank):
    base = {"w": jnp.ones((4, 3), jnp.bfloat16)}
    plan = make_plan([Rule("w", low_rank(rank=1))], base)
    assert merge(base, random_bank(plan), WEIGHTS, plan)["w"].dtype == jnp.bfloat16


def test_the_longest_prefix_gives_a_layer_its_mixture(random_bank):
    bank, mine = random_bank(PLAN), jnp.array([0.0, 0.0, 1.0])
    mixed = merge(BASE, bank, {"": WEIGHTS, "layer": mine}, PLAN)
    equal(mixed["head"], merge(BASE, bank, WEIGHTS, PLAN)["head"])
    equal(mixed["layer"], merge(BASE, bank, mine, PLAN)["layer"])
    assert weights_at({"a": 1, "a/b": 2}, "a/b/c") == 2
    assert weights_at({"a": 1, "a/b": 2}, "a/bc") == 1


def test_permuting_adaptors_with_their_weights_changes_nothing(random_bank, close):
    bank, order = random_bank(PLAN), jnp.array([2, 0, 1])
    close(merge(BASE, permute(bank, order), WEIGHTS[order], PLAN), merge(BASE, bank, WEIGHTS, PLAN))


def test_added_adaptors_change_nothing_and_removing_them_restores_the_bank(random_bank, close):
    bank = random_bank(PLAN)
    grown = add_adaptors(bank, jax.random.key(1), PLAN, 2)
    weights = jnp.concatenate([WEIGHTS, jnp.ones(2)])
    close(merge(BASE, grown, weights, PLAN), merge(BASE, bank, WEIGHTS, PLAN))
    equal(remove_adaptors(grown, [3, 4]), bank)
    equal(concatenate(permute(bank, [0]), permute(bank, [1, 2])), bank)


def test_a_truncated_bank_merges_as_the_smaller_rank(random_bank):
    bank = random_bank(PLAN)
    merged = merge(BASE, truncate(bank, PLAN, 1), WEIGHTS, PLAN)
    equal(merged, merge(BASE, bank, WEIGHTS, PLAN, rank=1))
    assert np.any(merged["head"] != merge(BASE, bank, WEIGHTS, PLAN)["head"])


def test_ranks_may_differ_between_clients_of_one_vmap(random_bank, close):
    bank, ranks = random_bank(PLAN), jnp.array([0, 1, 2])
    together = jax.vmap(lambda rank: merge(BASE, bank, WEIGHTS, PLAN, rank=rank))(ranks)
    for index in range(3):
        alone = merge(BASE, bank, WEIGHTS, PLAN, rank=index)
        close(jax.tree.map(lambda leaf, index=index: leaf[index], together), alone)


@pytest.mark.parametrize(
    ("change", "weights", "message"),
    [
        (lambda t: t, jnp.ones(2), r"mixture of '.*' has shape \(2,\), its factor 'a' .*\(3, 2, 4"),
        (lambda t: t, {"layer": WEIGHTS}, "no mixture covers 'head'; prefixes: 'layer'"),
        (lambda t: {**t, "tail": {}}, WEIGHTS, "the bank has 'tail', which the plan leaves alone"),
        (lambda t: {"heed": {}}, WEIGHTS, "the bank lacks .head.; did you mean .heed."),
    ],
)
def test_banks_and_mixtures_that_do_not_fit_are_refused(random_bank, change, weights, message):
    bank = random_bank(PLAN)
    with pytest.raises(SpecError, match=message):
        merge(BASE, Bank(change(bank.trained), bank.fixed), weights, PLAN)


def test_a_base_of_another_model_is_refused(random_bank):
    with pytest.raises(SpecError, match="the base lacks 'head'; did you mean 'heads'"):
        merge({"heads": 1.0, "layer": BASE["layer"]}, random_bank(PLAN), WEIGHTS, PLAN)


def test_no_adaptor_outside_the_bank_can_be_removed(random_bank):
    with pytest.raises(SpecError, match="index must lie between 0 and 2, got 3"):
        remove_adaptors(random_bank(PLAN), [3])
