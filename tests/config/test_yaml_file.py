"""Config files: what the scalars mean, one parent each, errors with file and line."""

import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from floral.config.reading.yaml_file import dump, load, read_value, write_atomically
from floral.errors import ConfigError


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E3", 1000.0),
        ("+.5e1", 5.0),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("12", 12),
        ("-012", -12),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("on", "on"),
        ("Off", "Off"),
        ("yes", "yes"),
        ("n", "n"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("1e", "1e"),
        ("e3", "e3"),
        ("'1e-3'", "1e-3"),
        ("[a, 1e2]", ["a", 100.0]),
        ("{on: off}", {"on": "off"}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = read_value(text, where="here")
    assert found == value
    assert type(found) is type(value)


def test_a_child_is_laid_over_its_parent(tmp_path):
    (tmp_path / "tasks").mkdir()
    write(tmp_path / "tasks", task="extends: ../root.yaml\nmodel: {kind: mlp, hidden: [3]}\n")
    write(tmp_path, root="seed: 1\nrounds: 5\nmodel: {kind: cnn, channels: 8}\n")
    child = write(tmp_path, child="extends: tasks/task.yaml\nrounds: 9\nmodel: {hidden: [4, 4]}\n")
    assert load(child) == {"seed": 1, "rounds": 9, "model": {"kind": "mlp", "hidden": [4, 4]}}
    assert load(str(child)) == load(child)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a": "extends: a.yaml\n"}, "a.yaml: a config cannot extend itself: a.yaml -> a.yaml"),
        (
            {"a": "extends: b.yaml\n", "b": "extends: c.yaml\n", "c": "extends: ./a.yaml\n"},
            "a.yaml: a config cannot extend itself: a.yaml -> b.yaml -> c.yaml -> a.yaml",
        ),
        (
            {"a": "extends: tsk.yaml\n", "_task": "seed: 1\n"},
            "a.yaml: extends: there is no file 'tsk.yaml'; did you mean '_task.yaml'?",
        ),
        (
            {"a": "extends: no/b.yaml\n"},
            "a.yaml: extends: there is no file 'no/b.yaml'; nor is there a folder 'no'"
            "; floral new lists the packaged configs",
        ),
        (
            {"a": "extends: [b.yaml]\n"},
            "a.yaml: extends: expected the path of one file, got ['b.yaml']",
        ),
        ({"a": ""}, "a.yaml: the file is empty; it must be a mapping, as 'seed: 0'"),
        ({"a": "# hi\n"}, "a.yaml: the file is empty; it must be a mapping, as 'seed: 0'"),
        ({"a": "- 1\n- 2\n"}, "a.yaml: the file must be a mapping, as 'seed: 0', got [1, 2]"),
        (
            {"a": "seed: 1\nx: {a: 1\nrounds: 3\n"},
            "a.yaml:3: not YAML: expected ',' or '}', but got ':'",
        ),
        ({"a": "seed: 1\n\tx: 2\n"}, "a.yaml:2: not YAML: found character '\\t' that cannot start "
         "any token"),
        ({"a": "seed: 1\nrounds: 2\nseed: 3\n"}, "a.yaml:3: not YAML: the key 'seed' is already "
         "on line 1"),
        ({"a": "x:\n  - {b: 1,\n     b: 2}\n"}, "a.yaml:3: not YAML: the key 'b' is already on "
         "line 2"),
        ({"a": "x: 1\n3: 4\n"}, "a.yaml:2: not YAML: a key must be text, got 3; quote it"),
        ({"a": "x: 1\ny: !!python/name:os.system a\n"}, "a.yaml:2: not YAML: could not determine "
         "a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ({"a": "x: 1\ny: *gone\n"}, "a.yaml:2: not YAML: found undefined alias 'gone'"),
        ({"a": "x: 1\ny: &a [*a]\n"}, "a.yaml:2: not YAML: found unconstructable recursive node"),
        ({"a": "x: 1\n---\nx: 2\n"}, "a.yaml:2: not YAML: but found another document"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_line(tmp_path, monkeypatch, files, expected):
    write(tmp_path, **files)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load("a.yaml")
    assert str(caught.value) == expected


def test_a_missing_file_names_the_nearest_one(tmp_path, monkeypatch):
    write(tmp_path, floral="seed: 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^floral.yml: there is no file 'floral.yml'; did you"):
        load("floral.yml")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"seed: \xff\xfe\n")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(path)
    path.write_bytes(b"seed: \x00\n")
    with pytest.raises(ConfigError, match="not YAML: "):
        load(path)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["1e-3", "on", "no", "1:30", "2020-01-01", "~", "", "null", "<<", "=", "0o7"])
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ["on", "1", "1e3", "null", "true", "<<"]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)


@given(st.dictionaries(names, values, max_size=4))
def test_what_is_dumped_reads_back_as_the_same(mapping):
    again = read_value(dump(mapping), where="here")
    assert again == mapping
    assert repr(again) == repr(mapping)  # 1 is not 1.0, and the keys keep their order
    assert dump(again) == dump(mapping)


@given(st.dictionaries(names, scalars, max_size=4))
def test_an_older_yaml_reads_the_same(mapping):
    assert repr(yaml.safe_load(dump(mapping))) == repr(mapping)


def test_two_equal_values_are_written_twice():
    shared = [1, [2]]
    assert "&" not in dump({"a": shared, "b": shared})


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.yaml"
    write_atomically(path, "seed: 1\n")
    write_atomically(path, "seed: ä\n")
    assert path.read_text(encoding="utf-8") == "seed: ä\n"
    assert os.listdir(tmp_path) == ["a.yaml"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    write_atomically(path, "seed: 1\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "seed: \ud800\n")
    assert path.read_text() == "seed: 1\n"
    assert os.listdir(tmp_path) == ["a.yaml"]
