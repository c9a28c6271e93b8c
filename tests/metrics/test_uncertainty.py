"""Intervals and tests against closed forms, and against SciPy's own."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from floral.errors import SpecError
from floral.metrics import (
    between_clients,
    between_seeds,
    over_clients,
    over_seeds,
    uncertainty,
    welch,
)

# Thousandths, so that no spread is one of rounding alone.
thousandths = st.integers(-1000, 1000).map(lambda n: n / 1000)
samples = st.lists(thousandths, min_size=2, max_size=12)
pairs = st.lists(st.tuples(thousandths, thousandths), min_size=2, max_size=12)
levels = st.sampled_from([0.5, 0.9, 0.95, 0.99])


def by_seed(values):
    return dict(enumerate(values))


# Seeds.


def test_two_seeds_have_the_interval_of_cauchy():
    """With one degree of freedom, t is Cauchy's: its 0.975 quantile is tan(0.475 π)."""
    found = over_seeds([1.0, 3.0])
    reach = np.tan(0.475 * np.pi)  # times the standard error, which is 1
    assert found[:4] == pytest.approx((2.0, np.sqrt(2), 2, 1.0))
    assert (found.low, found.high) == pytest.approx((2 - reach, 2 + reach))


@given(samples, levels)
def test_an_interval_over_seeds_is_scipys(values, confidence):
    found = over_seeds(values, confidence=confidence)
    assume(found.sd > 0)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=1e-9)
    assert found.error == pytest.approx(stats.sem(values))


@given(samples, st.floats(-10, 10), st.floats(0.125, 8))
def test_an_interval_moves_and_stretches_with_its_values(values, shift, scale):
    found, moved = over_seeds(values), over_seeds(np.array(values) * scale + shift)
    assert moved.mean == pytest.approx(found.mean * scale + shift, abs=1e-9)
    assert moved.low == pytest.approx(found.low * scale + shift, abs=1e-9)
    assert moved.sd == pytest.approx(found.sd * scale, abs=1e-9)


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [over_seeds(rng.normal(size=3), confidence=0.8) for _ in range(2_000)]
    held = np.mean([f.low <= 0 <= f.high for f in found])
    assert held == pytest.approx(0.8, abs=0.03)  # three standard deviations of the share


@given(pairs)
def test_a_paired_difference_is_scipys(rows):
    one, other = map(list, zip(*rows, strict=True))
    assume(len({round(a - b, 6) for a, b in rows}) > 1)
    found = between_seeds(by_seed(one), by_seed(other))
    theirs = stats.ttest_rel(one, other)
    interval = theirs.confidence_interval(0.95)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=1e-9)
    assert found.mean / found.error == pytest.approx(theirs.statistic, abs=1e-6)


@given(pairs)
def test_a_difference_turned_round_changes_its_sign_alone(rows):
    one, other = (by_seed(values) for values in zip(*rows, strict=True))
    forth, back = between_seeds(one, other), between_seeds(other, one)
    assert (forth.mean, forth.low, forth.high) == pytest.approx(
        (-back.mean, -back.high, -back.low), abs=1e-12
    )
    assert (forth.sd, forth.p) == pytest.approx((back.sd, back.p))


def test_pairing_takes_out_what_seeds_share():
    seeds = {0: 0.1, 1: 0.5, 2: 0.9}
    better = {seed: value + 0.01 + 0.001 * seed for seed, value in seeds.items()}
    assert between_seeds(better, seeds).p < 0.01
    one, other = (over_seeds(list(values.values())) for values in (better, seeds))
    assert welch(one[:3], other[:3]).p > 0.9


def test_pairs_are_made_by_seed_and_not_by_order():
    found = between_seeds({1: 5.0, 0: 3.0}, {0: 2.0, 1: 3.0})
    assert (found.mean, found.sd) == pytest.approx((1.5, np.sqrt(0.5)))  # of 1 and 2


def test_no_difference_at_all_is_certain_to_be_as_large():
    same = {0: 0.1, 1: 0.2}
    assert between_seeds(same, same)[:3] == (0.0, 0.0, 0.0)
    assert between_seeds(same, same).p == 1.0
    assert between_seeds({0: 1.5, 1: 2.5}, {0: 1.0, 1: 2.0}).p == 0.0


def test_a_difference_of_rounding_alone_is_none():
    one, other = 0.1 + 0.2, 0.3
    assert one != other
    assert between_seeds({0: one, 1: one}, {0: other, 1: other}).p == 1.0
    assert welch((one, 0.0, 3), (other, 0.0, 3)).p == 1.0
    assert between_seeds({0: 0.3001, 1: 0.3001}, {0: other, 1: other}).p < 1e-9


@given(samples, samples)
def test_welch_is_scipys_from_the_same_few_numbers(one, other):
    left, right = over_seeds(one), over_seeds(other)
    assume(left.sd + right.sd > 0)
    found = welch(left[:3], right[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where one side has no spread at all
        theirs = stats.ttest_ind(one, other, equal_var=False)
    assert found.error == pytest.approx(np.hypot(left.sd / len(one) ** 0.5, right.error))
    assert found.mean / found.error == pytest.approx(theirs.statistic, abs=1e-6)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-6)
    assert np.isnan(found.sd)


def test_welch_of_equal_groups_has_the_freedom_of_both():
    found = welch((1.0, 2.0, 5), (1.0, 2.0, 5), confidence=0.95)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 8) * 2 * np.sqrt(2 / 5))
    assert found.p == 1.0


def test_welch_of_numbers_without_spread_is_yes_or_no():
    assert welch((1.0, 0.0, 3), (1.0, 0.0, 3)).p == 1.0
    assert welch((1.0, 0.0, 3), (2.0, 0.0, 3)).p == 0.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: over_seeds([0.5]), "at least 2 seeds to say how much they differ, got 1"),
        (lambda: over_seeds([0.5, float("nan")]), "values must be a list of finite numbers"),
        (lambda: over_seeds([0.5, 0.6], confidence=1.0), "between 0 and 1, such as 0.95, got 1.0"),
        (lambda: between_seeds({0: 1.0}, {0: 1.0}), "at least 2 seeds"),
        (
            lambda: between_seeds({0: 1.0, 1: 1.0, 2: 1.0}, {0: 1.0, 1: 1.0, 3: 1.0}),
            r"got \[0, 1, 2\] and \[0, 1, 3\]; leave out 2, 3",
        ),
        (lambda: welch((1.0, 1.0, 1), (1.0, 1.0, 3)), "one must be of at least 2 seeds"),
        (lambda: welch((1.0, 1.0, 3), (1.0, -1.0, 3)), "other's standard deviation must not be"),
        (lambda: over_clients([0.5], seed=0), "at least 2 clients to draw from, got 1"),
        (lambda: over_clients([0.5, 1.0], seed=0, examples=[1]), "for each of the 2 clients"),
        (lambda: over_clients([0.5, 1.0], seed=0, examples=[1, 0]), "leave out clients that have"),
        (lambda: over_clients([0.5, 1.0], seed=0, resamples=1), "resamples must be at least 2"),
        (lambda: between_clients([1.0, 2.0], [1.0, 2.0, 3.0], seed=0), "got 2 and 3 of them"),
    ],
)
def test_what_cannot_be_estimated_is_said(call, said):
    with pytest.raises(SpecError, match=said):
        call()


# Clients.


@given(st.lists(thousandths, min_size=2, max_size=30), st.integers(0, 9))
def test_a_bootstrap_repeats_itself_and_stays_within_its_clients(values, seed):
    found = over_clients(values, seed=seed, resamples=50)
    assert found == over_clients(values, seed=seed, resamples=50)
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)


def test_another_seed_draws_other_clients():
    values = np.random.default_rng(0).normal(size=40)
    assert over_clients(values, seed=0) != over_clients(values, seed=1)


def test_a_bootstrap_over_clients_is_scipys():
    values = np.random.default_rng(1).beta(8, 2, size=200)
    found = over_clients(values, seed=0, resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(9)
    )
    # Both ends of either scatter by about a hundredth of a standard error, of which they are two.
    near = {"abs": 0.06 * found.error}
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), **near)
    assert found.error == pytest.approx(theirs.standard_error, rel=0.03)
    assert found.error == pytest.approx(values.std() / np.sqrt(200), rel=0.03)  # the closed form


def test_accuracies_weighted_by_examples_count_right_answers():
    right, examples = np.array([1, 0, 7, 30]), np.array([1, 4, 7, 40])
    found = over_clients(right / examples, seed=0, examples=examples)
    assert found.mean == pytest.approx(right.sum() / examples.sum())
    alike = over_clients(right / examples, seed=0, examples=np.full(4, 9))
    plain = over_clients(right / examples, seed=0)
    assert tuple(alike) == pytest.approx(tuple(plain))


def test_draws_do_not_depend_on_how_many_are_taken_at_once(monkeypatch):
    values = np.random.default_rng(0).normal(size=16)
    whole = over_clients(values, seed=0, resamples=20)
    monkeypatch.setattr(uncertainty, "_DRAWN_AT_ONCE", 7 * 16)
    assert over_clients(values, seed=0, resamples=20) == whole


def test_clients_are_paired():
    hard = np.random.default_rng(0).normal(size=100)
    found = between_clients(hard + 0.1, hard, seed=0)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    crossed = between_clients(hard + 0.1, hard[::-1], seed=0)
    assert crossed.low < 0 < crossed.high
