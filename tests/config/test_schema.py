"""The engine behind configs, on small factories: what it accepts, what it says, what it builds."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floral.config.describe import json_schema, listing
from floral.config.schema.annotations import field_type
from floral.config.schema.arguments import Area, Schema, Section
from floral.config.schema.signature import argument_descriptions, exported, parameters
from floral.errors import ConfigError, SpecError

BUILT_IN_PYTHON = object()


class Optimizer(NamedTuple):
    parts: tuple


class Solver(NamedTuple):
    optimizer: Optimizer
    epochs: int


def sgd(*, learning_rate: float, momentum: float | None = None) -> Optimizer:
    """Plain steps.

    Args:
      learning_rate: length of a step,
        in units of the gradient.
      momentum: share of the last step that is kept.
    """
    if learning_rate <= 0:
        raise SpecError(f"learning_rate must be positive, got {learning_rate}")
    return Optimizer(("sgd", learning_rate, momentum))


def chain(*, parts: "list[Optimizer]") -> Optimizer:
    """One after another."""
    return Optimizer(tuple(parts))


def from_traits(traits, *, scale: float = 1.0) -> Optimizer:
    """Waits for the traits."""
    return Optimizer((traits, scale))


def solver(optimizer, *, epochs: int = 1) -> Solver:
    return Solver(optimizer, epochs)


def fedavg(loss) -> Any:
    """The mean."""
    return ("fedavg", loss)


def fedprox(
    loss,
    *,
    mu: float = 0.01,
    steps: int = 1,
    train: list[str] | Literal["all"] = "all",
    mode: Literal["mean", "median"] = "mean",
    hidden: tuple[int, ...] = (8,),
    sizes: Sequence[int] = (1, 2),
    betas: tuple[float, float] = (0.9, 0.99),
    options: dict[str, int] | None = None,
    nesterov: bool = False,
    schedule: float | Callable[[int], float] = 0.5,
    activation: Callable[[Any], Any] = abs,
    server_optimizer: "Optimizer | None" = None,
    client_optimizer: Optimizer = BUILT_IN_PYTHON,  # type: ignore[assignment]
) -> Any:
    """The mean, held near the start.

    Args:
      mu: weight of the proximal term.
    """
    return {"loss": loss, **{k: v for k, v in locals().items() if k != "loss"}}


def evaluation(*, every: int = 10, optimizer: "Optimizer | None" = None) -> Any:
    """How often clients are evaluated."""
    return (every, optimizer)


def experiment(
    *,
    rounds: int,
    seed: int = 0,
    algorithm: "Algorithm",
    local: "list[Solver]" = (),  # type: ignore[assignment]
    evaluate: "Evaluation" = {"every": 5},  # noqa: B006
    compare: dict[str, Any] = {},  # noqa: B006
):
    """A whole experiment.

    Args:
      seed: what all randomness is drawn from.
    """


OPTIMIZERS = Area("optimizer", lambda: {"sgd": sgd, "chain": chain, "from_traits": from_traits})
SOLVERS = Area("solver", lambda: {"sgd": sgd}, extra=lambda: [solver])
ALGORITHMS = Area("algorithm", lambda: {"fedavg": fedavg, "fedprox": fedprox})
EVALUATE = Section("evaluate", lambda: evaluation)
WHOLE = Section("experiment", lambda: experiment)
SCHEMA = Schema(
    {
        "Optimizer": OPTIMIZERS,
        "Solver": SOLVERS,
        "Algorithm": ALGORITHMS,
        "Evaluation": EVALUATE,
    }
)


def refusal(place, mapping) -> str:
    try:
        SCHEMA.validate(place, mapping)
    except ConfigError as error:
        return str(error)
    return ""


def message(place, mapping, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        SCHEMA.validate(place, mapping, **options)
    return str(caught.value)


def test_every_default_is_written_out():
    assert SCHEMA.validate(ALGORITHMS, {"kind": "fedprox", "mu": 1}) == {
        "kind": "fedprox",
        "mu": 1.0,
        "steps": 1,
        "train": "all",
        "mode": "mean",
        "hidden": [8],
        "sizes": [1, 2],
        "betas": [0.9, 0.99],
        "options": None,
        "nesterov": False,
        "schedule": 0.5,
        "server_optimizer": None,
    }


FEDPROX_TAKES = (
    "kind, mu, steps, train, mode, hidden, sizes, betas, options, nesterov, schedule, "
    "server_optimizer, client_optimizer"
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mu": "fast"}, "mu: expected a number, got 'fast'"),
        ({"mu": "3"}, "mu: expected a number, got '3'"),
        ({"mu": True}, "mu: expected a number, got true"),
        ({"mu": None}, "mu: expected a number, got null"),
        ({"mu": float("nan")}, "mu: expected a finite number, got nan"),
        ({"mu": float("inf")}, "mu: expected a finite number, got inf"),
        ({"steps": "3"}, "steps: expected a whole number, got '3'"),
        ({"steps": True}, "steps: expected a whole number, got true"),
        ({"steps": 3.0}, "steps: expected a whole number, got 3.0"),
        ({"nesterov": 1}, "nesterov: expected true or false, got 1"),
        (
            {"mode": "medan"},
            "mode: expected 'mean' or 'median', got 'medan'; did you mean 'median'?",
        ),
        ({"train": "al"}, "train: expected a list of texts or 'all', got 'al'"),
        ({"train": ["a", 3]}, "train: expected a list of texts or 'all', got ['a', 3]"),
        ({"hidden": 3}, "hidden: expected a list of whole numbers, got 3"),
        ({"hidden": [1, "x"]}, "hidden.1: expected a whole number, got 'x'"),
        ({"sizes": "12"}, "sizes: expected a list of whole numbers, got '12'"),
        ({"betas": [0.9]}, "betas: expected [a number, a number], got [0.9]"),
        ({"options": [1]}, "options: expected a mapping, got [1]"),
        ({"options": {"a": "b"}}, "options.a: expected a whole number, got 'b'"),
        ({"schedule": "x"}, "schedule: expected a number, got 'x'"),
        ({"muu": 3}, "muu: fedprox takes no 'muu'; did you mean 'mu'?"),
        ({"zzzz": 3}, f"zzzz: fedprox takes no 'zzzz'; it takes {FEDPROX_TAKES}"),
        ({4: 3}, f"4: fedprox takes no 4; it takes {FEDPROX_TAKES}"),
        (
            {"activation": "relu"},
            "activation: fedprox takes 'activation' from Python only, not from a config",
        ),
        (
            {"server_optimizer": "sgd"},
            "server_optimizer: expected a mapping as {kind: sgd}, got 'sgd'",
        ),
        (
            {"server_optimizer": {"kind": "sgd"}},
            "server_optimizer.learning_rate: sgd needs a number here",
        ),
        (
            {"server_optimizer": {"kind": "sgd", "lerning_rate": 1}},
            "server_optimizer.lerning_rate: sgd takes no 'lerning_rate'; "
            "did you mean 'learning_rate'?",
        ),
        (
            {"server_optimizer": {"kind": "chain", "parts": [{"kind": "sgdd"}]}},
            "server_optimizer.parts.0.kind: no optimizer is called 'sgdd'; did you mean 'sgd'?",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_place_and_what_is_right(settings, expected):
    assert message(ALGORITHMS, {"kind": "fedprox", **settings}) == f"algorithm.{expected}"


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"kind": "fedprx"}, ".kind: no algorithm is called 'fedprx'; did you mean 'fedprox'?"),
        ({"kind": "zzz"}, ".kind: no algorithm is called 'zzz'; known are fedavg, fedprox"),
        ({"kind": None}, ".kind: no algorithm is called null; known are fedavg, fedprox"),
        ({"kind": ["fedavg"]}, ".kind: no algorithm is called ['fedavg']; did you mean 'fedavg'?"),
        ({}, ".kind: say which algorithm: fedavg or fedprox"),
        ("fedprox", ": expected a mapping as {kind: fedprox}, got 'fedprox'"),
        (None, ": expected a mapping as {kind: fedavg}, got null"),
        ({"kind": "no_such_module:f"}, ".kind: cannot import 'no_such_module': No module named "
         "'no_such_module'"),
        ({"kind": "json:dmps"}, ".kind: 'dmps' does not exist in 'json'; did you mean 'dumps'?"),
        ({"kind": "json:__name__"}, ".kind: '__name__' is not a function in 'json'"),
    ],
)  # fmt: skip
def test_a_wrong_kind_is_named_with_the_nearest_one(mapping, expected):
    assert message(ALGORITHMS, mapping).startswith(f"algorithm{expected}")


def test_every_error_has_its_own_line():
    wrong = {"roundz": 3, "algorithm": {"kind": "fedprox", "mu": "x"}, "local": [{"kind": "sgd"}]}
    assert message(WHOLE, wrong, where="").splitlines() == [
        "algorithm.mu: expected a number, got 'x'",
        "local.0.learning_rate: sgd needs a number here",
        "roundz: experiment takes no 'roundz'; did you mean 'rounds'?",
    ]


def test_a_missing_setting_is_not_reported_beside_its_misspelling():
    assert "needs" not in message(OPTIMIZERS, {"kind": "sgd", "lerning_rate": 1})
    assert (
        message(OPTIMIZERS, {"kind": "sgd"}) == "optimizer.learning_rate: sgd needs a number here"
    )


def test_a_section_has_no_kind():
    assert SCHEMA.validate(EVALUATE, {}) == {"every": 10, "optimizer": None}
    assert message(EVALUATE, {"kind": "x"}) == (
        "evaluate.kind: evaluate takes no 'kind'; it takes every, optimizer"
    )
    assert message(EVALUATE, 3) == "evaluate: expected a mapping, got 3"
    assert message(WHOLE, 3, where="") == "experiment: expected a mapping, got 3"


def test_a_mapping_as_default_is_filled_in_like_a_written_one():
    whole = SCHEMA.validate(WHOLE, {"rounds": 1, "algorithm": {"kind": "fedavg"}}, where="")
    assert whole["evaluate"] == {"every": 5, "optimizer": None}
    assert list(whole) == ["rounds", "seed", "algorithm", "local", "evaluate", "compare"]


def test_a_nested_area_is_built_before_the_factory_that_takes_it():
    made = SCHEMA.construct(
        ALGORITHMS,
        {
            "kind": "fedprox",
            "hidden": [3, 4],
            "server_optimizer": {
                "kind": "chain",
                "parts": [{"kind": "sgd", "learning_rate": 1}, {"kind": "sgd", "learning_rate": 2}],
            },
        },
        "the loss",
    )
    assert made["loss"] == "the loss"
    assert made["hidden"] == (3, 4)
    assert made["activation"] is abs
    assert made["client_optimizer"] is BUILT_IN_PYTHON
    assert made["server_optimizer"] == Optimizer(
        (Optimizer(("sgd", 1.0, None)), Optimizer(("sgd", 2.0, None)))
    )


def test_a_nested_factory_that_needs_wiring_arrives_as_a_function_of_it():
    made = SCHEMA.construct(EVALUATE, {"optimizer": {"kind": "from_traits", "scale": 2}})
    assert made[1]("traits") == Optimizer(("traits", 2.0))


def test_a_setting_may_be_a_plain_value_or_an_area():
    def decay(*, rate: "float | Optimizer") -> Any:
        return rate

    place = Section("decay", lambda: decay)
    assert SCHEMA.construct(place, {"rate": 1}) == 1.0
    made = SCHEMA.construct(place, {"rate": {"kind": "sgd", "learning_rate": 1}})
    assert made == Optimizer(("sgd", 1.0, None))
    assert message(place, {"rate": "x"}) == (
        "decay.rate: expected a number or a mapping for the optimizer, got 'x'"
    )
    assert message(place, {"rate": {"kind": "sgd"}}) == (
        "decay.rate.learning_rate: sgd needs a number here"
    )


def test_an_extra_shares_the_mapping_and_wraps_what_was_made():
    mapping = {"kind": "sgd", "learning_rate": 1, "epochs": 3}
    assert SCHEMA.construct(SOLVERS, mapping) == Solver(Optimizer(("sgd", 1.0, None)), 3)
    optimizer, wrap = SCHEMA.bind(SOLVERS, mapping)
    assert optimizer.settings == {"learning_rate": 1.0, "momentum": None}
    assert wrap("any") == Solver("any", 3)  # type: ignore[arg-type]
    assert message(SOLVERS, {**mapping, "epoch": 1}) == (
        "solver.epoch: sgd takes no 'epoch'; did you mean 'epochs'?"
    )


def test_what_a_factory_refuses_is_prefixed_with_its_place():
    refused = {"kind": "sgd", "learning_rate": -1}
    with pytest.raises(ConfigError) as caught:
        SCHEMA.construct(EVALUATE, {"optimizer": {"kind": "chain", "parts": [refused]}})
    assert str(caught.value) == (
        "evaluate.optimizer.parts.0: learning_rate must be positive, got -1.0"
    )
    assert isinstance(caught.value.__cause__, SpecError)


def test_a_factory_of_ones_own_is_named_by_module_and_name(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(
        "def twice(loss, *, factor: float = 2.0):\n    return (loss, factor)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mapping = {"kind": "my_parts:twice", "factor": 3}
    assert SCHEMA.validate(ALGORITHMS, mapping) == {"kind": "my_parts:twice", "factor": 3.0}
    assert SCHEMA.construct(ALGORITHMS, mapping, "loss") == ("loss", 3.0)
    assert message(ALGORITHMS, {"kind": "my_parts:twice", "facter": 3}) == (
        "algorithm.facter: my_parts:twice takes no 'facter'; did you mean 'factor'?"
    )


def no_annotation(*, a=1): ...
def no_default(*, a: Callable[[], int]): ...
def no_such_type(*, a: "Nonsense" = 1): ...
def takes_epochs(*, epochs: int = 1): ...
def takes_kind(*, kind: str = ""): ...


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (no_annotation, "no_annotation: the setting 'a' has no annotation"),
        (no_default, "x: the setting 'a' has no default and its type .* cannot come from a config"),
        (no_such_type, "no_such_type: the setting 'a' has the annotation 'Nonsense'"),
        (takes_epochs, "x: two parts of one mapping both take 'epochs'"),
        (takes_kind, "x: two parts of one mapping both take 'kind'"),
    ],
)
def test_a_signature_that_is_no_schema_is_refused(factory, expected):
    area = Area("thing", lambda: {"x": factory}, extra=lambda: [solver])
    with pytest.raises(SpecError, match=expected):
        Schema({}).validate(area, {"kind": "x"})


def test_settings_may_be_called_like_methods_of_pydantic():
    def odd(*, copy: int = 1, json: int = 2, model_dump: int = 3, model_config: int = 4):
        return (copy, json, model_dump, model_config)

    area = Area("thing", lambda: {"odd": odd})
    assert Schema({}).construct(area, {"kind": "odd", "json": 5}) == (1, 5, 3, 4)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3)
)


@given(
    mu=st.floats(-1e6, 1e6) | st.integers(-1000, 1000),
    hidden=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    train=st.just("all") | st.lists(st.text(max_size=3), max_size=3),
    rate=st.none() | st.floats(0.1, 1),
)
def test_validating_twice_changes_nothing(mu, hidden, train, rate):
    server = rate if rate is None else {"kind": "sgd", "learning_rate": rate}
    once = SCHEMA.validate(
        ALGORITHMS,
        {"kind": "fedprox", "mu": mu, "hidden": hidden, "train": train, "server_optimizer": server},
    )
    assert SCHEMA.validate(ALGORITHMS, once) == once
    assert json.loads(json.dumps(once)) == once


@given(
    value=st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.text("ab.", max_size=2), inner, max_size=2)
        ),
    ),
    name=st.sampled_from(FEDPROX_TAKES.split(", ")),
)
def test_any_yaml_value_is_accepted_or_refused_with_its_place(value, name):
    lines = refusal(ALGORITHMS, {"kind": "fedprox", name: value}).splitlines()
    assert all(line.startswith(f"algorithm.{name}") for line in lines)


def test_the_json_schema_holds_every_area_and_every_description():
    made = json_schema(SCHEMA, WHOLE)
    json.dumps(made)
    assert made["required"] == ["rounds", "algorithm"]
    assert made["properties"]["seed"] == {
        "type": "integer",
        "default": 0,
        "description": "what all randomness is drawn from.",
    }
    assert made["properties"]["algorithm"] == {"$ref": "#/$defs/algorithm"}
    assert set(made["$defs"]) == {
        "algorithm", "algorithm.fedavg", "algorithm.fedprox", "evaluate", "optimizer",
        "optimizer.chain", "optimizer.from_traits", "optimizer.sgd", "solver", "solver.sgd",
    }  # fmt: skip
    fedprox_schema = made["$defs"]["algorithm.fedprox"]
    assert fedprox_schema["description"] == "The mean, held near the start."
    assert fedprox_schema["additionalProperties"] is False
    assert fedprox_schema["properties"]["kind"]["const"] == "fedprox"
    assert fedprox_schema["properties"]["server_optimizer"]["anyOf"] == [
        {"$ref": "#/$defs/optimizer"},
        {"type": "null"},
    ]
    assert set(made["$defs"]["solver.sgd"]["properties"]) == {
        "kind", "learning_rate", "momentum", "epochs",
    }  # fmt: skip


def test_the_listing_names_kinds_settings_defaults_and_meaning():
    assert listing(SCHEMA, SOLVERS) == (
        "sgd  Plain steps.\n"
        "  learning_rate    a number, required. length of a step, in units of the gradient.\n"
        "  momentum = null  a number or null. share of the last step that is kept.\n"
        "  epochs = 1       a whole number."
    )
    assert listing(SCHEMA, EVALUATE).splitlines()[0] == (
        "evaluate  How often clients are evaluated."
    )


def test_descriptions_end_where_the_next_section_begins():
    def f(*, a: int = 1, b: int = 2):
        """F.

        Args:
          a: first: one
            and more.

            A second paragraph.
          b (int): second.

        Returns:
          c: nothing.
        """

    assert argument_descriptions(f) == {
        "a": "first: one and more. A second paragraph.",
        "b": "second.",
    }
    assert list(parameters(f)) == ["a", "b"]


def test_a_module_exports_the_factories_of_one_type(tmp_path, monkeypatch):
    (tmp_path / "my_area.py").write_text(
        "from typing import NamedTuple\n"
        "__all__ = ['Thing', 'make', 'quoted', 'helper']\n"
        "class Thing(NamedTuple):\n    x: int = 0\n"
        "def make() -> Thing: ...\n"
        "def quoted() -> 'Thing': ...\n"
        "def helper(thing: Thing) -> int: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert list(exported("my_area", returns="Thing")()) == ["make", "quoted"]


def test_a_type_that_no_yaml_value_has_is_no_field():
    assert field_type(Callable[[], int], lambda name: None) is None
    assert field_type(Callable[[], int] | None, lambda name: None) is None
    assert field_type(list[Callable[[], int]], lambda name: None) is None


def test_two_areas_of_one_name_are_refused():
    with pytest.raises(SpecError, match="the same name"):
        Schema({"A": Area("thing", dict), "B": Area("thing", dict)})


def test_reading_configs_does_not_import_jax():
    program = (
        "import sys, floral.config.describe, floral.config.reading.overrides\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
