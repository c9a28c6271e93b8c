"""The plan of runs: every cell can be read, has a name of its own, and is run once."""

import pytest


@pytest.fixture
def rerun(imported):
    return imported("rerun")


@pytest.fixture
def kept(rerun):
    """A cell of the plan, and the same as it would be kept."""
    cell = next(rerun.cells_of(rerun.PLAN[0]))
    made = {
        "commit": "0123456789ab",
        "config": rerun.digest(cell.config),
        "versions": {"jax": "1"},
        "command": "python experiments/floral/rerun.py",
    }
    return cell, {"accuracy": 0.5, "seconds": 1.0, "made": made}


def test_a_name_stands_for_one_config(rerun):
    found = {}
    for batch in dict.fromkeys(batch._replace(seeds=range(1)) for batch in rerun.PLAN):
        cells = list(rerun.cells_of(batch))
        assert {cell.method for cell in cells} >= set(batch.methods)
        for cell in cells:
            config = rerun.digest(cell.config)
            assert found.setdefault(cell.name, config) == config
    places = {name.rpartition("/")[0] for name in found}
    assert len(places) == len(found)


def test_what_is_kept_with_what_made_it_is_not_run_again(rerun, kept):
    cell, run = kept
    assert rerun.missing({}, cell)
    section = {cell.task: {cell.method: {cell.seed: run}}}
    assert not rerun.missing(section, cell)
    assert not rerun.changed(section, cell)


def test_what_is_kept_of_another_config_is_run_again_if_asked(rerun, kept):
    cell, run = kept
    other = {**run, "made": {**run["made"], "config": "another"}}
    section = {cell.task: {cell.method: {cell.seed: other}}}
    assert not rerun.missing(section, cell)
    assert rerun.changed(section, cell)


@pytest.mark.parametrize("change", [{"commit": None}, {"versions": {}}, {"config": ""}])
def test_what_is_kept_of_unknown_origin_is_run_again(change, rerun, kept):
    cell, run = kept
    other = {**run, "made": {**run["made"], **change}}
    assert rerun.missing({cell.task: {cell.method: {cell.seed: other}}}, cell)


def test_a_cell_is_evaluated_after_its_last_round(rerun, kept):
    cell, _ = kept
    assert cell.config["evaluate"]["every"] == cell.config["rounds"]
