"""A run that ends once its validation score improves no more."""

import json

import pytest

import floral
from floral.config.early_stopping import check_patience, has_stopped
from floral.config.sections import stop
from floral.errors import ConfigError
from floral.runs.run import Interrupted

NAN = float("nan")
STILL = {"kind": "sgd", "learning_rate": 0.0, "batch_size": 3}  # no round is better than the first
EVERY = {"every": 1, "personalize_steps": 0, "diagnose_clients": 0}


@pytest.mark.parametrize(
    ("scores", "settings", "ends"),
    [
        ([], {"patience": 1}, False),
        ([0.1], {"patience": 1}, False),
        ([0.1, 0.1], {"patience": 1}, True),
        ([0.1, 0.2, 0.15, 0.21], {"patience": 2}, False),
        ([0.1, 0.2, 0.15, 0.2], {"patience": 2}, True),
        ([0.1, 0.2, 0.3], {"patience": 2, "min_delta": 0.5}, True),
        ([0.1, NAN, NAN], {"patience": 2}, True),
        ([0.1, None, None], {"patience": 2}, False),
    ],
)
def test_a_run_ends_after_patience_evaluations_without_an_improvement(scores, settings, ends):
    assert has_stopped(scores, stop(**settings)) is ends


def test_a_stopped_run_says_where_and_a_resumed_one_stops_at_the_same_round(
    config, tmp_path, watcher
):
    stopping = config(local=STILL, evaluate=EVERY, stop={"patience": 2})
    floral.run(stopping, out=tmp_path, name="whole")
    with pytest.raises(Interrupted):
        floral.run(stopping, out=tmp_path, name="cut", progress=watcher(stop_at=2))
    floral.resume(tmp_path / "cut")
    whole, cut = (
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "cut")
    )
    assert whole["rounds"] == 3
    assert whole["stopped"] == cut["stopped"] == {"round": 3, "of": 10, "patience": 2}
    assert whole["last"] == cut["last"]
    assert whole["best"]["round"] == 1
    assert whole["advice"][0].startswith("stopped after round 3 of 10")
    again = watcher()
    floral.resume(tmp_path / "whole", progress=again)
    assert again.begun == {}  # it is finished


def test_a_run_without_validation_data_cannot_be_stopped_early(config, tmp_path):
    source = config()["data"]["source"] | {"validation": 0}
    blind = config(data={"source": source}, stop={"patience": 2})
    with pytest.raises(ConfigError, match=r"stop: a run is stopped by validation examples"):
        floral.run(blind, out=tmp_path, name="run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rounds", "every", "patience", "hint"),
    [
        (10, 1, 10, "set stop.patience to at most 9"),
        (10, 5, 2, "set stop.patience to at most 1"),
        (10, 4, 1000, "set stop.patience to at most 2"),
        (10, 10, 1, "set evaluate.every below 10"),
    ],
)
def test_a_patience_that_outlasts_the_run_is_refused_before_it_begins(
    config, tmp_path, rounds, every, patience, hint
):
    endless = config(rounds=rounds, evaluate={"every": every}, stop={"patience": patience})
    with pytest.raises(ConfigError, match=rf"stop\.patience: {patience} x {every} .*{hint}"):
        floral.run(endless, out=tmp_path, name="run")
    assert not (tmp_path / "run").exists()


def test_a_patience_that_may_still_end_the_run_before_its_last_round_is_taken():
    check_patience(stop(patience=9), every=1, rounds=10)
    check_patience(stop(patience=2), every=3, rounds=7)
