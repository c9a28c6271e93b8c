"""A loss and metrics of one's own, chosen by a config."""

import json
import sys
import types

import jax.numpy as jnp
import pytest

import floral
from floral import metrics
from floral.config.build import build
from floral.config.reading.resolve import methods, read
from floral.errors import FloralError

CONFIG = {
    "rounds": 1,
    "data": {
        "source": {
            "kind": "synthetic_linear",
            "clients": 3,
            "train": 4,
            "validation": 2,
            "test": 2,
            "dimension": 3,
            "outputs": 2,
        }
    },
    "model": {"kind": "linear"},
    "algorithm": {"kind": "fedavg"},
    "local": {"kind": "sgd", "learning_rate": 0.1},
}


def _absolute(outputs, batch):
    return jnp.mean(jnp.abs(outputs - batch["y"]), axis=1)


def _scaled(*, by: float = 2.0):
    return lambda outputs, batch: by * _absolute(outputs, batch)


def _built(config):
    (whole,) = methods(read(config)).values()
    return build(whole)


@pytest.fixture(autouse=True)
def mine(monkeypatch):
    module = types.ModuleType("own_measures")
    module.absolute = _absolute
    module.scaled = _scaled
    module.ready = metrics.mae()
    module.matrix = lambda outputs, batch: outputs
    module.constant = 3
    module.number = lambda: 3
    module.sometimes = lambda outputs, batch: jnp.where(
        batch["y"][:1, 0] > 0, _absolute(outputs, batch), jnp.nan
    )
    module.pair = metrics.Metric(
        lambda outputs, batch: jnp.sum(outputs, axis=0, where=batch["mask"][:, None]),
        jnp.add,
        lambda sums: sums,
    )
    monkeypatch.setitem(sys.modules, "own_measures", module)


def test_the_loss_and_the_metrics_of_a_module_are_measured(tmp_path):
    asked = {
        "function": {"kind": "own_measures:absolute"},
        "twice": {"kind": "own_measures:scaled", "by": 2.0},
        "ready": {"kind": "own_measures:ready"},
        "rooted": {"kind": "rmse"},
        "sometimes": {"kind": "own_measures:sometimes"},
    }
    changes = {"loss": "own_measures:absolute", "metrics": asked}
    run = floral.run({**CONFIG, **changes}, out=tmp_path, name="run")
    (summary,) = tmp_path.rglob("summary.json")
    tested = json.loads(summary.read_text())["last"]["test"]
    assert run is not None
    for name in ("function", "ready"):
        assert tested[name]["mean"] == pytest.approx(tested["loss"]["mean"])
    assert tested["twice"]["mean"] == pytest.approx(2 * tested["loss"]["mean"])
    assert tested["rooted"]["worst"] >= tested["rooted"]["mean"]  # an error: the largest is worst
    assert tested["sometimes"]["clients"] < 3  # others have no number, and no share in the mean
    assert tested["sometimes"]["mean"] > 0
    assert tested["function"]["worst"] <= tested["function"]["mean"]


REFUSED = {
    "misspelt-loss": ({"loss": "cross_entrpy"}, "loss: no loss is called 'cross_entrpy'; did you"),
    "no-text": ({"loss": 3}, "loss: no loss is called 3"),
    "no-module": ({"loss": "no_such_module:f"}, "loss: cannot import 'no_such_module'"),
    "no-function": ({"loss": "own_measures:absolut"}, "did you mean 'absolute'"),
    "a-number": ({"loss": "own_measures:constant"}, "'constant' is not a function"),
    "makes-a-number": ({"loss": "own_measures:number"}, "loss: own_measures:number must be"),
    "two-numbers": ({"loss": "own_measures:matrix"}, "loss"),
    "misspelt-kind": ({"metrics": {"f": {"kind": "rmsee"}}}, "metrics.f.kind: no metric is called"),
    "text-for-kind": ({"metrics": {"f": "rmse"}}, "metrics.f: expected a mapping as {kind: rmse}"),
    "metric-of-a-shape": ({"metrics": {"f": {"kind": "own_measures:matrix"}}}, "one number"),
    "two-numbers-a-client": (
        {"metrics": {"f": {"kind": "own_measures:pair"}}},
        "metrics.f: expected one number a client, got shape",
    ),
    "classes-for-numbers": ({"metrics": {"f": {"kind": "macro_f1"}}}, "macro_f1"),
    "name-of-the-loss": ({"metrics": {"loss": {"kind": "mae"}}}, "metrics.loss: the loss"),
    "name-of-a-column": ({"metrics": {"examples": {"kind": "mae"}}}, "metrics.examples"),
    "no-name": ({"metrics": {"a b": {"kind": "mae"}}}, "metrics: 'a b' heads a column"),
    "unknown-direction": (
        {"evaluate": {"smaller_is_better": ["f"]}},
        "evaluate.smaller_is_better: no metric is called 'f'",
    ),
}


@pytest.mark.parametrize(("changes", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_loss_or_metric_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(FloralError) as refused:
        _built({**CONFIG, **changes})
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
