"""Names of compared methods are folders of the run; what would clash is refused by the config."""

import pytest

from floral.config.reading.resolve import methods, read
from floral.config.reading.yaml_file import read_value
from floral.errors import ConfigError
from floral.records.intact import read_environment

SMALL = {
    "rounds": 1,
    "data": {"source": {"kind": "synthetic_linear", "clients": 4}},
    "model": {"kind": "linear"},
    "algorithm": {"kind": "fedavg"},
    "local": {"kind": "sgd", "learning_rate": 0.1},
}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["report.md"], "compare.report.md: a run folder keeps files of its own"),
        (["Figure.PNG"], "a run folder keeps files of its own"),
        (["checkpoints"], "a run folder keeps files of its own"),
        (["a" * 300], "a method's name has at most 100 letters, this one 300"),
        (["FedAvg"], "there is a method 'fedavg' already, and on some disks both would be one"),
        (["a", "A"], "compare.A: there is a method 'a' already"),
    ],
    ids=["report", "figure", "checkpoints", "long", "main twin", "case twins"],
)
def test_names_that_clash_in_a_run_folder_are_refused(names, said):
    with pytest.raises(ConfigError, match=said):
        methods(read({**SMALL, "compare": {name: {"seed": 1} for name in names}}))


def test_yaml_nested_too_deeply_is_one_sentence():
    with pytest.raises(ConfigError, match=r"c\.yaml: not YAML that can be read: it is nested too"):
        read_value("a: " + "[" * 3000, where="c.yaml")


def test_a_record_without_the_config_is_said_to_be_damaged(tmp_path):
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"environment\.json: damaged: it lacks 'config'"):
        read_environment(tmp_path)
