"""Which evaluation a run's numbers are taken from."""

import json
from statistics import mean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from floral.errors import ConfigError
from floral.records.history import (
    CHOICES,
    best_validated,
    last_bin,
    last_round,
    mismatch_decay,
)


def lines(rounds, every=1, value=float):
    """A run whose test accuracy after a round is that round's ``value``."""
    return [
        {"round": taken}
        if taken % every and taken != rounds
        else {"round": taken, "evaluation": {"test": {"accuracy": {"mean": value(taken)}}}}
        for taken in range(1, rounds + 1)
    ]


def validated(values, losses=None):
    losses = [1.0] * len(values) if losses is None else losses
    return [
        {
            "round": taken,
            "evaluation": {
                "validation": {"accuracy": {"mean": value}, "loss": {"mean": loss}},
                "at": taken,
            },
        }
        for taken, (value, loss) in enumerate(zip(values, losses, strict=True), 1)
    ]


def accuracy(numbers):
    return numbers["test"]["accuracy"]["mean"]


def test_choices_are_those_of_the_summary(whole):
    recorded = [
        json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()
    ]
    (summary,) = whole.summaries.values()
    assert CHOICES["last"](recorded) == summary["last"]
    assert {"round": summary["best"]["round"], **CHOICES["best"](recorded)} == summary["best"]


@pytest.mark.parametrize(("rounds", "of"), [(500, 6), (1500, 16)])
def test_the_published_bin_is_the_last_hundredth_of_the_rounds(rounds, of):
    assert accuracy(last_bin(lines(rounds))) == pytest.approx(
        mean(range(rounds - of + 1, rounds + 1))
    )


@given(st.integers(1, 50), st.integers(1, 60))
def test_of_no_more_than_fifty_evaluations_the_last_is_the_bin(count, every):
    run = lines(count * every, every)
    assert last_bin(run) == last_round(run)


@given(st.integers(1, 200), st.integers(1, 80))
def test_a_bin_of_equal_numbers_is_that_number(rounds, bins):
    run = lines(rounds, value=lambda _: 0.5)
    assert last_bin(run, bins=bins) == last_round(run)


def test_one_bin_takes_the_later_half():
    assert accuracy(last_bin(lines(11), bins=1)) == mean(range(6, 12))


def test_a_number_that_is_missing_once_is_missing():
    run = lines(500)
    run[-2]["evaluation"]["test"]["accuracy"]["mean"] = None
    assert accuracy(last_bin(run)) is None
    assert accuracy(last_round(run)) == 500


def test_the_first_of_equal_rounds_is_best():
    assert best_validated(validated([0.5, 0.9, 0.9, 0.7]))["at"] == 2
    assert best_validated(validated([0.5, 0.9, 0.9 + 1e-9]))["at"] == 2  # equal as float32
    assert best_validated(validated([0.5, 0.9, 0.91]))["at"] == 3


def test_without_an_accuracy_the_least_loss_is_best():
    run = [
        {"round": taken, "evaluation": {"validation": {"loss": {"mean": loss}}, "at": taken}}
        for taken, loss in enumerate([3.0, 1.0, 2.0], 1)
    ]
    assert best_validated(run)["at"] == 2


def test_a_round_that_diverged_is_never_best():
    run = validated([0.9, 0.7, 0.8, None], losses=[None, 1.0, None, None])  # as NaN is recorded
    assert best_validated(run)["at"] == 2


def test_what_was_never_validated_has_no_best():
    with pytest.raises(ConfigError, match="no number of validation data to choose a round by, got"):
        best_validated(lines(3))


def test_a_run_that_diverged_before_it_was_evaluated_has_no_best():
    with pytest.raises(ConfigError, match="no evaluated round has a finite validation loss"):
        best_validated(validated([0.9, 0.8], losses=[None, None]))


@pytest.mark.parametrize("choose", CHOICES.values())
def test_a_run_that_was_never_evaluated_is_named(choose):
    with pytest.raises(ConfigError, match="recorded 1 rounds and not one evaluation"):
        choose([{"round": 1}])


def mismatched(points):
    """A run of which each evaluation, after so many rounds, has such a mismatch."""
    return [
        {"round": taken, "evaluation": {"mixture": {"mismatch": value}}} for taken, value in points
    ]


@given(st.floats(-1, 3), st.floats(0.01, 2), st.integers(3, 30), st.integers(1, 50))
def test_the_decay_of_a_power_law_is_its_power(power, first, count, every):
    rounds = range(every, every * (count + 1), every)
    points = [(t, first * t ** (-power / 2)) for t in rounds]
    assume(all(mismatch > 2e-6 for _, mismatch in points))  # smaller ones are rounding, left out
    found = mismatch_decay(mismatched(points))
    assert found == pytest.approx(power, abs=1e-6)


def test_mixtures_that_stay_as_they_are_do_not_decay():
    assert mismatch_decay(mismatched((t, 0.7) for t in range(1, 9))) == pytest.approx(0, abs=1e-9)


def test_three_evaluations_with_a_mismatch_make_a_decay():
    points = [(1, 1.0), (2, 0.5), (4, 0.25)]
    assert mismatch_decay(mismatched(points)) == pytest.approx(2)
    with_others = [
        *mismatched(points),
        *mismatched([(8, 0.0), (9, 1e-9), (16, None)]),
        {"round": 17},
    ]
    assert mismatch_decay(with_others) == pytest.approx(2)
    assert mismatch_decay(mismatched(points[:2])) is None
    assert mismatch_decay(lines(10)) is None
