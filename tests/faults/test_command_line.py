"""What the command line and ``fl.run`` take: names of configs, methods, overrides, versions."""

from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import pandas
import pytest

import floral
from floral.config import areas as places
from floral.config.areas import SCHEMA
from floral.config.build import build
from floral.config.reading import packaged
from floral.config.reading.resolve import methods, read
from floral.config.reading.yaml_file import load, read_value
from floral.errors import ConfigError
from floral.reports.label_skew import label_skew

CONFIG = """\
rounds: 1
data: {source: {kind: synthetic_linear, clients: 4, dimension: 3, outputs: 2, validation: 1}}
model: {kind: linear}
adaptors: [{match: .*/kernel, kind: low_rank, rank: 1}]
algorithm: {kind: floral, num_adaptors: 2}
local: {kind: sgd, learning_rate: 0.1}
compare:
  fedavg: {algorithm: {kind: fedavg}}
  frozen: {start_from: floral, algorithm: {train: [mixture]}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(CONFIG)
    return tmp_path


def test_the_version_is_that_of_the_package(command):
    assert floral.__version__ == version("floral")
    assert command("--version") == (0, f"floral {version('floral')}\n", "")


def test_the_package_says_that_it_is_typed():
    assert (Path(floral.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu", "small.yaml"], "no command is called 'rnu'; did you mean 'run'?"),
        (["zzzzz"], "no command is called 'zzzzz'; there are run, resume"),
        (["run"], "which config? Name a YAML file or a packaged config, as quickstart"),
        (["plan", "--only", "fedavg"], "which config?"),
    ],
    ids=["misspelt command", "no such command", "run alone", "plan alone"],
)
def test_what_a_command_line_lacks_is_said_with_the_usage(command, words, said):
    status, out, err = command(*words)
    assert (status, out) == (2, "")
    assert said in err


# Packaged configs.


def test_a_packaged_config_is_run_by_its_name_from_any_folder():
    assert load("quickstart")["algorithm"]["kind"] == "floral"
    assert load("quickstart.yaml") == load("quickstart")


def test_a_file_comes_before_the_packaged_config_of_its_name():
    Path("quickstart").write_text("seed: 7\n")
    assert load("quickstart") == {"seed": 7}


def test_every_packaged_config_can_be_copied_and_means_the_same():
    for name in packaged.names():
        target = packaged.create(Path(f"{name.replace('/', '_')}.yaml"), name)
        assert load(target) == load(name)
        assert f"floral run {target}" in target.read_text()


def test_new_lists_the_packaged_configs_and_writes_one(command):
    status, out, err = command("new")
    assert (status, err) == (0, "")
    assert out.startswith("quickstart  ")
    assert {line.split()[0] for line in out.splitlines() if line} >= set(packaged.names())
    status, out, err = command("new", "mine.yaml", "--from", "quickstart")
    assert (status, err) == (0, "")
    assert load("mine.yaml") == load("quickstart")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["small.yaml"], "small.yaml exists already and is not overwritten"),
        (["mine.txt"], "mine.txt: a config is a YAML file; call it mine.txt.yaml"),
        (["no/mine.yaml"], "cannot write 'no/mine.yaml': there is no folder 'no'"),
        (["mine.yaml", "--from", "quikstart"], "'quikstart'; did you mean 'quickstart'?"),
        (["mine.yaml", "--from", "../configs/quickstart"], "no packaged config is called"),
        (["mine.yaml", "--from", "/etc/hosts"], "no packaged config is called"),
    ],
    ids=["taken", "no suffix of YAML", "no folder", "misspelt", "a path", "an absolute path"],
)
def test_a_new_config_that_cannot_be_made_is_refused(command, words, said):
    status, out, err = command("new", *words)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert said in err
    assert Path("small.yaml").read_text() == CONFIG
    assert not Path("mine.yaml").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("quikstart", "did you mean the packaged config 'quickstart'?"),
        ("smal.yaml", "did you mean 'small.yaml'?"),
        ("configs/quickstart.yaml", "did you mean the packaged config 'quickstart'?"),
        ("no/such.yaml", "nor is there a folder 'no'; floral new lists the packaged configs"),
        (".", "'.' is a folder, not a YAML file"),
    ],
    ids=["misspelt name", "misspelt file", "a checkout's path", "no folder", "a folder"],
)
def test_a_config_that_is_not_there_is_answered_with_one_that_is(path, said):
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert said in str(caught.value)


def test_a_merge_key_is_refused_and_extends_is_named():
    with pytest.raises(ConfigError, match=r"merge keys \(<<\) are no YAML 1.2; use extends"):
        read_value("a: &x {b: 1}\nc: {<<: *x}", where="x.yaml")
    assert read_value("{'<<': 1}", where="x.yaml") == {"<<": 1}


# Which methods.


@pytest.mark.parametrize(
    ("overrides", "settings", "without", "expected"),
    [
        (["compare.fedavg=null"], {}, (), ["floral", "frozen"]),
        (["compare=null"], {}, (), ["floral"]),
        (["compare={fedavg: null, frozen: null}"], {}, (), ["floral"]),
        ([], {"compare": {"frozen": None}}, (), ["floral", "fedavg"]),
        (["only=fedavg"], {}, (), ["fedavg"]),
        (["only=[fedavg, floral]"], {}, (), ["floral", "fedavg"]),
        ([], {"only": "fedavg,floral"}, (), ["floral", "fedavg"]),
        ([], {"only": ["fedavg"]}, (), ["fedavg"]),
        ([], {}, "frozen", ["floral", "fedavg"]),
        ([], {}, ["frozen", "floral"], ["fedavg"]),
        (["only=fedavg,floral"], {}, "floral", ["fedavg"]),
    ],
)
def test_methods_are_taken_out_of_a_comparison(overrides, settings, without, expected):
    config = read("small.yaml", overrides, settings=settings, without=without)
    assert list(methods(config)) == expected
    assert list(methods(read(config))) == expected


@pytest.mark.parametrize(
    ("overrides", "without", "said"),
    [
        (["compare.fedavgg=null"], (), "no method to compare is called 'fedavgg'; did you mean"),
        (["only=fedprox,zz"], (), "'fedprox'; there are floral, fedavg, frozen"),
        ([], "qq", "without: no method is called 'qq'; there are floral, fedavg, frozen"),
        (["only=frozen"], (), "'frozen' starts from 'floral', which is left out; name both"),
        (["only=floral"], "floral", "only: no method is left to run"),
        (["only=[]"], (), "only: no method is left to run"),
        (["compare.fedavg={only: floral}"], (), "compare.fedavg.only: comparisons do not nest"),
        (["only=3"], (), "only: expected"),
    ],
)
def test_a_choice_of_methods_that_means_none_is_refused(overrides, without, said):
    with pytest.raises(ConfigError) as caught:
        read("small.yaml", overrides, without=without)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["seed=0,1,2", "seed=[0, 1]", "data.seed=1,2"])
def test_several_seeds_are_answered_with_how_to_run_them(text):
    with pytest.raises(ConfigError, match=r"a run has one seed, got .*floral report runs/x"):
        read("small.yaml", [text])


# From Python.


def test_keywords_are_overrides_and_win_over_texts():
    given = {"rounds": 2, "algorithm.num_adaptors": 8, "local": {"epochs": 3}}
    config = read("small.yaml", ["rounds=5", "seed=4"], settings=given)
    assert (config["rounds"], config["seed"]) == (2, 4)
    assert config["algorithm"] == {"kind": "floral", "num_adaptors": 8}
    assert config["local"] == {"kind": "sgd", "learning_rate": 0.1, "epochs": 3}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: floral.run("small.yaml", round=2), "round: no top-level key is called 'round'"),
        (lambda: floral.run("small.yaml", {"rounds": 2}), "settings from Python are keywords"),
        (lambda: floral.run("small.yaml", **{"algorithm..x": 2}), "has an empty part"),
        (lambda: floral.run("small.yaml", rounds="two"), "rounds: expected a whole number"),
    ],
    ids=["misspelt", "a mapping", "an empty part", "text"],
)
def test_a_wrong_keyword_is_refused_before_anything_is_made(call, said, folder):
    with pytest.raises(ConfigError) as caught:
        call()
    assert said in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["small.yaml"]


def test_a_run_of_chosen_methods_is_read_back_by_their_names():
    result = floral.run("small.yaml", only="fedavg,floral", compare={"frozen": None})
    assert list(result.summaries) == list(result.folders) == ["floral", "fedavg"]
    for name, place in result.folders.items():
        assert (place / "metrics.jsonl").is_file()
        experiment, _ = floral.load_run(result.folder, method=name)
        assert experiment.config["algorithm"]["kind"] == name
    with pytest.raises(ConfigError, match="choose one by method=: floral, fedavg"):
        floral.load_run(result.folder)
    with pytest.raises(ConfigError, match="holds no method 'fedavgg'; did you mean 'fedavg'"):
        floral.load_run(result.folder, method="fedavgg")
    alone = floral.run("small.yaml", only="fedavg")
    shown = f"Result('{alone.folder}': rounds fedavg 1; the table is in {alone.report})"
    assert repr(alone) == shown
    assert "fedavg" in alone._repr_html_()
    assert floral.load_run(alone.folder)[0].config["algorithm"]["kind"] == "fedavg"
    flat = floral.run("small.yaml", compare=None)
    assert floral.load_run(flat.folder, method="floral")[0].config == (
        floral.load_run(flat.folder)[0].config
    )


# What commands and prompts show.


def test_the_top_level_of_a_config_is_listed_like_an_area(command):
    status, out, _ = command("schema", "experiment")
    assert status == 0
    assert all(f"\n  {key} " in out for key in ("rounds", "data", "compare", "only"))


def test_help_for_configs_is_in_the_words_of_configs():
    for area in places.AREAS:
        for kind in SCHEMA.kinds(area):
            for name, (parameter, _) in SCHEMA.form(area, kind).fields.items():
                for word in ("``", "see below", "None", "True", "False"):
                    assert word not in parameter.description, f"{area.name} {kind} {name}"


def test_describe_shows_which_classes_clients_have():
    source = floral.data.arrays(np.zeros((8, 2)), [0, 0, 0, 0, 1, 1, 2, 2])
    dataset = floral.data.federate(source, partition=floral.data.blocks(clients=4))
    lines = label_skew(dataset).splitlines()
    assert lines[0] == (
        "labels: a client has 1.0 of 3 classes (1 to 1); its most frequent is 100% of its "
        "training examples"
    )
    assert [line.split() for line in lines[1:]] == [
        ["client", "0", "1", "2"],
        ["0", "2", "0", "0"],
        ["1", "2", "0", "0"],
        ["2", "0", "2", "0"],
        ["3", "0", "0", "2"],
    ]


def test_objects_show_themselves_in_one_short_line():
    (config,) = methods(read("small.yaml", ["compare=null"])).values()
    experiment = build(config)
    source = floral.data.arrays(np.zeros((8, 2)), [0, 1] * 4, fields={"site": [0] * 8})
    for shown in (
        source,
        floral.data.federate(source, partition=floral.data.iid(clients=2)),
        experiment.dataset,
        experiment.simulator,
        experiment.plan,
        experiment.model,
        experiment.algorithm,
        experiment,
    ):
        assert repr(shown).startswith(f"{type(shown).__name__}(")
        assert len(repr(shown)) < 400
        assert "\n" not in repr(shown)
        assert "<function" not in repr(shown)
    assert experiment.simulator._repr_html_().startswith("<pre>Simulator(cohort of 4")
    assert experiment.dataset._repr_html_().startswith("<pre>4 clients (0 unseen)")
    assert jax.tree.leaves(experiment.dataset) != []
    report = experiment.simulator.evaluate(experiment.simulator.init(jax.random.key(0)), "test")
    frame = pandas.DataFrame({name: list(values) for name, values in report.items()})
    assert len(frame) == 4
