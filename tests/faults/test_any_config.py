"""Whatever a config says, an experiment comes out, or sentences that name the places."""

import contextlib
import copy
import io
import json
import math
import tempfile
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from yaml.representer import RepresenterError

import floral as fl
from floral.cli import main
from floral.config import areas as places
from floral.config.areas import SCHEMA
from floral.config.reading.resolve import methods, read
from floral.config.reading.yaml_file import dump
from floral.errors import FloralError
from floral.runs.prepare import build_all

SMALL = {
    "rounds": 1,
    "data": {
        "source": {
            "kind": "synthetic_linear",
            "clients": 3,
            "train": 3,
            "validation": 1,
            "dimension": 2,
            "outputs": 2,
        }
    },
    "model": {"kind": "linear"},
    "adaptors": [{"match": ".*/kernel", "kind": "low_rank", "rank": 1}],
    "algorithm": {"kind": "floral", "num_adaptors": 2},
    "local": {"kind": "sgd", "learning_rate": 0.1, "batch_size": 2},
    "evaluate": {"every": 1, "personalize_steps": 1, "diagnose_clients": 0},
}
SYNTHETIC = {"clients": 3, "clusters": 2, "train": 3, "validation": 1, "test": 1}
NPZ = {"kind": "npz", "path": "examples.npz", "x": "x", "y": "y"}
VALID = {
    "floral": SMALL,
    "full": {
        **SMALL,
        "mixing": {"kind": "softmax"},
        "uplink": {
            "client": [{"kind": "clip", "max_norm": 1.0}],
            "reduce": {"kind": "weighted_mean"},
        },
        "cohort": {"kind": "fixed", "size": 2},
        "checkpoint": {"every": 1},
        "execution": {"walk": "vmap"},
        "restarts": {"rounds": 1, "starts": 2},
        "metrics": {"mean_error": {"kind": "mae"}},
        "compare": {
            "fedavg": {"algorithm": {"kind": "fedavg"}},
            "frozen": {"start_from": "floral", "algorithm": {"train": ["mixture"]}},
        },
    },
    "mlp": {
        **SMALL,
        "data": {"source": {**SYNTHETIC, "kind": "synthetic_mlp", "dimension": 2}},
        "model": {"kind": "mlp", "hidden": [2]},
        "algorithm": {"kind": "fedprox", "mu": 0.1},
        "local": {
            "kind": "adam",
            "learning_rate": 0.1,
            "schedule": {"kind": "cosine", "rounds": 2},
        },
    },
    "digits": {
        **SMALL,
        "data": {
            "source": {"kind": "digits", "per_class": 2},
            "partition": {"kind": "iid", "clients": 3},
            "shift": {"kind": "label_shift", "clusters": 2},
            "split": {"test": 0.3},
            "unseen": 1,
        },
        "mixing": {"kind": "known"},
    },
    "file": {
        **SMALL,
        "data": {
            "source": NPZ,
            "partition": {"kind": "natural", "field": "who"},
            "split": {"validation": 0.3},
            "standardize": True,
        },
        "metrics": {"best_two": {"kind": "top_k_accuracy", "k": 2}},
        "algorithm": {"kind": "ifca", "num_models": 2},
    },
}

# What needs a network, or a folder of data on this machine, is left out: its answer is another's.
ELSEWHERE = {"cifar", "mnist", "huggingface", "tfds"}
KINDS = sorted({*filter(None, chain(*map(SCHEMA.kinds, places.AREAS)))} - ELSEWHERE)
# Numbers are small or absurd. Between the two lie settings that are right, and take gigabytes.
NUMBERS = [0, 1, 2, 3, -1, -0.0, 0.5, 1.5, -0.5, math.nan, math.inf, -math.inf, 1e-320, 1e39, 1e308]
HUGE = [2**31, 2**32 + 1, 2**63, 2**64, -(2**63), 10**400]
TEXTS = ["", " ", "é日", "\x00", "\ud800", "a\nb", "1", "1e-3", "null", "~", "../x", "a.b", "a:b"]
NAMES = ["seed", "kind", "floral", "fedavg", "none", "auto", "test", "mixture", ".*", "("]
OTHERS = [None, True, False, b"a", {1}, 1j, len, np.float32(0.5), np.arange(2), np.zeros((0, 2))]
SINGLE = st.sampled_from([*NUMBERS, *HUGE, *TEXTS, *NAMES, *KINDS, *OTHERS])
KEYS = st.sampled_from(["kind", "a", "", "é日", "seed", "rank", "test", "validation", 1, None])
ODD = st.one_of(
    SINGLE,
    st.sampled_from(KINDS).map(lambda kind: {"kind": kind}),
    st.lists(SINGLE, max_size=3),
    st.dictionaries(KEYS, SINGLE, max_size=2),
    st.lists(st.sampled_from(KINDS).map(lambda kind: {"kind": kind}), max_size=2),
)
OVERRIDES = st.sampled_from(
    [
        *["", "=", "rounds", "rounds=", "rounds=1=2", "a=1", "=1", "..=1", "é日=1", "only=x"],
        *["rounds=[", "rounds={a: 1}", "rounds=*a", "rounds=&a", "rounds=!!x/y 1", "data=null"],
        *["adaptors.0.rank=é", "adaptors.1.rank=1", "adaptors.-1.rank=1", "adaptors.x=1"],
        *["compare.fedavg=null", "compare.x=null", "compare.x.rounds=1", "model.kind=mlp"],
        *["local.kind=a:b", "local.learning_rate=nan", "local.learning_rate=.inf", "local.=1"],
        *["seed=1e3", "seed=0x10", "seed=\x00"],
    ]
)


def places_in(value, above=()):
    """All places of a config, lists' entries too."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in inner:
        yield (*above, name)
        if isinstance(each, dict | list):
            yield from places_in(each, (*above, name))


def values_in(value):
    """All values of a config that are neither mappings nor lists."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from values_in(inner)
    else:
        yield value


def written_out(config):
    """The config with its defaults, so that every setting there is has a place."""
    name, whole = next(iter(methods(read(config)).items()))
    kept = {key: config[key] for key in ("compare",) if key in config}
    return copy.deepcopy({**whole, **kept}), name


@st.composite
def configs(draw, most=2):
    """A valid config with one or two things in it changed, and overrides as text."""
    config, _ = WRITTEN[draw(st.sampled_from(list(VALID)))]
    config = copy.deepcopy(config)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.sampled_from(list(places_in(config))))
        *above, last = place
        held = config
        for name in above:
            held = held[name]
        how = draw(st.integers(0, 9))
        if how == 0 and isinstance(held, dict):
            del held[last]
        elif how == 1 and isinstance(held, dict):
            held[draw(st.sampled_from([f"{last}s", str(last)[1:], "é日", 1]))] = held.pop(last)
        else:
            held[last] = draw(ODD)
    overrides = draw(st.lists(OVERRIDES, max_size=1)) if draw(st.integers(0, 3)) == 0 else []
    return config, overrides


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.arange(24, dtype=np.float32).reshape(12, 2)
    np.savez("examples.npz", x=x, y=np.arange(12) % 3, who=np.repeat(["a", "é", "c"], 4))


WRITTEN = {name: written_out(config) for name, config in VALID.items()}


def are_sentences(said):
    """One sentence, or one line for each thing that is wrong."""
    assert said
    for line in said.splitlines():
        assert line.strip()
        assert len(line) < 600


def check_config(config, overrides):
    """An experiment, or sentences; true if there is an experiment."""
    try:
        experiments = build_all(read(config, overrides))
    except FloralError as error:
        are_sentences(str(error))
        return False
    assert experiments
    for experiment in experiments.values():
        assert isinstance(repr(experiment), str)
    return True


TRAINABLE = {
    "algorithm": [
        {"kind": "floral", "num_adaptors": 2},
        {"kind": "floral", "num_adaptors": 2, "stateful": False},
        {"kind": "fedavg"},
        {"kind": "fedprox", "mu": 0.1},
        {"kind": "ditto"},
    ],
    "local": [
        {"kind": "sgd", "learning_rate": 0.1, "batch_size": 2},
        {"kind": "sgd", "learning_rate": 1e30, "batch_size": 2},
    ],
    "rounds": [1, 2],
    "seed": [0, 7],
    "cohort": [{"kind": "full"}, {"kind": "fixed", "size": 2}],
    "checkpoint": [{"every": 1}],
    "evaluate": [SMALL["evaluate"], {"every": 2, "diagnose_clients": 0}],
}


@st.composite
def trainable(draw):
    """A config of few shapes that trains, or now and then one with a thing in it changed."""
    if draw(st.integers(0, 2)) == 0:
        return draw(configs(most=1))
    changes = {place: draw(st.sampled_from(values)) for place, values in TRAINABLE.items()}
    return {**copy.deepcopy(SMALL), **copy.deepcopy(changes)}, []


def numbers_in(value):
    """All numbers of a line, however deep."""
    return [each for each in values_in(value) if isinstance(each, float)]


def check_folder(place):
    """A method's folder is whole: every line is read, no number is written as NaN."""
    lines = (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        # A number that is not finite is null: no JSON has NaN.
        assert all(map(math.isfinite, numbers_in(json.loads(line))))
    assert json.loads((place / "summary.json").read_text(encoding="utf-8"))
    experiment, state = fl.load_run(place)
    assert int(state.round) == experiment.rounds


def check_run(config, overrides):
    """A whole run folder that can be loaded, true; or sentences and no folder, false."""
    # What is left out: 2**31 rounds or steps are right, and take years.
    assume(not any(isinstance(each, int) and each > 1000 for each in values_in(config)))
    with tempfile.TemporaryDirectory() as out:
        try:
            result = fl.run(config, *overrides, out=out, name="run")
        except FloralError as error:
            are_sentences(str(error))
            assert list(Path(out).iterdir()) == []
            return False
        assert [path.name for path in Path(out).iterdir()] == ["run"]
        assert result.report.is_file()
        assert result.figure.is_file()
        for place in result.folders.values():
            check_folder(place)
        assert not list(Path(out).rglob("*.tmp"))
    return True


def check_command(config, overrides):
    """``floral check`` says one thing on one stream, and the status agrees."""
    try:
        text = dump(config)
    except (FloralError, TypeError, RepresenterError):  # what no file holds
        return
    Path("config.yaml").write_text(text, encoding="utf-8")
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            status = main(["check", "config.yaml", *overrides])
        except SystemExit as stop:
            status = stop.code
    assert status in (0, 1, 2)
    assert "Traceback" not in said.getvalue()
    assert (status == 0) == bool(printed.getvalue())


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.mark.parametrize("name", VALID)
def test_the_configs_that_are_changed_are_right(name):
    assert check_config(VALID[name], [])


@pytest.mark.filterwarnings("ignore")
@given(asked=configs())
@settings(max_examples=150, derandomize=True, **QUIET)
def test_a_config_gives_an_experiment_or_sentences(asked):
    check_config(*asked)


@pytest.mark.filterwarnings("ignore")
@given(asked=configs())
@settings(max_examples=15, derandomize=True, **QUIET)
def test_the_command_says_the_same(asked):
    check_command(*asked)


@pytest.mark.filterwarnings("ignore")
@given(asked=trainable())
@settings(max_examples=5, derandomize=True, **QUIET)
def test_a_run_leaves_a_whole_folder_or_none(asked):
    check_run(*asked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@given(asked=configs())
@settings(max_examples=4000, **QUIET)
def test_four_thousand_configs_do_too(asked):
    check_config(*asked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@given(asked=configs())
@settings(max_examples=400, **QUIET)
def test_four_hundred_commands_do_too(asked):
    check_command(*asked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_third_of_a_hundred_runs_train_and_leave_whole_folders():
    trained = []

    @given(asked=trainable())
    @settings(max_examples=100, **QUIET)
    def run(asked):
        trained.append(check_run(*asked))

    run()
    assert sum(trained) >= len(trained) / 3
