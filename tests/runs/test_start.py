"""An evaluation before the first round is drawn, and changes nothing else."""

import json
import shutil

import numpy as np
import pytest

import floral
from floral.records.history import best_validated, last_bin, mismatch_decay, validation_scores
from floral.reports.plot import ClientValues, comparison_figure, rounds_before
from floral.reports.seed_figure import SeedCurve, seeds_figure
from floral.runs.progress import Silent
from floral.runs.train import Interrupted

AT_START = {"every": 2, "personalize_steps": 2, "diagnose_clients": 0, "at_start": True}


@pytest.fixture(scope="module")
def started(config, tmp_path_factory):
    """The result of ten rounds, evaluated before the first too."""
    return floral.run(config(evaluate=AT_START), out=tmp_path_factory.mktemp("started"), name="run")


def test_round_0_is_a_line_and_a_table_beside_those_of_a_run_without_it(started, whole, kept):
    found, plain = kept(started.folder), kept(whole.folder)
    first, _, rest = found.pop("metrics").partition(b"\n")
    assert rest == plain.pop("metrics")
    assert json.loads(first).keys() == {"round", "evaluation"}
    assert json.loads(first)["round"] == 0
    assert json.loads(first)["evaluation"]["test"].keys() == {"loss"}
    assert found.pop("round_000000.parquet").keys() == found["round_000010.parquet"].keys()
    assert found == plain
    times = {"seconds": 0, "timing": {}}
    assert started.summaries["floral"] | times == whole.summaries["floral"] | times


class StopAtStart(Silent):
    """Presses Ctrl-C as the evaluation of round 0 begins."""

    def evaluating(self, taken):
        if taken == 0:
            raise KeyboardInterrupt


def test_resume_is_bitwise_wherever_the_run_was_interrupted(
    started, config, tmp_path, kept, watcher
):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        floral.run(config(evaluate=AT_START), out=tmp_path, name="run", progress=StopAtStart())
    with pytest.raises(Interrupted):
        floral.resume(folder, progress=watcher(stop_at=1))
    floral.resume(folder)
    assert kept(folder) == kept(started.folder)


def test_a_run_killed_before_its_first_checkpoint_records_round_0_once(started, tmp_path, kept):
    folder = tmp_path / "run"
    shutil.copytree(started.folder, folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "summary.json").unlink()
    floral.resume(folder)
    assert kept(folder) == kept(started.folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"kind": "local_adaptor"}, "execution": {"rows": "host"}},
        {"mixing": {"kind": "discriminants", "size": 2}},
    ],
    ids=["rows on the host", "groups that are found in a first round"],
)
def test_other_methods_are_evaluated_before_their_first_round_too(config, changes, tmp_path):
    diagnosing = AT_START | {"diagnose_clients": 2, "global_model": True}
    run = floral.run(config(evaluate=diagnosing, rounds=1, **changes), out=tmp_path)
    start, _ = [json.loads(line) for line in (run.folder / "metrics.jsonl").open()]
    assert np.isfinite(start["evaluation"]["test"]["loss"]["mean"])


LINES = [
    {
        "round": taken,
        "evaluation": {
            "validation": {"loss": {"mean": loss}},
            "mixture": {"mismatch": 0.5 / max(taken, 1)},
        },
    }
    for taken, loss in enumerate([0.1, 0.9, 0.5, 0.7])
]


@pytest.mark.parametrize("of", [best_validated, last_bin, mismatch_decay, validation_scores])
def test_no_number_is_chosen_by_round_0(of):
    assert of(LINES) == of(LINES[1:])
    assert best_validated(LINES)["validation"]["loss"]["mean"] == 0.5


# Curves.


def test_a_method_is_drawn_after_the_rounds_of_the_one_it_starts_from():
    starts = {"b": "a", "c": "b", "d": "another run", "e": "e"}
    ends = dict.fromkeys("abcde", 10)
    assert rounds_before(ends, starts) == {"a": 0, "b": 10, "c": 20, "d": 0, "e": 0}
    curve = {"round": np.array([0, 5, 10]), "mean": np.array([0.1, 0.2, 0.3])}
    nothing = ClientValues(*[np.zeros(0)] * 4)
    figure = comparison_figure(
        {"a": curve, "b": curve},
        {"a": nothing, "b": nothing},
        None,
        quantity="accuracy",
        starts={"b": "a"},
    )
    first, second = figure.axes[0].lines
    assert [*first.get_xdata()] == [0, 5, 10]
    assert [*second.get_xdata()] == [10, 15, 20]


@pytest.mark.parametrize("count", [2, 7], ids=["in one panel", "in panels of their own"])
def test_so_it_is_over_seeds(count):
    rounds, values = np.array([0, 5, 10]), np.full((2, 3), 0.5)
    curves = {
        f"m{i}": SeedCurve(rounds, values, "accuracy", "m0" if i else None) for i in range(count)
    }
    drawn = [line for axis in seeds_figure({"task": curves}).axes for line in axis.lines]
    assert {tuple(line.get_xdata()) for line in drawn} == {(0, 5, 10), (10, 15, 20)}
