import pytest

from floral.experiment.progress import Console
from floral.experiment.report import advice


def ended(**mixture):
    return {"last": {"test": {}, "mixture": mixture}, "seconds": 1.0}


@pytest.mark.parametrize(
    "mixture", [{}, {"entropy": 0.1}, {"groups": 0.0, "bank": 2.0}, {"groups": 4.0, "bank": 4.0}]
)
def test_a_bank_that_serves_all_groups_needs_no_advice(mixture):
    assert advice(ended(**mixture)) is None
    assert advice({"last": {"test": {}}}) is None


def test_a_bank_that_is_too_small_is_told_at_the_end_of_a_run(capsys):
    Console().finish("floral", ended(groups=4.0, bank=2.0))
    said = capsys.readouterr().err
    assert said.startswith("floral: the clients' data show 4 groups, and there are 2 adaptors")
    assert said.strip().endswith("set algorithm.num_adaptors or num_models to 4")
