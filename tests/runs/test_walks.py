"""Timings of walks: measured once, remembered, and made anew where they are damaged."""

import json
import os

import pytest

import floral
from floral.config.reading.resolve import read
from floral.records import walks
from floral.runs.prepare import build_all
from floral.runs.progress import Silent
from floral.simulate.machine.probe import Probe

PLAIN = {"algorithm": {"kind": "fedavg"}}  # which compiles soonest: each walk is a program
TIMED = {**PLAIN, "rounds": 2, "execution": {"walk": "timed", "devices": 1}}
SECONDS = {1: 0.3, 4: 0.1, 6: 0.2}


class Lines(Silent):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


class Counting:
    """A probe that counts how often it is measured."""

    def __init__(self, program="a" * 64):
        self.times = 0
        self.probe = Probe(program, self.measure)

    def measure(self):
        self.times += 1
        return SECONDS


def environment(result):
    return json.loads((result.folder / "environment.json").read_text())


def test_a_run_remembers_what_it_timed(config, tmp_path):
    file, first, second = tmp_path / "caches" / "walks.json", Lines(), Lines()
    once = floral.run(config(**TIMED), out=tmp_path / "1", walks=file, progress=first)
    (measured,) = json.loads(file.read_text()).values()
    again = floral.run(config(**TIMED), out=tmp_path / "2", walks=file, progress=second)
    assert first.lines[0] == "fedavg: walk: timing a few rounds"
    assert "as timed before" not in first.lines[1]
    assert len(second.lines) == 1
    assert second.lines[0] == f"{first.lines[1]}, as timed before"
    for result in (once, again):
        assert environment(result)["chunk_seconds"] == measured
        assert str(environment(result)["chunk"]) == min(measured, key=measured.get)
    assert os.listdir(file.parent) == ["walks.json"]


def test_a_run_goes_on_with_the_walk_that_it_began_with(config, tmp_path):
    """Whatever would be timed now: another walk adds its floats in another order."""
    file = tmp_path / "walks.json"
    result = floral.run(config(**TIMED), out=tmp_path, walks=file)
    chunk = environment(result)["chunk"]
    (program,) = json.loads(file.read_text())
    other = {1: 3, 3: 1}[chunk]
    file.write_text(json.dumps({program: {str(other): 0.1}}))
    lines = Lines()
    floral.resume(result.folder, "rounds=3", walks=file, progress=lines)
    assert lines.lines == []
    experiment, state = floral.load_run(result.folder)
    assert (experiment.simulator.chunk, int(state.round)) == (chunk, 3)


def test_a_limit_of_memory_does_not_change_the_walk_of_a_run_that_goes_on(config, tmp_path):
    limited = {"walk": "auto", "devices": 1, "memory": 1.0}
    result = floral.run(config(**PLAIN, rounds=1, execution=limited), out=tmp_path)
    path = result.folder / "environment.json"
    path.write_text(json.dumps({**environment(result), "chunk": 2}))
    assert floral.load_run(result.folder)[0].simulator.chunk == 2


def test_a_program_is_measured_once_and_others_for_themselves(tmp_path):
    file, one, other = tmp_path / "walks.json", Counting(), Counting("b" * 64)
    for counting in (one, other, one):
        assert walks.remembered(file, lambda line: None)(counting.probe) == SECONDS
    assert (one.times, other.times) == (1, 1)
    assert walks.recalled(file)(one.probe) == SECONDS
    assert walks.recalled(file)(Counting("c" * 64).probe) == {}


def test_without_a_file_nothing_is_remembered():
    counting, timings = Counting(), walks.remembered(None, lambda line: None)
    assert timings(counting.probe) == timings(counting.probe) == SECONDS
    assert counting.times == 2
    assert walks.recalled(None)(counting.probe) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"a": 3}',
        '{"a": {}}',
        '{"a": {"one": 0.1}}',
        '{"a": {"0": 0.1}}',
        '{"a": {"1": "x"}}',
        '{"a": {"1": NaN}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_reported_in_a_line_and_made_anew(text, tmp_path):
    file, counting, lines = tmp_path / "walks.json", Counting(), []
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert walks.remembered(file, lines.append)(counting.probe) == SECONDS
    (report,) = [line for line in lines if str(file) in line]
    assert "made anew" in report
    assert "\n" not in report
    assert walks.recalled(file)(counting.probe) == SECONDS
    assert os.listdir(tmp_path) == ["walks.json"]


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    lines = []
    timings = walks.remembered(tmp_path / "file" / "walks.json", lines.append)
    assert timings(Counting().probe) == SECONDS
    assert sum("cannot be written" in line for line in lines) == 1


def test_a_look_at_a_config_times_nothing(config):
    (experiment,) = build_all(read(config(**TIMED))).values()
    assert experiment.simulator.timings == {}
