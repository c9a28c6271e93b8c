"""A round that diverged is never best, whatever its accuracy, and a run says that it did."""

import json

import numpy as np
import pytest

import floral
from floral.errors import ConfigError
from floral.records.history import score
from floral.runs.round_line import round_line
from floral.runs.summary import first_non_finite


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """Eight clients, the first of which has features so large that its loss overflows."""
    folder = tmp_path_factory.mktemp("diverged")
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(160) < 0.6, 0, rng.integers(1, 4, 160))
    inputs = rng.normal(size=(160, 6)).astype("f") + np.eye(4, 6)[labels]
    inputs[:5] *= 1e20
    np.savez(folder / "data.npz", x=inputs.astype("f"), y=labels)
    config = {
        "rounds": 3,
        "evaluate": {"every": 1},
        "model": {"kind": "mlp", "hidden": [8]},
        "algorithm": {"kind": "fedavg"},
        "data": {
            "source": {"kind": "npz", "path": str(folder / "data.npz")},
            "partition": {"kind": "blocks", "clients": 8},
            "split": {"validation": 0.2, "test": 0.2},
        },
        "local": {"kind": "sgd", "learning_rate": 0.05, "batch_size": 8},
    }
    return floral.run(config, out=folder, name="run")


def test_no_round_with_a_loss_that_is_not_finite_is_best(diverged):
    summary = diverged.summaries["fedavg"]
    lines = [json.loads(s) for s in (diverged.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["evaluation"]["validation"]["loss"]["mean"] for line in lines]
    accuracies = [line["evaluation"]["validation"]["accuracy"]["mean"] for line in lines]
    assert losses[-1] is None
    assert accuracies[-1] is not None
    best = summary["best"]
    assert best is None or losses[best["round"] - 1] is not None


def test_the_first_client_is_named_in_the_summary_and_the_report(diverged):
    found = diverged.summaries["fedavg"]["non_finite"]
    assert found["client"] == 0
    said = f"round {found['round']}: the {found['what']} is not finite (first by client 0)"
    assert said in diverged.report.read_text()
    lines = [json.loads(s) for s in (diverged.folder / "metrics.jsonl").read_text().splitlines()]
    trained = [line["train"] for line in lines if "non_finite" in line["train"]]
    assert trained[0]["first_non_finite"] == 0


def test_a_sum_that_overflows_is_no_clients():
    sums = {"loss_sum": 4.0, "examples": 2, "cohort": 2, "non_finite": 1, "first_non_finite": -1}
    line = round_line(3, {name: np.array([value]) for name, value in sums.items()}, 0)
    assert line["train"] == {"loss": 2.0, "examples": 2, "clients": 2, "non_finite": 1}
    assert first_non_finite([line]) == {"round": 3, "what": "update"}


def test_to_load_the_best_of_a_run_without_one_is_one_sentence(diverged):
    if diverged.summaries["fedavg"]["best"] is None:
        with pytest.raises(ConfigError, match="has a finite validation loss, so none is best"):
            floral.load_run(diverged.folder, best=True)


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("accuracy", [0.9, np.nan, None])
def test_a_loss_that_is_not_finite_scores_as_nothing(loss, accuracy):
    validation = {"loss": {"mean": loss}}
    if accuracy is not None:
        validation["accuracy"] = {"mean": accuracy}
    assert np.isnan(score({"validation": validation}))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ({"train": {"loss": 1.0}}, None),
        (
            {"train": {"loss": None, "non_finite": 2, "first_non_finite": 0}},
            {"what": "loss", "client": 0},
        ),
        (
            {"train": {"loss": 1.0, "non_finite": 1, "first_non_finite": 3}},
            {"what": "update", "client": 3},
        ),
        ({"train": {"loss": None}}, {"what": "loss"}),
        (
            {"train": {"loss": 1.0}, "evaluation": {"test": {"loss": {"mean": None}}}},
            {"what": "test loss"},
        ),
    ],
)
def test_the_first_round_that_is_not_finite_is_found_with_its_client(line, found):
    good = {"round": 1, "train": {"loss": 2.0}}
    expected = None if found is None else {"round": 2, **found}
    assert first_non_finite([good, {"round": 2, **line}]) == expected
