"""RESULTS.md is what its script makes of the numbers beside it."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments/floral"


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("results")


def test_the_page_is_made_of_the_numbers_that_are_kept(results):
    explanations = (FOLDER / "explanations.md").read_text(encoding="utf-8")
    page = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    assert page == results.results(FOLDER / "results", explanations)


def test_new_runs_join_the_kept_ones_seed_by_seed(results):
    run = {"accuracy": 0.5, "seconds": 1800.0}
    old = {"digits": {"floral": {0: run, 2: run}, "fedavg": {0: run}}}
    new = {"digits": {"floral": {1: run, 0: {**run, "accuracy": 0.6}}}, "fashion": {"floral": {}}}
    cells = results.joined(old, new)
    assert list(cells["digits"]["floral"]) == [0, 1, 2]
    assert cells["digits"]["floral"][0]["accuracy"] == 0.6
    assert cells["digits"]["fedavg"] == {0: run}
    assert old["digits"]["floral"] == {0: run, 2: run}
    assert results.hours(cells) == 2.0


def test_a_file_that_is_not_there_holds_nothing(results, tmp_path):
    assert results.read_cells(tmp_path / "none.json") == {}
    page = results.results(tmp_path, "what is to be said")
    assert page.endswith("what is to be said")
    assert "not run" in page
    assert "##" not in page
