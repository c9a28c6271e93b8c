"""The table of runs over seeds, and the one beside published numbers, on made-up run folders."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from floral.errors import ConfigError
from floral.metrics import over_seeds

FOLDER = Path(__file__).parents[2] / "experiments/floral"


@pytest.fixture
def runs_table(imported):
    return imported("table")


@pytest.fixture(scope="module")
def published():
    return json.loads((FOLDER / "published.json").read_text(encoding="utf-8"))


@pytest.fixture
def three(tmp_path, add_run):
    """Three seeds of two methods."""
    known, floral = (0.90, 0.92, 0.94), (0.89, 0.93, 0.94)
    return [
        add_run(tmp_path, f"run-{s}", s, {"floral": floral[s], "known_clusters": known[s]})
        for s in range(3)
    ]


def rows_of(text):
    """The cells of a Markdown table's rows, by the first."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert len({len(row) for row in cells}) == 1
    return cells


def test_a_cell_is_the_mean_and_deviation_over_seeds(runs_table, three):
    head, _, floral, known, *_ = rows_of(runs_table.table(runs_table.collect(three)))
    assert head == ["method", "digits, rotate (3 seeds)"]
    assert floral == ["`floral`", "92.0 ± 2.6"]
    assert known == ["`known_clusters`", "92.0 ± 2.0"]


def test_pairs_have_a_t_interval_and_a_p_value(runs_table, three):
    *_, paired = rows_of(runs_table.table(runs_table.collect(three)))
    theirs = stats.ttest_rel([89.0, 93.0, 94.0], [90.0, 92.0, 94.0])
    low, high = theirs.confidence_interval(0.95)
    assert paired == [
        "`floral` less `known_clusters`, paired",
        f"+0.0 ± 1.0 [{low:+.1f}, {high:+.1f}], p {theirs.pvalue:.3f}",
    ]


def test_pairs_are_of_the_seeds_that_both_have(runs_table, tmp_path, add_run):
    folders = [
        add_run(tmp_path, "a", 0, {"floral": 0.9, "known_clusters": 0.8}),
        add_run(tmp_path, "b", 1, {"floral": 0.1}),
    ]
    text = runs_table.table(runs_table.collect(folders))
    assert ["`floral` less `known_clusters`, paired", "+10.0"] in rows_of(text)


def test_found_groups_stand_in_brackets(runs_table, tmp_path, add_run):
    folders = [
        add_run(tmp_path, str(seed), seed, {"floral": 0.5}, agreement=share)
        for seed, share in enumerate([0.9, 1.0])
    ]
    assert ["`floral`", "50.0 ± 0.0 (95)"] in rows_of(runs_table.table(runs_table.collect(folders)))


def test_other_rounds_and_other_numbers_can_be_asked_for(runs_table, tmp_path, add_run):
    folder = add_run(tmp_path, "run", 0, {"floral": 1.0}, rounds=500)

    def found(**how):
        return runs_table.collect([folder], **how)["digits, rotate"]["floral"][0]["accuracy"]

    assert found() == 1.0
    assert found(at="last_bin") == pytest.approx(0.5 + 0.5 * 497.5 / 500)  # of rounds 495 to 500
    assert found(number="worst_decile") == 0.5
    with pytest.raises(ConfigError, match="run/floral: best: no number of validation data"):
        found(at="best")
    with pytest.raises(ConfigError, match="recorded no 'median', but mean, worst_decile"):
        found(number="median")


def test_runs_that_differ_in_more_than_their_seed_make_no_cell(runs_table, tmp_path, add_run):
    folders = [
        add_run(tmp_path, "a", 0, {"floral": 0.9}, local={"learning_rate": 0.1}),
        add_run(tmp_path, "b", 1, {"floral": 0.9}, local={"learning_rate": 0.2}),
    ]
    with pytest.raises(ConfigError, match=r"differs from .*a/floral in local, and not in its seed"):
        runs_table.collect(folders)


def test_one_seed_counts_once(runs_table, tmp_path, add_run):
    folders = [add_run(tmp_path, name, 0, {"floral": 0.9}) for name in "ab"]
    with pytest.raises(ConfigError, match="another run of digits, rotate with seed 0"):
        runs_table.collect(folders)


# Beside published numbers.


def test_the_published_table_is_whole_and_says_what_it_is(published):
    assert "arXiv 2410.03497, Table 1" in published["source"]
    assert "not one of them was measured by this project" in published["what"]
    assert len(published["rows"]) == 8
    assert all(len(row) == len(published["columns"]) == 10 for row in published["rows"].values())
    assert set(published["tasks"].values()) <= set(published["columns"])
    for names in published["counterparts"].values():
        assert {c["row"] for c in names.values()} <= set(published["rows"])
    faithful = published["counterparts"]["as_published"].values()
    assert sorted(c["row"] for c in faithful) == sorted(published["rows"])
    # A column and a row of the publication, read anew.
    assert [row[3] for row in published["rows"].values()] == [
        [23.2, 0.9],
        [32.0, 2.3],
        [86.4, 0.4],
        [87.6, 1.3],
        [46.0, 9.9],
        [87.6, 0.5],
        [70.8, 7.1],
        [86.9, 0.5],
    ]
    assert [mean for mean, _ in published["rows"]["FLoRAL(1%), known groups"]] == [
        *(93.9, 93.7, 87.5, 87.6, 68.9, 72.2, 47.8, 44.1, 82.4, 53.1)
    ]


def test_cells_stand_beside_their_published_counterparts(runs_table, published, three):
    _, _, *rows = rows_of(runs_table.beside(runs_table.collect(three), published))
    label, row = "MNIST, rotated", "FLoRAL(1%), "
    assert [cells[:5] for cells in rows] == [
        [label, "`floral` (1)", row + "learned mixtures", "92.0 ± 2.6 (3)", "91.3 ± 0.6 (3)"],
        [label, "`known_clusters` (2)", row + "known groups", "92.0 ± 2.0 (3)", "93.9 ± 0.8 (3)"],
    ]
    theirs = stats.ttest_ind_from_stats(92.0, 2.0, 3, 93.9, 0.8, 3, equal_var=False)
    assert rows[1][5:] == ["-1.9", f"{theirs.statistic:+.1f}", f"{theirs.pvalue:.3f}"]


def test_what_is_far_from_what_was_published_is_bold(runs_table):
    theirs = (50.0, 1.0, 3)
    for shift in (0.5, 1.0, 1.5, 2.0, -0.5, -2.0):
        values = [50.0 + shift + step for step in (-1.0, 0.0, 1.0)]
        errors = (over_seeds(values).mean - 50.0) / (2 / 3) ** 0.5
        *_, shown, _ = runs_table.compared(values, theirs)
        assert shown == (f"**{errors:+.1f}**" if abs(errors) > 2 else f"{errors:+.1f}")


def test_one_seed_has_a_difference_and_no_error(runs_table):
    assert runs_table.compared([51.0], (50.0, 1.0, 3)) == [
        "51.0 (1)",
        "50.0 ± 1.0 (3)",
        "+1.0",
        "–",
        "–",
    ]


def test_what_has_no_counterpart_is_left_out(runs_table, published, tmp_path, add_run):
    folder = add_run(tmp_path, "run", 0, {"other": 0.9}, keep=0.05)
    _, _, *rows = rows_of(runs_table.beside(runs_table.collect([folder]), published))
    assert rows == []


def test_the_script_prints_both_tables_and_keeps_the_numbers(three, tmp_path):
    kept = tmp_path / "results.json"
    script, numbers = FOLDER / "table.py", FOLDER / "published.json"
    command = [sys.executable, script, *three, "--json", kept, "--published", numbers]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.count("| --- | ---: |") == 2
    assert "Published: Almansoori" in said
    assert "| `floral` |" in said
    held = json.loads(kept.read_text())["digits, rotate"]["known_clusters"]
    assert held == {
        str(s): {"accuracy": a, "seconds": 2.5} for s, a in enumerate((0.90, 0.92, 0.94))
    }
