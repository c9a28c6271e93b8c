"""Several starts in a run: which is chosen, what is recorded, and going on."""

import json

import numpy as np
import pytest

import floral
from floral.config.build import build
from floral.config.reading.resolve import methods, read
from floral.errors import ConfigError
from floral.records.state import start_state
from floral.runs.progress import Silent
from floral.runs.train import Interrupted

RESTARTS = {"starts": 3, "rounds": 2}


@pytest.fixture(scope="module")
def several(config, tmp_path_factory):
    """A run of four rounds that tries three starts."""
    given = config(rounds=4, restarts=RESTARTS)
    return given, floral.run(given, out=tmp_path_factory.mktemp("several"), name="run")


def test_the_run_starts_where_validation_loss_was_smallest(several):
    given, result = several
    (own,) = methods(read(given)).values()
    experiment = build(own)
    losses = []
    for start in range(3):
        state, _ = experiment.simulator.rounds(start_state(experiment, start=start), 2)
        report = experiment.simulator.evaluate(state, "validation", experiment.dataset.seen)
        losses.append(report["loss"][report["examples"] > 0].mean())
    told = result.summaries["floral"]["restarts"]
    np.testing.assert_allclose(told["losses"], losses, rtol=1e-5)
    assert told["chosen"] == int(np.argmin(losses))
    assert told["rounds"] == 2
    state, metrics = experiment.simulator.rounds(start_state(experiment, start=told["chosen"]), 4)
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    trained = [json.loads(line)["train"]["loss"] for line in lines]
    np.testing.assert_allclose(trained, metrics["loss_sum"] / metrics["examples"], rtol=1e-5)


def test_its_seconds_count_the_trials(several):
    summary = several[1].summaries["floral"]
    rounds = [
        json.loads(line)["seconds"]
        for line in (several[1].folder / "timing.jsonl").read_text().splitlines()
    ]
    assert len(summary["restarts"]["seconds"]) == 3
    assert summary["seconds"] == pytest.approx(sum(rounds) + sum(summary["restarts"]["seconds"]))


def test_one_start_is_that_of_a_plain_run(config, tmp_path, kept):
    plain = floral.run(config(rounds=2), out=tmp_path, name="plain")
    given = config(rounds=2, restarts={"starts": 1, "rounds": 1})
    one = floral.run(given, out=tmp_path, name="one")
    assert kept(plain.folder) == kept(one.folder)
    assert "restarts" not in plain.summaries["floral"]


def test_every_start_of_a_run_that_goes_on_from_another_has_the_whole_of_it(config, tmp_path):
    """Rounds take the memory of what they start from."""
    child = {"start_from": "floral", "restarts": {"starts": 2, "rounds": 1}}
    given = config(rounds=2, compare={"child": child})
    result = floral.run(given, out=tmp_path)
    assert len(result.summaries["child"]["restarts"]["losses"]) == 2


class Impatient(Silent):
    """Interrupts at the second thing that it is told of."""

    def __init__(self):
        self.heard = []

    def note(self, line):
        self.heard.append(line)
        if len(self.heard) == 2:
            raise KeyboardInterrupt


def test_trials_that_were_interrupted_go_on(several, tmp_path, kept):
    given, whole = several
    impatient = Impatient()
    with pytest.raises(Interrupted):
        floral.run(given, out=tmp_path, name="run", progress=impatient)
    assert [line.split(":")[1] for line in impatient.heard] == [" start 1 of 3", " start 2 of 3"]
    folder = tmp_path / "run"
    assert len(json.loads((folder / "restarts.json").read_text())["losses"]) == 2
    heard = Impatient()
    heard.heard = ["", ""]
    result = floral.resume(folder, progress=heard)
    assert [line.split(":")[1][:6] for line in heard.heard[2:]] == [" start", " goes "]
    assert kept(folder) == kept(whole.folder)
    told, expected = (r.summaries["floral"]["restarts"] for r in (result, whole))
    assert told["losses"] == expected["losses"]
    assert told["chosen"] == expected["chosen"]


def test_what_does_not_fit_is_said_before_anything_is_trained(config, tmp_path):
    unvalidated = config(restarts=RESTARTS)
    unvalidated["data"]["source"]["validation"] = 0
    with pytest.raises(ConfigError, match=r"restarts: .*set data\.split\.validation"):
        floral.run(unvalidated, out=tmp_path)
    with pytest.raises(ConfigError, match=r"restarts\.rounds: expected at most the run's 10"):
        floral.run(config(restarts={"rounds": 11}), out=tmp_path)
    with pytest.raises(ConfigError, match="starts must be a whole number"):
        floral.run(config(restarts={"rounds": 2, "starts": 0}), out=tmp_path)
    assert not list(tmp_path.iterdir())
