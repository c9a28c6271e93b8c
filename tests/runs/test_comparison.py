"""Runs of several seeds side by side: on made-up folders, and on a real run of one seed."""

import pyarrow.parquet
import pytest
from scipy import stats

import floral
from floral.cli import main
from floral.errors import ConfigError, SpecError
from floral.metrics import over_clients
from floral.reports.seed_figure import seed_curves, seeds_figure
from floral.reports.seeds import collect

ACCURACIES = {"floral": (0.89, 0.93, 0.94), "fedavg": (0.90, 0.92, 0.94)}


@pytest.fixture
def three(tmp_path, add_run):
    """Three seeds of two methods."""
    return [
        add_run(tmp_path, f"run-{seed}", seed, {name: a[seed] for name, a in ACCURACIES.items()})
        for seed in range(3)
    ]


def rows_of(text):
    """The cells of the table's rows, by the method."""
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| `")]
    return {line[0].strip(" `"): [cell.strip() for cell in line[1:]] for line in lines}


def test_seeds_of_a_task_make_a_row_a_method_with_t_intervals(three):
    rows = rows_of(floral.compare(three, against="fedavg"))
    found = stats.ttest_1samp([90.0, 92.0, 94.0], 0).confidence_interval(0.95)
    interval = f"[{found.low:.1f}, {found.high:.1f}]"
    assert rows["fedavg"] == ["3 (0, 1, 2)", "92.0 ± 2.0", interval, "–", "–", "–", "–"]
    theirs = stats.ttest_rel([89.0, 93.0, 94.0], [90.0, 92.0, 94.0])
    low, high = theirs.confidence_interval(0.95)
    assert rows["floral"][4:] == ["+0.0 ± 1.0", f"[{low:+.1f}, {high:+.1f}]", "1.000"]


def test_other_data_make_another_table_and_other_seeds_do_not(three, tmp_path, add_run):
    other = add_run(tmp_path, "scarce", 0, {"floral": 0.5}, keep=0.1)
    text = floral.compare([*three, other], number="worst_decile")
    assert [line for line in text.splitlines() if line.startswith("##")] == [
        "## run-0",
        "## scarce",
    ]


def test_one_seed_is_resampled_over_the_clients_that_trained(whole):
    (row,) = rows_of(floral.compare([whole.folder])).values()
    *_, newest = sorted((whole.folder / "clients").glob("*.parquet"))
    table = pyarrow.parquet.read_table(newest)
    seen = ~table["unseen"].to_numpy()
    found = over_clients(table["test_loss"].to_numpy()[seen], seed=0)
    assert 0 < seen.sum() < len(seen)
    assert row[:3] == [
        "1 (0)",
        f"{found.mean:.3g}",
        f"[{found.low:.3g}, {found.high:.3g}] over clients",
    ]


def test_differences_of_one_seed_are_paired_client_by_client(config, tmp_path):
    methods = {"same": {}, "still": {"local": {"learning_rate": 1e-9}}}
    given = config(rounds=2, algorithm={"kind": "fedavg"}, compare=methods)
    result = floral.run(given, out=tmp_path, name="run")
    rows = rows_of(floral.compare([result.folder]))
    assert rows["same"][4:] == ["+0", "[+0, +0] over clients", "–"]
    low, high = (float(n) for n in rows["still"][5].split("]")[0].strip("[").split(","))
    assert low < float(rows["still"][4]) < high


def test_numbers_that_are_no_means_over_clients_have_no_interval_of_one_seed(three):
    rows = rows_of(floral.compare(three[:1], number="worst_decile"))
    assert rows["floral"] == ["1 (0)", "44.5", "–", "–", "–", "–", "–"]
    assert rows["fedavg"][4:] == ["+0.5", "–", "–"]


def test_the_command_line_prints_and_writes_it(three, tmp_path, capsys):
    out = tmp_path / "table.md"
    folders = [str(folder) for folder in three]
    assert main(["report", *folders, "--against", "fedavg", "--out", str(out)]) == 0
    assert capsys.readouterr().out == out.read_text() + "\n"
    assert out.read_text() == floral.compare(three, against="fedavg")
    assert main(["report", *folders, "--against", "fedavgg"]) == 1
    assert "against: no run of 'fedavgg', but of floral, fedavg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"at": "lst"}, SpecError, "at must be one of last, best, last_bin; got 'lst'"),
        ({"at": "best"}, ConfigError, "run-0/floral: best: no number of validation data"),
        ({"number": "median"}, ConfigError, "recorded no 'median', but mean, worst_decile"),
    ],
)
def test_what_was_not_recorded_is_refused(three, settings, error, message):
    with pytest.raises(error, match=message):
        floral.compare(three, **settings)


@pytest.mark.parametrize("with_figure", [False, True])
def test_a_run_that_diverged_is_named_and_not_counted(with_figure, three, tmp_path):
    path = three[1] / "floral" / "metrics.jsonl"
    *before, last = path.read_text().splitlines()
    path.write_text("\n".join([*before, last.replace("0.93", "null")]) + "\n")
    figure = tmp_path / "curves.png" if with_figure else None
    with pytest.raises(
        ConfigError,
        match=r"run-1/floral: mean of its test accuracy is not finite at 'last', .* leave that",
    ):
        floral.compare(three, figure=figure)
    assert not (tmp_path / "curves.png").exists()


def test_folders_without_a_finished_run_are_refused(tmp_path, add_run):
    with pytest.raises(ConfigError, match="nothing: no run folder"):
        floral.compare([tmp_path / "nothing"])
    unfinished = add_run(tmp_path, "unfinished", 0, {})
    with pytest.raises(ConfigError, match="no finished run in these folders"):
        floral.compare([unfinished])


def test_a_seed_is_counted_once(three, tmp_path, add_run):
    again = add_run(tmp_path, "again", 2, {"floral": 0.9})
    with pytest.raises(ConfigError, match="another run of run-0 with seed 2"):
        floral.compare([*three, again])


def test_runs_that_differ_in_settings_are_rows_of_their_own(three, tmp_path, add_run):
    others = [
        add_run(tmp_path, f"other-{seed}", seed, {"floral": 0.8}, cohort={"size": 3}, rounds=8)
        for seed in (0, 1)
    ]
    rows = rows_of(floral.compare([*three, *others], against="fedavg"))
    assert list(rows) == [
        "floral rounds=4 cohort.size=(none)",
        "floral rounds=8 cohort.size=3",
        "fedavg",
    ]
    assert rows["floral rounds=8 cohort.size=3"][:2] == ["2 (0, 1)", "80.0 ± 0.0"]


def test_a_column_has_one_kind_of_interval_and_what_is_missing_is_named(three, tmp_path):
    (three[2] / "floral" / "summary.json").unlink()
    (three[1] / "floral" / "summary.json").unlink()
    text = floral.compare(three)
    rows = rows_of(text)
    assert rows["floral"][:3] == ["1 (0)", "89.0", "–"]
    assert rows["fedavg"][0] == "3 (0, 1, 2)"
    assert f"left out: {three[1] / 'floral'}, {three[2] / 'floral'}." in text


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_curves_over_seeds_are_drawn_in_the_format_of_the_suffix(three, tmp_path, suffix):
    path = tmp_path / f"curves.{suffix}"
    floral.compare(three, figure=path)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)


def test_another_suffix_is_refused_and_leaves_nothing(three, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in one of \.png, \.pdf, \.svg"):
        floral.compare(three, figure=tmp_path / "curves.bmp")
    assert not list(tmp_path.glob("*curves*"))


def test_a_crowded_figure_has_a_panel_for_each_method(tmp_path, add_run):
    names = {f"method_{index}": 0.5 + index / 20 for index in range(9)}
    runs = [add_run(tmp_path, f"run-{seed}", seed, names) for seed in (0, 1)]
    tasks = collect(runs)
    figure = seeds_figure(seed_curves(tasks, "mean"))
    assert sum(axis.get_visible() for axis in figure.axes) == 9
    assert len(seeds_figure(seed_curves(collect(runs[:1]), "mean")).axes) == 12


def test_a_table_for_latex_is_written_by_its_suffix(three, tmp_path):
    out = tmp_path / "table.tex"
    floral.compare(three, out=out)
    assert out.read_text().startswith(
        "% run-0\n\\begin{tabular}{lrrrrrrr}\n\\toprule\nmethod & seeds"
    )
    assert r"92.0 $\pm$ 2.0" in out.read_text()
