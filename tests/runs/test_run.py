"""Run folders: what they hold, and that no interruption changes it."""

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np
import pyarrow.parquet
import pytest

import floral
from floral.config.reading.resolve import read
from floral.config.reading.yaml_file import dump, load
from floral.errors import ConfigError
from floral.records import checkpoint
from floral.reports.inspect import trace
from floral.runs.prepare import build_all
from floral.runs.train import Interrupted

SECONDS = 120  # a subprocess that has shown no sign by then never will


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def table(folder, taken):
    return pyarrow.parquet.read_table(folder / "clients" / f"round_{taken:06d}.parquet")


# What a folder holds.


def test_a_run_folder_holds_what_is_promised(whole):
    held = {path.name for path in whole.folder.iterdir()}
    assert held == {
        ".lock",
        "commands.jsonl",
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "timing.jsonl",
        "clients",
        "checkpoints",
        "summary.json",
        "report.md",
        "figure.png",
    }


def test_the_saved_config_runs_by_itself(whole, tmp_path, kept):
    again = floral.run(whole.folder / "config.yaml", out=tmp_path)
    assert again.folder.name == "config"
    assert kept(again.folder) == kept(whole.folder)


def test_metrics_have_one_line_a_round(whole):
    assert [line["round"] for line in lines(whole.folder)] == list(range(1, 11))
    evaluated = [line["round"] for line in lines(whole.folder) if "evaluation" in line]
    assert evaluated == [2, 4, 6, 8, 10]
    for line in lines(whole.folder):
        assert line["train"]["clients"] == 3
        assert line["train"]["examples"] == 18
        assert np.isfinite(line["train"]["loss"])


def test_timing_has_one_line_a_round_and_metrics_have_no_times(whole):
    times = [json.loads(line) for line in (whole.folder / "timing.jsonl").read_text().splitlines()]
    assert [line["round"] for line in times] == list(range(1, 11))
    assert all(line["seconds"] >= line["train"] > 0 for line in times)
    assert ["evaluate" in line for line in times] == [taken % 2 == 0 for taken in range(1, 11)]
    assert "seconds" not in (whole.folder / "metrics.jsonl").read_text()


def test_every_evaluation_leaves_a_row_a_client(whole):
    assert sorted(path.name for path in (whole.folder / "clients").iterdir()) == [
        f"round_{taken:06d}.parquet" for taken in (2, 4, 6, 8, 10)
    ]
    last = table(whole.folder, 10)
    assert set(last.column_names) == {
        "client",
        "unseen",
        "cluster",
        "validation_loss",
        "validation_examples",
        "test_loss",
        "test_examples",
        "mixture_0",
        "mixture_1",
    }
    columns = {name: last[name].to_numpy() for name in last.column_names}
    assert columns["client"].tolist() == list(range(6))
    assert columns["unseen"].tolist() == [False] * 4 + [True] * 2
    assert columns["cluster"].tolist() == [0, 1] * 3
    # Unseen clients have no say in which round was best, so they are not validated.
    np.testing.assert_array_equal(np.isnan(columns["validation_loss"]), columns["unseen"])
    np.testing.assert_allclose(columns["mixture_0"] + columns["mixture_1"], 1, atol=1e-6)


def test_numbers_are_those_of_the_tables(whole):
    last = table(whole.folder, 10)
    loss, unseen = last["test_loss"].to_numpy(), last["unseen"].to_numpy()
    numbers = lines(whole.folder)[-1]["evaluation"]
    assert numbers["test"]["loss"]["mean"] == pytest.approx(loss[~unseen].mean())
    assert numbers["unseen"]["loss"]["mean"] == pytest.approx(loss[unseen].mean())
    assert numbers["test"]["loss"]["worst_decile"] == pytest.approx(loss[~unseen].max())
    assert numbers["test"]["loss"]["worst"] == pytest.approx(loss[~unseen].max())


def test_the_summary_is_of_the_last_and_the_best_validated_round(whole):
    summary = json.loads((whole.folder / "summary.json").read_text())
    assert summary == whole.summaries["floral"]
    assert summary["rounds"] == 10
    timing = summary["timing"]
    assert timing["rounds_per_second"] == pytest.approx(10 / timing["train"])
    spent = timing["compile"] + timing["train"] + timing["evaluate"]
    assert 0 < spent <= summary["seconds"] + 1e-6
    evaluations = {
        line["round"]: line["evaluation"] for line in lines(whole.folder) if "evaluation" in line
    }
    assert summary["last"] == evaluations[10]
    best = min(evaluations, key=lambda taken: evaluations[taken]["validation"]["loss"]["mean"])
    assert summary["best"] == {"round": best, **evaluations[best]}


def test_the_figure_is_a_picture(whole):
    assert whole.figure.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_environment_says_what_the_run_stood_on(whole):
    environment = json.loads((whole.folder / "environment.json").read_text())
    experiment, _ = floral.load_run(whole.folder)
    assert environment["data"] == experiment.dataset.fingerprint
    assert environment["chunk"] == experiment.simulator.chunk
    assert environment["versions"]["jax"] == jax.__version__


def test_a_second_run_leaves_the_first_alone(whole, config, kept):
    before = kept(whole.folder)
    second = floral.run(config(rounds=1), out=whole.folder.parent, name="run")
    third = floral.run(config(rounds=1), out=whole.folder.parent, name="run")
    assert (second.folder.name, third.folder.name) == ("run-2", "run-3")
    assert kept(whole.folder) == before


def test_a_loaded_run_predicts_as_it_was_evaluated(whole):
    experiment, state = floral.load_run(whole.folder)
    report = experiment.simulator.evaluate(state, "test")
    np.testing.assert_array_equal(report["loss"], table(whole.folder, 10)["test_loss"].to_numpy())


def test_the_best_state_predicts_as_the_best_round_was_evaluated(whole):
    experiment, state = floral.load_run(whole.folder, best=True)
    (summary,) = whole.summaries.values()
    assert int(state.round) == summary["best"]["round"]
    seen = experiment.dataset.seen
    report = experiment.simulator.evaluate(state, "validation", seen)
    expected = table(whole.folder, int(state.round))["validation_loss"].to_numpy()[seen]
    np.testing.assert_array_equal(report["loss"], expected)


@pytest.mark.parametrize("trouble", ["nothing to test on", "diverging", "no split"])
def test_a_run_without_a_number_to_show_still_reports(config, images, tmp_path, trouble):
    changes = {
        "nothing to test on": {"data": {"source": {"kind": "synthetic_linear", "test": 0}}},
        "diverging": {"local": {"kind": "sgd", "learning_rate": 1e30}},
        "no split": {
            "data": {
                "source": {"kind": "npz", "path": images},
                "partition": {"kind": "iid", "clients": 20},
            }
        },
    }[trouble]
    result = floral.run(config(rounds=2, **changes), out=tmp_path)
    assert result.summaries["floral"]["best"] is None
    assert result.figure.is_file()
    assert "| floral |" in result.report.read_text()


# Interruptions.


def test_resume_after_interrupts_is_bitwise(whole, config, tmp_path, kept, watcher):
    """In a single round, at an evaluation, and between two of them."""
    folder, begun = tmp_path / "run", 0
    start = partial(floral.run, config(), out=tmp_path)
    for at in (1, 4, 7):
        told, go_on = watcher(stop_at=at), partial(floral.resume, folder) if begun else start
        with pytest.raises(Interrupted, match=r"/run$"):
            go_on(progress=told)
        assert told.begun == {"floral": begun}
        begun = checkpoint.latest_round(folder / "checkpoints")
        assert begun == len(lines(folder)) >= at  # rounds of one call are saved together
    told = watcher()
    floral.resume(folder, progress=told)
    assert told.begun == {"floral": begun}
    assert kept(folder) == kept(whole.folder)
    summary = floral.resume(folder).summaries["floral"]
    times = {"seconds": 0, "timing": {}}
    assert summary | times == whole.summaries["floral"] | times


@pytest.fixture(scope="module")
def stopped(whole, tmp_path_factory, watcher):
    """A run that was interrupted at its sixth round."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        floral.run(
            whole.folder / "config.yaml", out=folder, name="run", progress=watcher(stop_at=6)
        )
    return folder / "run"


def test_a_torn_last_line_and_later_tables_are_recorded_again(whole, stopped, tmp_path, kept):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 7, "train": {"loss": 1.0}}\n{"round": 8, "tr')
    with (folder / "timing.jsonl").open("a") as file:
        file.write('{"rou')
    (folder / "clients" / "round_000008.parquet").write_bytes(b"torn")
    floral.resume(folder)
    assert kept(folder) == kept(whole.folder)


def test_a_damaged_line_is_named(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text("{" + path.read_text())
    with pytest.raises(ConfigError, match=r"metrics.jsonl: line 1 is damaged"):
        floral.resume(tmp_path / "run")


def test_a_finished_run_is_only_reported(whole, kept, watcher):
    before = {path: path.stat().st_mtime_ns for path in (whole.folder / "clients").iterdir()}
    held, told = kept(whole.folder), watcher()
    again = floral.resume(whole.folder, progress=told)
    assert told.begun == {}
    assert again.summaries == whole.summaries
    assert kept(whole.folder) == held
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_training_longer_is_training_long_from_the_start(whole, config, tmp_path):
    """Up to evaluations: the run of five rounds was evaluated after its fifth."""
    folder = floral.run(config(rounds=5), out=tmp_path).folder
    floral.resume(folder, "rounds=10")
    longer, straight = lines(folder), lines(whole.folder)
    assert longer[4].pop("evaluation")
    assert longer == straight
    assert load(folder / "config.yaml")["rounds"] == 10
    assert json.loads((folder / "summary.json").read_text())["rounds"] == 10


# Kills: real processes, real signals.


# Tests that are started by a shell in the background ignore Ctrl-C, and so would their children.
HEEDING_CTRL_C = """
import signal, sys
from floral.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


@pytest.fixture(scope="session")
def shell():
    """``(*arguments) -> process`` of the command line."""

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-c", HEEDING_CTRL_C, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def wait_until(condition, process):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_at_any_moment_a_run_is_the_uninterrupted_one(config, tmp_path, shell, kept):
    long = config(rounds=40, checkpoint={"every": 2}, evaluate={"every": 5})
    whole = floral.run(long, out=tmp_path / "whole", name="run").folder
    (tmp_path / "long.yaml").write_text(dump(long))
    folder = tmp_path / "runs" / "long"
    saved = folder / "checkpoints"
    moments = (
        lambda: (folder / "environment.json").is_file(),  # before any checkpoint
        lambda: (checkpoint.latest_round(saved) or 0) >= 2,  # the first was just made
        lambda: (checkpoint.latest_round(saved) or 0) >= 17,  # in the middle
    )
    arguments = ("run", tmp_path / "long.yaml", "--out", tmp_path / "runs")
    for moment in moments:
        process = shell(*arguments)
        wait_until(moment, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "summary.json").exists()
        arguments = ("resume", folder)
    floral.resume(folder)
    assert kept(folder) == kept(whole)


def test_ctrl_c_saves_the_state_and_says_how_to_go_on(config, tmp_path, shell):
    endless = config(rounds=10**6, checkpoint={"every": 10**6}, evaluate={"every": 3})
    (tmp_path / "endless.yaml").write_text(dump(endless))
    process = shell("run", tmp_path / "endless.yaml", "--out", tmp_path / "runs")
    while "round 3/" not in process.stdout.readline():
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    folder = tmp_path / "runs" / "endless"
    assert process.returncode == 130
    assert f"go on with: floral resume {folder}\n" in errors
    assert "Traceback" not in errors
    taken = checkpoint.latest_round(folder / "checkpoints")
    assert taken == len(lines(folder)) >= 3


# Comparisons.


@pytest.fixture(scope="session")
def comparison(whole):
    """``(config) -> config`` that compares FLoRAL with two more methods."""

    def compared(config):
        return config(
            rounds=4,
            compare={
                "fedavg": {"algorithm": {"kind": "fedavg"}},
                "mixture_only": {
                    "algorithm": {"train": ["mixture"]},
                    "start_from": "floral",
                    "rounds": 2,
                },
            },
        )

    return compared


def test_a_comparison_goes_on_where_it_stopped(config, comparison, tmp_path, kept, watcher):
    whole = floral.run(comparison(config), out=tmp_path, name="whole")
    told = watcher(stop_at=3, method="fedavg")
    with pytest.raises(Interrupted) as stopped:
        floral.run(comparison(config), out=tmp_path, name="cut", progress=told)
    folder = tmp_path / "cut"
    assert str(stopped.value) == str(folder)  # the comparison's, not the method's
    assert (folder / "floral" / "summary.json").is_file()
    assert not (folder / "fedavg" / "summary.json").exists()
    assert not (folder / "mixture_only").exists()
    told = watcher()
    result = floral.resume(folder, progress=told)
    assert list(told.begun) == ["fedavg", "mixture_only"]
    assert told.begun["fedavg"] >= 3
    assert told.begun["mixture_only"] == 0
    assert list(result.summaries) == ["floral", "fedavg", "mixture_only"]
    for method in result.summaries:
        assert kept(folder / method) == kept(whole.folder / method)
        assert f"| {method} |" in result.report.read_text()
    _, source = floral.load_run(folder / "floral")
    experiment, last = floral.load_run(folder / "mixture_only")
    assert experiment.rounds == 2
    for part in ("base", "bank"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(last.server, part), getattr(source.server, part)
        )
    assert floral.resume(folder / "mixture_only").summaries.keys() == {"floral"}


def test_a_run_starts_from_another_run_folder(whole, config, tmp_path):
    started = config(
        rounds=1, algorithm={"kind": "floral", "num_adaptors": 2, "train": ["mixture"]}
    )
    folder = floral.run(started, f"start_from={whole.folder}", out=tmp_path).folder
    _, source = floral.load_run(whole.folder)
    _, last = floral.load_run(folder)
    jax.tree.map(np.testing.assert_array_equal, last.server.bank, source.server.bank)


def test_a_method_with_its_own_data_is_trained_on_them(config, tmp_path):
    """And the next one on the comparison's again."""
    other = {"data": {"source": {"kind": "synthetic_linear", "seed": 1}}}
    compared = config(
        rounds=1, compare={"other": other, "fedavg": {"algorithm": {"kind": "fedavg"}}}
    )
    folder = floral.run(compared, out=tmp_path).folder
    ours, others, last = (
        json.loads((folder / name / "environment.json").read_text())["data"]
        for name in ("floral", "other", "fedavg")
    )
    assert ours == last != others


# Methods.

METHODS = {
    "stateless": {"algorithm": {"stateful": False}},
    "known": {"mixing": {"kind": "known"}, "algorithm": {"train": ["base", "bank"]}},
    "per_layer": {"model": {"kind": "mlp", "hidden": [3]}, "algorithm": {"mixture_per": "layer"}},
    "fedavg": {"algorithm": {"kind": "fedavg"}},
    "fedadam": {
        "algorithm": {"kind": "fedavg", "server_optimizer": {"kind": "adam", "learning_rate": 0.1}}
    },
    "local_adaptor": {"algorithm": {"kind": "local_adaptor"}},
    "ensemble": {"algorithm": {"kind": "ensemble", "num_models": 2}},
    "partial": {"algorithm": {"kind": "partial", "private": ["params/Dense_0/bias"]}},
    "scaffold": {"algorithm": {"kind": "scaffold"}},
    "clipped": {"uplink": {"client": [{"kind": "clip", "max_norm": 1e-3}]}},
    "scan": {"execution": {"walk": "scan"}},
    "chunk": {"execution": {"walk": "chunk", "chunk": 2}},
}


@pytest.fixture(scope="module")
def methods(tmp_path_factory, whole):
    """One comparison of everything a config can choose, two rounds each."""
    config = load(whole.folder / "config.yaml")
    config |= {"rounds": 2, "execution": {"walk": "vmap"}, "compare": METHODS}
    config["data"]["source"]["validation"] = config["data"]["unseen"] = 0
    return floral.run(config, out=tmp_path_factory.mktemp("methods"))


@pytest.mark.parametrize("method", METHODS)
def test_every_choice_runs(methods, method):
    (first, second) = lines(methods.folder / method)
    assert second["round"] == 2
    assert second["train"]["loss"] != first["train"]["loss"]
    assert np.isfinite(second["evaluation"]["test"]["loss"]["mean"])
    assert f"| {method} |" in methods.report.read_text()


def test_methods_cost_what_they_send(methods):
    sent = {name: summary["costs"]["uploaded_parameters"] for name, summary in _costs(methods)}
    base, pair = 3 * 2 + 2, 3 + 2
    assert sent["floral"] == base + 2 * pair
    assert sent["fedavg"] == sent["local_adaptor"] == base
    assert sent["ensemble"] == sent["scaffold"] == 2 * base
    assert sent["partial"] == 3 * 2


def _costs(result):
    return result.summaries.items()


def test_mixtures_are_recorded_as_each_method_has_them(methods):
    known = table(methods.folder / "known", 2)
    weights = np.stack([known["mixture_0"], known["mixture_1"]], axis=1)
    np.testing.assert_array_equal(weights, np.eye(2)[known["cluster"].to_numpy()])
    names = table(methods.folder / "per_layer", 2).column_names
    layers = [f"mixture:params/Dense_{i}_{c}" for i in range(2) for c in range(2)]
    assert set(layers) <= set(names)
    assert not any("mixture" in name for name in table(methods.folder / "fedavg", 2).column_names)


def test_clipped_clients_move_the_server_no_further(methods):
    experiment, state = floral.load_run(methods.folder / "clipped")
    start = experiment.simulator.init(state.key)
    moves = jax.tree.map(
        lambda end, begin: float(np.abs(end - begin).max()), state.server.base, start.server.base
    )
    assert 0 < max(jax.tree.leaves(moves)) <= 2 * 1e-3 + 1e-6  # two rounds


@pytest.mark.parametrize("walk", ["scan", "chunk"])
def test_the_walk_changes_nothing_but_the_order_of_sums(methods, walk):
    """Up to the reassociation of float32 sums."""
    side_by_side = lines(methods.folder / "floral")[-1]["evaluation"]
    other = lines(methods.folder / walk)[-1]["evaluation"]
    for key, value in side_by_side["test"]["loss"].items():
        assert other["test"]["loss"][key] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_a_convolutional_network_runs_with_convolution_adaptors(config, images, tmp_path):
    result = floral.run(
        config(
            rounds=2,
            data={
                "source": {"kind": "npz", "path": images},
                "partition": {"kind": "dirichlet", "clients": 6},
                "shift": {"kind": "rotate", "clusters": 2},
                "split": {"test": 0.25},
            },
            model={"kind": "cnn", "channels": [2], "kernels": [3], "pools": [3], "hidden": []},
            adaptors=[
                {"match": ".*/Conv_0/kernel", "kind": "conv", "rank": 1},
                {"match": ".*/Dense_0/kernel", "kind": "low_rank", "rank": 1},
                {"match": ".*/bias", "kind": "additive"},
            ],
        ),
        out=tmp_path,
    )
    accuracy = result.summaries["floral"]["last"]["test"]["accuracy"]
    assert 0 <= accuracy["worst"] <= accuracy["worst_decile"] <= accuracy["mean"] <= 1
    last = table(result.folder, 2)
    examples = last["test_examples"].to_numpy()
    right = np.round(last["test_accuracy"].to_numpy() * examples)
    assert len(set(examples)) > 1  # or it would not matter that examples are counted
    assert accuracy["of_examples"] == pytest.approx(np.nansum(right) / examples.sum())
    assert "test accuracy" in result.report.read_text()


def test_a_sample_of_clients_is_evaluated_as_all_would_be(whole, config, tmp_path):
    """The same clients each time; a table then has a row for each of them alone."""
    sampled = config(rounds=4)
    sampled["evaluate"] = {**(sampled.get("evaluate") or {}), "clients": 2}
    folder = floral.run(sampled, out=tmp_path, name="some").folder
    everyone, some = (table(place, 4).to_pylist() for place in (whole.folder, folder))
    by_client = {row["client"]: row for row in everyone}
    training = [row for row in some if not row["unseen"]]
    assert len(training) == min(2, sum(not row["unseen"] for row in everyone))
    for row in some:
        for column, value in row.items():
            assert value == pytest.approx(by_client[row["client"]][column], rel=1e-5, nan_ok=True)


def test_a_population_on_the_host_is_checked_and_run(whole, config, tmp_path):
    fed = config(rounds=3, execution={"population": "host"})
    for experiment in build_all(read(fed)).values():
        trace(experiment)
    folder = floral.run(fed, out=tmp_path, name="host").folder
    for one, other in zip(lines(folder), lines(whole.folder)[:3], strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-5)
