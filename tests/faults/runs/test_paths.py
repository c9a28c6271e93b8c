"""Files that a config names mean the same from any folder, and may be moved."""

import shutil
import sys

import numpy as np
import pytest

import floral
from floral.config.reading.file_paths import path_places, with_absolute_paths
from floral.config.reading.resolve import read
from floral.config.reading.yaml_file import load
from floral.errors import ConfigError, DataError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to stand in, with twelve examples of four clients in ``d.npz``."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    rng = np.random.default_rng(0)
    np.savez(place / "d.npz", x=rng.standard_normal((24, 3)).astype("f"), y=np.arange(24) % 2)
    (tmp_path / "there").mkdir()
    return place


def of_file(config, source, **changes):
    split = {"validation": 0.25, "test": 0.25}
    partition = {"kind": "iid", "clients": 2}
    return config(
        data={"source": source, "partition": partition, "split": split},
        algorithm={"kind": "fedavg"},
        adaptors=[],
        **changes,
    )


def test_a_run_goes_on_and_is_loaded_from_another_folder(config, here, monkeypatch):
    run = floral.run(of_file(config, {"kind": "npz", "path": "d.npz"}), out="runs")
    monkeypatch.chdir(here.parent / "there")
    np.savez("d.npz", x=np.zeros((24, 3), "f"), y=np.arange(24) % 2)  # another file of that name
    folder = here / run.folder
    assert load(folder / "config.yaml")["data"]["source"]["path"] == str(here / "d.npz")
    floral.resume(folder, "rounds=4")
    floral.load_run(folder)


def test_a_moved_file_is_named_with_the_override_that_mends_it(config, here):
    folder = floral.run(of_file(config, {"kind": "npz", "path": "d.npz"}), out="runs").folder
    moved = here.parent / "there" / "moved.npz"
    shutil.move("d.npz", moved)
    told = r"if it was moved: floral resume .* data\.source\.path=…"
    with pytest.raises(DataError, match=told):
        floral.resume(folder, "rounds=4")
    with pytest.raises(DataError, match=told):
        floral.load_run(folder)
    floral.resume(folder, "rounds=4", "data.source.path=../there/moved.npz")
    assert load(folder / "config.yaml")["data"]["source"]["path"] == str(
        here / "../there/moved.npz"
    )
    floral.load_run(folder)


def test_another_file_in_its_place_is_refused_by_resume_and_by_load(config, here):
    folder = floral.run(of_file(config, {"kind": "npz", "path": "d.npz"}), out="runs").folder
    np.savez("d.npz", x=np.zeros((24, 3), "f"), y=np.arange(24) % 2)
    for again in (lambda: floral.resume(folder, "rounds=4"), lambda: floral.load_run(folder)):
        with pytest.raises(DataError, match="the run began with"):
            again()


def test_a_resumed_run_takes_no_other_override_and_names_those_it_takes(config, here):
    folder = floral.run(of_file(config, {"kind": "npz", "path": "d.npz"}), out="runs").folder
    with pytest.raises(ConfigError, match=r"takes rounds=…, data\.source\.path=… alone"):
        floral.resume(folder, "seed=3")


def test_moved_files_are_moved_for_every_method_of_a_comparison(config, here):
    compared = of_file(
        config,
        {"kind": "npz", "path": "d.npz"},
        compare={"ditto": {"algorithm": {"kind": "ditto"}}},
    )
    folder = floral.run(compared, out="runs").folder
    (here / "sub").mkdir()
    shutil.move("d.npz", "sub/d.npz")
    floral.resume(folder, "data.source.path=sub/d.npz")
    for method in ("fedavg", "ditto"):
        floral.load_run(folder / method)


OWN = """
from pathlib import Path
import numpy as np
from floral.data import Source, arrays

def mine(*, file: Path, others: list[Path] | None = None) -> Source:
    assert isinstance(file, Path)
    held = np.load(file)
    return arrays(held["x"], held["y"])
"""


def test_ones_own_factory_and_its_files_are_found_from_another_folder(config, here, monkeypatch):
    (here / "own_of_a_run.py").write_text(OWN)
    source = {"kind": "own_of_a_run:mine", "file": "d.npz", "others": ["d.npz"]}
    folder = floral.run(of_file(config, source), out="runs").folder
    saved = load(folder / "config.yaml")["data"]["source"]
    assert saved["file"] == str(here / "d.npz")
    assert saved["others"] == [str(here / "d.npz")]
    monkeypatch.chdir(here.parent / "there")
    sys.modules.pop("own_of_a_run")
    floral.load_run(here / folder)
    assert "" in sys.path
    assert str(here) not in sys.path


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ({"kind": "npz", "path": "a"}, "path"),
        ({"kind": "from_npz", "path": "a"}, "path"),
        ({"kind": "idx", "images": "a", "labels": ["b", "c"]}, "images"),
        ({"kind": "mnist", "folder": "a"}, "folder"),
        ({"kind": "cifar", "folder": "a"}, "folder"),
        ({"kind": "mapped", "folder": "a"}, "folder"),
        ({"kind": "tfds", "name": "a", "data_dir": "b"}, "data_dir"),
        ({"kind": "huggingface", "path": "d.npz"}, "path"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_files_of_every_source_are_made_absolute(config, here, source, place):
    fixed = with_absolute_paths(read(config(data={"source": source})))
    assert fixed["data"]["source"][place] == str(here / source[place])


def test_names_stay_names(config, here):
    given = config(
        data={"source": {"kind": "huggingface", "path": "ylecun/mnist"}},
        compare={"warm": {"start_from": "floral"}, "other": {"start_from": "../there"}},
    )
    (here / "floral").mkdir()
    fixed = with_absolute_paths(read(given))
    assert fixed["data"]["source"]["path"] == "ylecun/mnist"
    assert fixed["compare"]["warm"]["start_from"] == "floral"
    assert fixed["compare"]["other"]["start_from"] == str(here / "../there")


def test_home_folders_and_the_paths_of_compared_methods_are_absolute(config, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    given = config(
        data={"source": {"kind": "npz", "path": "~/d.npz"}},
        execution={"rows": "host", "rows_folder": "."},
        compare={"other": {"data": {"source": {"path": "e.npz"}}}},
    )
    assert set(path_places(read(given))) == {
        ("data", "source", "path"),
        ("execution", "rows_folder"),
        ("compare", "other", "data", "source", "path"),
    }
    fixed = with_absolute_paths(read(given))
    assert fixed["data"]["source"]["path"] == str(here / "d.npz")
    assert fixed["execution"]["rows_folder"] == str(here)
    assert fixed["compare"]["other"]["data"]["source"]["path"] == str(here / "e.npz")
