"""RESULTS.md is what its script makes of the numbers beside it."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments/floral"


@pytest.fixture
def results(imported):
    return imported("results")


def test_the_page_is_made_of_the_numbers_that_are_kept(results):
    explanations = (FOLDER / "explanations.md").read_text(encoding="utf-8")
    page = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    assert page == results.results(FOLDER / "results", explanations)


@pytest.mark.parametrize("shift", ["rotate", "label_shift"])
@pytest.mark.parametrize("five", ["", "_5"])
def test_the_head_of_a_config_says_what_is_kept(shift, five, imported):
    path = FOLDER.parents[1] / f"configs/floral/mnist_{shift}{five}.yaml"
    head = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line[:1] == "#")
    kept = imported("kept").read_cells(FOLDER / "results/ours.json")

    def shown(images, method):
        runs = kept[f"{images}, {shift}" + (", 5%" if five else "")][method]
        assert list(runs) == [0, 1, 2]
        return imported("table").spread(imported("cells").accuracies(runs).values())

    digits, fashion = (
        [shown(images, method) for method in ("floral", "known_clusters")]
        for images in ("digits", "fashion")
    )
    assert (
        f"seeds 0 to 2, data included: floral {digits[0]}, known_clusters {digits[1]} on digits; "
        f"{fashion[0]} and {fashion[1]} on Fashion-MNIST."
    ) in head


def test_new_runs_join_the_kept_ones_seed_by_seed(results, imported):
    run = {"accuracy": 0.5, "seconds": 1800.0}
    old = {"digits": {"floral": {0: run, 2: run}, "fedavg": {0: run}}}
    new = {"digits": {"floral": {1: run, 0: {**run, "accuracy": 0.6}}}, "fashion": {"floral": {}}}
    cells = imported("kept").joined(old, new)
    assert list(cells["digits"]["floral"]) == [0, 1, 2]
    assert cells["digits"]["floral"][0]["accuracy"] == 0.6
    assert cells["digits"]["fedavg"] == {0: run}
    assert old["digits"]["floral"] == {0: run, 2: run}
    assert results.hours(cells) == 2.0


def test_a_file_that_is_not_there_holds_nothing(results, imported, tmp_path):
    assert imported("kept").read_cells(tmp_path / "none.json") == {}
    page = results.results(tmp_path, "what is to be said")
    assert page.endswith("what is to be said")
    assert "not run" in page
    assert "##" not in page


def test_the_ablations_figure_has_a_row_a_way_and_a_panel_a_task(imported):
    ablation = imported("ablation")
    runs = {"gradient": (0.3, 0.4), "floral": (0.8,), "known_clusters": (0.9, 0.9)}
    cell = {
        way: {
            seed: {"accuracy": accuracy, "seconds": 1.0, "agreement": accuracy}
            for seed, accuracy in enumerate(values)
        }
        for way, values in runs.items()
    }
    page = ablation.figure({"digits": cell, "fashion": {"floral": cell["floral"]}})
    assert [panel.get_title() for panel in page.axes] == ["digits", "fashion"]
    names = [tick.get_text() for tick in page.axes[0].get_yticklabels()]
    assert names == ["gradient", "floral", "known clusters"]
    shown = [text.get_text() for text in page.axes[0].texts]
    assert shown == ["35 %", "80 %", "in their group"]
