"""Kept numbers say what made them, and tables mark those that do not."""

import json
import subprocess
from pathlib import Path

import pytest

import floral
from floral.records.environment import checkout_commit
from floral.records.provenance import commit_of

ROOT = Path(__file__).parents[2]
MADE = {"commit": "0123456789ab", "config": "c0", "versions": {"jax": "1"}, "command": "floral run"}


@pytest.fixture
def provenance(imported):
    return imported("provenance")


def test_a_run_folder_tells_what_made_its_numbers(provenance, imported, add_run, tmp_path):
    folder = add_run(tmp_path, "one", 0, {"floral": 0.5}) / "floral"
    environment = {
        "commit": "0123456789ab",
        "data": "77" * 32,
        "python": "3.12",
        "versions": dict.fromkeys((*provenance.VERSIONS, "orbax-checkpoint"), "1.0"),
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    cells = imported("cells").collect([folder.parent], command="floral run one.yaml")
    (cell,) = provenance.cells_in(cells)
    assert cell["made"]["commit"] == "0123456789ab"
    assert cell["made"]["data"] == "77" * 6
    assert cell["made"]["command"] == "floral run one.yaml"
    assert provenance.traceable(cell)


def test_this_process_tells_what_makes_its_numbers(provenance):
    made = provenance.made_here({"seed": 1}, "python one.py")
    assert made["commit"] == checkout_commit()
    assert set(made["versions"]) == {"python", *provenance.VERSIONS}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"seed": 1}, False),
        ({"rounds": 9}, False),
        ({"data": {"source": {"kind": "mnist", "folder": "there"}}}, True),
        ({"data": {"source": {"kind": "mnist", "variant": "fashion"}}}, False),
        ({"checkpoint": {"every": 9}, "execution": {"walk": "scan"}}, True),
    ],
    ids=["seed", "rounds", "folder", "variant", "execution"],
)
def test_a_digest_is_of_what_decides_the_numbers(changes, same, provenance):
    config = {"seed": 0, "rounds": 2, "data": {"source": {"kind": "mnist", "folder": "here"}}}
    assert (provenance.digest({**config, **changes}) == provenance.digest(config)) is same


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ({"made": MADE}, ""),
        ({}, "°"),
        ({"made": {**MADE, "commit": "0123456789ab-dirty"}}, "°"),
        ({"made": {**MADE, "commit": None}}, "°"),
        ({"made": MADE, "earlier": "k-means"}, "†"),
        ({"earlier": "k-means"}, "°†"),
    ],
    ids=["whole", "absent", "changed files", "no commit", "earlier code", "both"],
)
def test_a_number_is_marked_by_what_its_cells_lack(cell, expected, provenance, imported):
    cell = {"accuracy": 0.5, "seconds": 1.0, **cell}
    whole = {"accuracy": 0.5, "seconds": 1.0, "made": MADE}
    assert provenance.marks([whole, cell]) == expected
    shown = imported("table").table({"digits": {"floral": {0: whole, 1: cell}}}, provenance.marks)
    assert f"50.0 ± 0.0{expected} |" in shown
    assert [line[0] for line in provenance.legend({"a": [], "b": {"0": cell}})] == list(expected)


def test_kept_cells_are_read_back_as_they_were(imported, tmp_path):
    kept = imported("kept")
    cell = {"accuracy": 0.5, "seconds": 1.0, "made": MADE}
    kept.keep(tmp_path / "kept.json", {"digits, 5%": {"floral": {1: cell}}})
    kept.keep(tmp_path / "kept.json", {"digits, 5%": {"floral": {0: cell}, "fedavg": {2: cell}}})
    assert kept.read_cells(tmp_path / "kept.json") == {
        "digits, 5%": {"floral": {0: cell, 1: cell}, "fedavg": {2: cell}}
    }


def test_the_commit_is_the_checkouts():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    found = commit_of(ROOT, within="floral")
    assert found is not None
    assert head.startswith(found.removesuffix("-dirty"))
    installed = Path(floral.__file__).parents[1] != ROOT  # then no checkout is imported
    assert checkout_commit() == (None if installed else found)
