"""The benches' page is what its script makes of the figures kept beside it."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

FOLDER = Path(__file__).parents[2] / "experiments/bench"


@pytest.fixture
def bench(imported):
    """Imports a bench's module."""
    return partial(imported, folder="bench")


def test_the_page_is_made_of_the_figures_that_are_kept():
    # In a process of its own: its modules share names with those of other experiments.
    code = """
from pathlib import Path
import results
page = results.results(
    results.read_kept(Path("results")), Path("explanations.md").read_text(encoding="utf-8")
)
assert page == Path("RESULTS.md").read_text(encoding="utf-8"), "run results.py"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_bar_is_met_from_its_own_side(bench):
    goals = bench("goals")
    assert goals.Goal("speed", 5, 5.0, most=False).reached
    assert not goals.Goal("speed", 5, 4.99, most=False).reached
    assert goals.Goal("time", 5, 5.0, most=True).reached
    assert not goals.Goal("time", 5, 5.01, most=True).reached
    shown = goals.Goal("time", 0.43, 0.4316, most=True).cells()
    assert shown == ["time", "≤ 0.43 ×", "0.432 ×", "**no**"]


def test_bars_are_computed_from_figures(bench):
    goals = bench("goals")
    near, far = (
        {"model": "mlp", "without": {"rise": rise, "expected": 100.0}} for rise in (119.0, 79.0)
    )
    steps = {
        name: {"time": time, "operations": 2.0}
        for name, time in (("floral", 2.2), ("floral, preconditioned", 3.2))
    }
    found = goals.goals({"memory": {"rows": [near, far]}, "local_step_10": steps})
    assert [(goal.measured, goal.reached) for goal in found] == [
        (1.1, True),
        (1.6, False),
        (1, False),
    ]
    assert list(goals.goals({})) == []


def test_every_bar_has_figures_that_are_kept(bench):
    goals = bench("goals")
    kept = {path.stem: json.loads(path.read_text()) for path in (FOLDER / "results").glob("*.json")}
    kept["toolkits"]["floors"] = dict.fromkeys(("mlp, 2", "cnn, 2"), 1.0)
    assert set(goals.SOURCES) <= set(kept)
    assert all(goal.measured > 0 for goal in goals.goals(kept))


class Event(NamedTuple):
    name: str
    start_ns: float
    duration_ns: float


class Line(NamedTuple):
    events: list[Event]


class Plane(NamedTuple):
    lines: list[Line]


class Profile(NamedTuple):
    planes: list[Plane]


def test_an_operations_time_leaves_out_what_it_calls(bench):
    events = [
        Event("dot", 1, 4),
        Event("loop", 0, 10),
        Event("unknown", 0, 99),
        Event("add", 5, 3),
        Event("copy", 6, 1),
        Event("dot", 10, 2),
    ]
    profile = Profile([Plane([Line(events), Line([Event("dot", 0, 5)])])])
    shapes = dict.fromkeys(("dot", "loop", "add", "copy"), "f32[2]")
    spent = bench("where").operations_of(profile, shapes)
    assert spent == {"loop": (3, 1), "dot": (11, 3), "add": (2, 1), "copy": (1, 1)}


def test_shapes_are_read_from_a_programs_text(bench):
    text = """
  %dot.4 = f32[784,200]{1,0} dot(%a, %b)
  ROOT tuple.1 = (f32[2]{0}, s32[]) tuple(%x, %y)
"""
    assert bench("where").shapes_of(text) == {"dot.4": "f32[784,200]", "tuple.1": "f32[2]"}


def test_a_profile_of_a_real_program_counts_its_operations(bench, tmp_path):
    where = bench("where")
    x = jnp.ones((256, 256))
    compiled = jax.jit(lambda x: x @ x + 1).lower(x).compile()
    shapes = where.shapes_of(compiled.as_text())
    jax.block_until_ready(compiled(x))
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(5):
            jax.block_until_ready(compiled(x))
    (trace,) = tmp_path.rglob("*.xplane.pb")
    spent = where.operations_of(jax.profiler.ProfileData.from_file(str(trace)), shapes)
    assert {calls for _, calls in spent.values()} == {5}
    assert all(nanoseconds > 0 for nanoseconds, _ in spent.values())
