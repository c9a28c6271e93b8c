"""The numbers of an evaluation, written out for a few clients."""

import math

import numpy as np
import pytest

from floral.runs.assess import _mixture_numbers, _summary

ACCURACIES = np.array([0.5, 1.0, 0.0, 0.75], np.float32)
EXAMPLES = np.array([2, 1, 3, 4])


def test_a_summary_counts_clients_alike_and_of_examples_examples():
    found = _summary(ACCURACIES, EXAMPLES, largest_is_worst=False)
    assert found == pytest.approx(
        {
            "mean": 2.25 / 4,
            "of_examples": (2 * 0.5 + 1 * 1.0 + 3 * 0.0 + 4 * 0.75) / 10,
            "std": math.sqrt((0.0625**2 + 0.4375**2 + 0.5625**2 + 0.1875**2) / 4),
            "worst": 0.0,
            "worst_decile": 0.0,
            "p10": 0.5 * 0.3,  # between the first and the second of four: 0.1 times 3 places
            "p90": 0.75 + 0.25 * 0.7,
            "gini": (0.5 + 0.5 + 0.25 + 1.0 + 0.25 + 0.75) / (4 * 2.25),  # of all pairs, once
        }
    )
    losses = _summary(ACCURACIES, EXAMPLES, largest_is_worst=True)
    assert (losses["worst"], losses["worst_decile"]) == (1.0, 1.0)


def test_values_below_zero_have_all_numbers_but_an_evenness():
    found = _summary(-ACCURACIES, EXAMPLES, largest_is_worst=False)
    assert math.isnan(found.pop("gini"))
    assert np.isfinite(list(found.values())).all()
    assert found["worst_decile"] == -1.0


def test_mixtures_are_judged_by_the_clients_that_trained_and_newcomers_apart():
    """Three newcomers outvote two clients that trained: what an adaptor stands for is theirs to
    say all the same, and so are the numbers without a prefix."""
    one_hot = np.eye(2)[[0, 1]]
    blurred = np.array([[0.4, 0.6], [0.4, 0.6], [0.6, 0.4]])
    table = {
        "unseen": np.array([True, False, True, False, True]),
        "cluster": np.array([0, 0, 0, 1, 1]),
    }
    weights = np.stack([blurred[0], one_hot[0], blurred[1], one_hot[1], blurred[2]])
    found = _mixture_numbers([weights], table)
    assert (found["agreement"], found["unseen_agreement"]) == (1.0, 0.0)
    assert (found["sharpness"], found["unseen_sharpness"]) == (1.0, 0.0)
    entropy = -0.4 * np.log(0.4) - 0.6 * np.log(0.6)
    assert (found["entropy"], found["unseen_entropy"]) == pytest.approx((0.0, entropy), abs=1e-6)
    assert found["adaptors"] == pytest.approx(2.0)
    assert (found["ari"], found["unseen_ari"]) == (1.0, 1.0)  # whatever the numbering
