"""Single claims: what is kept is measured once, and pages say what is kept."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from floral.config.reading.yaml_file import load

FOLDER = Path(__file__).parents[2] / "experiments/floral"


def test_pages_are_made_of_what_is_kept():
    # In a process of its own: its modules share names with those of other experiments.
    code = """
import claims, headline
from kept import read_cells
assert claims.page() + "\\n" == claims.PAGE.read_text(encoding="utf-8"), "run claims.py"
for path, text in headline.written(read_cells(headline.KEPT)["quickstart"]).items():
    assert text == path.read_text(encoding="utf-8"), f"{path}: run headline.py --write"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["README.md", "experiments/quickstart.py"])
def test_the_library_examples_mix_as_the_quickstart_does(place):
    root = FOLDER.parents[1]
    mixing = load(root / "configs/quickstart.yaml")["mixing"]
    kind = mixing.pop("kind")
    call = f"fl.mixtures.{kind}({', '.join(f'{name}={value}' for name, value in mixing.items())})"
    assert call in (root / place).read_text(encoding="utf-8")


def test_every_claim_has_a_number_and_what_measures_it(imported):
    claims = imported("claims").CLAIMS
    assert [claim.id for claim in claims] == [f"4.{number}" for number in range(1, 25)]
    for claim in claims:
        words = (claim.command or "").split()
        for word in words:
            if word.endswith((".py", ".yaml")):
                assert (FOLDER.parents[1] / word).is_file(), word
        assert bool(claim.figure) <= bool(claim.source) <= bool(claim.command)


def test_a_claim_that_misses_is_explained_and_no_other(imported):
    claims = imported("claims")
    claim = claims.Claim("4.1", "", "", "run", claims.QUICK, lambda: ("", False), lambda: "Why.")
    met = claim._replace(id="4.2", figure=lambda: ("", True))
    assert claims.misses([claim, met]) == "* **4.1.** Why."
    assert claims.misses([met]) == "None."
    for one in claims.CLAIMS:
        if f"* **{one.id}.**" in claims.misses(claims.CLAIMS):
            assert one.why is not None


def test_the_quickstart_has_the_mixing_that_its_rule_chooses(imported):
    script = imported("quickstart_mixing")
    first, *others = script.CANDIDATES
    (override,) = script.CANDIDATES[first]
    mixing = load(script.CONFIG)["mixing"]
    assert script.config_of(first, 0)["mixing"]["survey_rounds"] == mixing["survey_rounds"], (
        override
    )
    low = {name: {"validation": 80.0} for name in script.CANDIDATES}
    near, far = {**low, others[0]: {"validation": 81.0}}, {**low, others[-1]: {"validation": 81.1}}
    assert script.chosen({10: near, 11: near}) == first
    assert script.chosen({10: far, 11: far}) == others[-1]


def test_the_number_of_adaptors_is_chosen_by_validation_over_all_faults(imported):
    script = imported("faulty_groups")

    def of(*values):
        return {
            fault: {"validation": value, "test": 50.0 + place}
            for place, (fault, value) in enumerate(zip(script.FAULTS, values, strict=True))
        }

    one = dict(zip(script.CHOICES, (of(90, 60, 60), of(80, 80, 80), of(81, 70, 80)), strict=True))
    assert script.chosen({0: one, 1: one}) == "five adaptors"
    assert script.cost(one, "counted", "missing") == 2.0


def test_a_seed_is_measured_once_unless_settings_change(imported, tmp_path):
    bed, calls = imported("bed"), []

    def measure(seed):
        calls.append(seed)
        return {"twice": 2 * seed}

    for seeds, rate in (([0, 1], 0.1), ([1, 2], 0.1), ([1], 0.2)):
        found = bed.measured("made_up", seeds, measure, {"rate": rate}, folder=tmp_path)
        assert {seed: found[seed]["twice"] for seed in seeds} == {seed: 2 * seed for seed in seeds}
    assert calls == [0, 1, 2, 1]
    assert sorted(bed.kept("made_up", tmp_path)) == [0, 1, 2]


def test_a_target_is_reached_in_the_first_round_at_or_below_it(imported):
    first = imported("convergence").first
    assert first([3.0, 1.0, 2.0, 0.5], 1.0) == 2
    assert first([3.0, 1.0], 0.5) is None


@pytest.mark.parametrize("seed", [0, 5])
def test_as_many_clients_of_every_group_are_faulty(imported, seed):
    faults = imported("faults")
    groups = np.flatnonzero(faults.faulty(seed, "noise")) % 4
    assert np.bincount(groups).tolist() in ([2] * 4, [3] * 4)
    assert faults.faulty(seed, "overflow").sum() == 1


def test_what_a_fault_costs_is_told_of_healthy_and_faulty_clients_apart(imported):
    faults = imported("faults")
    one = {
        "faulty": {"noise": [0, 1]},
        "accuracy": {
            "none": {"fedavg": [80.0] * 40},
            "noise": {"fedavg": [10.0, 20.0] + [79.0] * 38},
        },
    }
    assert faults.cost(one, "noise", "fedavg", healthy=True) == -1.0
    assert faults.cost(one, "noise", "fedavg", healthy=False) == -65.0
