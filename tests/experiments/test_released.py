"""The released code's server rule on the synthetic linear task: this toolkit beside plain NumPy.

The arrays are of the authors' law (d = 10, rank one, α = 2, ten clients of seven examples), drawn
by this project, and both go from the same start. ``python experiments/floral/released.py`` prints
the same comparison for more rounds.
"""

import importlib
from pathlib import Path

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments/floral"
ROUNDS = (1, 10, 60)


@pytest.fixture(scope="module")
def curves():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        released = importlib.import_module("released")
        found = {}
        for row, rate in released.ROWS.items():
            experiment = released.built(row, 0)
            start, ours = released.toolkit(experiment, 0, ROUNDS)
            plain = {
                other: released.reference(experiment.dataset, start, other, ROUNDS)
                for other in released.ROWS.values()
            }
            found[rate] = ours, plain
        return found


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_a_bank_of_this_rate_follows_the_released_rule(rate, curves):
    ours, plain = curves[rate]
    np.testing.assert_allclose(ours, plain[rate], rtol=1e-4)  # float32 beside float64


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_no_bank_follows_the_rule_of_another_rate(rate, curves):
    ours, plain = curves[rate]
    (other,) = plain.keys() - {rate}
    assert np.all(np.abs(np.divide(ours, plain[other]) - 1)[1:] > 0.1)


def test_the_slower_bank_is_behind(curves):
    assert curves[0.1][0][-1] > 2 * curves[1.0][0][-1]
