"""Optimizers and schedules of local training, as a config asks for them."""

import pytest

from floral.config import areas as places
from floral.config.areas import SCHEMA
from floral.errors import ConfigError

SGD = {"kind": "sgd", "learning_rate": 0.1}
COSINE = {"kind": "cosine", "rounds": 10}


@pytest.mark.parametrize(
    ("local", "factor"),
    [
        (SGD | {"momentum": 0.9, "nesterov": True}, None),
        ({"kind": "adamw", "learning_rate": 0.1, "weight_decay": 0.01}, None),
        (SGD | {"schedule": COSINE}, 0.5),
        (SGD | {"schedule": {"kind": "linear", "rounds": 20}}, 0.75),
        (SGD | {"schedule": {"kind": "step", "every": 2, "factor": 0.5}}, 0.25),
        (SGD | {"schedule": {"kind": "linear_warm_up", "rounds": 1, "then": COSINE}}, None),
    ],
    ids=["nesterov", "adamw", "cosine", "linear", "step", "warm-up-then-cosine"],
)
def test_a_config_has_these_optimizers_and_schedules(local, factor):
    solver = SCHEMA.construct(places.LOCAL, local).solver
    solver.optimizer(None, 0)
    if factor is not None:
        assert float(solver.schedule(5)) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"nesterov": True}, "nesterov needs momentum; set momentum, as 0.9"),
        ({"schedule": {"kind": "cosine"}}, "local.schedule.rounds: cosine needs a whole number"),
        ({"schedule": {"kind": "cosin", "rounds": 3}}, "did you mean 'cosine'"),
        ({"schedule": {"kind": "step", "every": 0}}, "local.schedule: every must be"),
        ({"schedule": 0.5}, "local.schedule: expected a mapping"),
    ],
    ids=["nesterov-without-momentum", "no-rounds", "misspelt", "every-zero", "a-number"],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(settings, sentence):
    with pytest.raises(ConfigError, match=sentence) as refused:
        SCHEMA.construct(places.LOCAL, SGD | settings)
    assert "\n" not in str(refused.value)
