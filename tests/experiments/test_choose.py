"""What is chosen from a grid's runs looks at validation alone, and its cost is counted whole."""

import json

import pytest

from floral.errors import ConfigError


@pytest.fixture
def script(imported):
    return imported("choose")


@pytest.fixture
def add_method(tmp_path):
    """``(name, validation by round, last test accuracy, operations)``: a finished method."""

    def add(name, validated, test, operations):
        place = tmp_path / name
        place.mkdir()
        last = {"test": {"accuracy": {"mean": test}}, "mixture": {"groups": 4.0}}
        summary = {
            "rounds": 10,
            "last": last,
            "costs": {"operations": operations},
        }
        (place / "summary.json").write_text(json.dumps(summary))
        lines = [
            json.dumps({"round": when, "evaluation": {"validation": {"accuracy": {"mean": value}}}})
            for when, value in validated.items()
        ]
        (place / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return tmp_path

    return add


@pytest.fixture
def grid(script, add_method):
    """Eight cells of 100 operations; the narrow bank validates better first, the wide one last."""
    for index, name in enumerate(script.cells()):
        add_method(name, {10: 0.5}, 0.5 + index / 100, 100.0)
    add_method("floral", {2: 0.6, 10: 0.6}, 0.55, 100.0)
    return add_method("found_10", {2: 0.5, 10: 0.9}, 0.80, 150.0)


def test_the_bank_that_validates_better_when_asked_is_gone_on_with(script, grid):
    early, late = script.choose(grid, share=0.2), script.choose(grid, share=1.0)
    assert (early.chosen, early.test, early.groups) == ("floral", pytest.approx(55.0), 4)
    assert (late.chosen, late.test) == ("found_10", pytest.approx(80.0))
    assert (early.oracle, early.oracle_test) == ("c8_10", pytest.approx(57.0))


def test_both_banks_are_paid_for_up_to_the_choice_and_one_after_it(script, grid):
    assert script.choose(grid, share=0.2).cost == pytest.approx((0.2 * 250 + 0.8 * 100) / 800)
    assert script.choose(grid, share=1.0).cost == pytest.approx(250 / 800)


def test_the_report_has_a_row_a_run_and_a_row_a_rank(script, grid):
    lines = script.report({"one": grid}, 0.2).splitlines()
    assert lines[2].split("|")[5:8] == [" 57.0 ", " -2.0 ", " 16% "]
    assert lines[-2].startswith("| 1 % | 50.0 | 51.0 | 52.0 | 53.0 | 55.0 |")


def test_what_is_missing_is_named(script, grid):
    with pytest.raises(ConfigError, match="nothing was evaluated up to round 1"):
        script.choose(grid, share=0.1)
    (grid / "c4_10/summary.json").unlink()
    with pytest.raises(ConfigError, match="c4_10: not finished"):
        script.choose(grid)


def test_what_is_kept_is_chosen_from_as_its_folder_is(script, grid):
    methods = [*script.cells(), *script.COUNTED]
    cell = {name: {0: {"choice": script.trained(grid / name)._asdict()}} for name in methods}
    kept = json.loads(json.dumps({"digits": cell, "fashion": {"floral": {0: {}}}}))
    kept = {t: {m: {0: r["0"]} for m, r in runs.items()} for t, runs in kept.items()}
    runs = script.kept_runs(kept)
    assert list(runs) == ["digits"]
    assert script.choose(runs["digits"][0]) == script.choose(grid)


def test_the_difference_is_over_seeds(script, grid):
    text = script.report({"one": grid, "two": grid}, 0.2)
    assert "Difference over seeds: -2.0 ± 0.0 points." in text


def test_a_kept_choice_says_what_made_the_runs_that_it_is_of(script, grid, tmp_path):
    run = {"seconds": 2.0, "made": {"commit": "abc", "config": "1", "versions": {"jax": "1"}}}
    cell = {
        name: {0: {**run, "choice": script.trained(grid / name)._asdict()}}
        for name in (*script.cells(), *script.COUNTED)
    }
    script.keep_choices({"digits": cell}, 0.2, tmp_path / "chosen/choose.json")
    kept = json.loads((tmp_path / "chosen/choose.json").read_text())["digits"]["choice"]["0"]
    assert (kept["chosen"], kept["seconds"], kept["made"]["commit"]) == ("floral", 20.0, "abc")
    assert kept["cost"] == script.choose(grid, share=0.2).cost
