"""Run folders: one command at a time writes there, and a failure leaves none behind."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import warnings

import pytest

import floral
from floral.errors import ConfigError, FloralError
from floral.records import lock, record

HOLD = """
import fcntl, json, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.truncate(0)
file.write(json.dumps({"process": 4321, "host": "there"}))
file.flush()
print("held", flush=True)
input()
"""


@pytest.fixture
def holder():
    """``(folder) -> process`` of another program that holds the folder's lock."""
    started = []

    def hold(folder):
        command = [sys.executable, "-c", HOLD, str(folder / ".lock")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# One command at a time.


def test_a_folder_that_another_process_writes_to_is_not_gone_on_with(whole, holder):
    holder(whole.folder)
    before = contents(whole.folder)
    with pytest.raises(ConfigError, match="is in use: process 4321 on host there is training"):
        floral.resume(whole.folder, "rounds=3")
    assert contents(whole.folder) == before


def test_a_killed_process_leaves_no_lock(whole, holder):
    process = holder(whole.folder)
    process.kill()
    process.wait()
    floral.resume(whole.folder)
    said = json.loads((whole.folder / ".lock").read_text())
    assert said == {"process": os.getpid(), "host": socket.gethostname()}


def test_a_method_of_a_comparison_is_not_gone_on_with_beside_the_comparison(
    config, tmp_path, holder
):
    compared = config(compare={"fedavg": {"algorithm": {"kind": "fedavg"}}})
    folder = floral.run(compared, out=tmp_path).folder
    holder(folder / "fedavg")
    with pytest.raises(ConfigError, match=r"fedavg is in use: process 4321"):
        floral.resume(folder)
    with pytest.raises(ConfigError, match=r"fedavg is in use: process 4321"):
        floral.resume(folder / "fedavg")


def test_a_run_holds_its_folder_and_each_methods_while_it_trains(config, tmp_path, watcher):
    compared = config(compare={"fedavg": {"algorithm": {"kind": "fedavg"}}})
    refused = set()

    def resume_again(taken):
        for place in (tmp_path / "run", tmp_path / "run" / [*progress.begun][-1]):
            with pytest.raises(ConfigError, match=f"is in use: process {os.getpid()} on"):
                floral.resume(place)
            refused.add(place.name)

    progress = watcher(resume_again)
    floral.run(compared, out=tmp_path, progress=progress)
    assert refused == {"run", "floral", "fedavg"}
    floral.resume(tmp_path / "run")


def test_two_commands_that_ask_for_one_name_have_two_folders(tmp_path):
    made = [record.new_folder(tmp_path, "two")[-1].name for _ in range(3)]
    assert made == ["two", "two-2", "two-3"]


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), ImportError("no fcntl")])
def test_without_locks_a_run_goes_on_and_says_so(whole, monkeypatch, error):
    def refuse(file):
        raise error

    monkeypatch.setattr(lock, "_lock", refuse)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        floral.resume(whole.folder)
    assert "has no locks" in str(said[0].message)


@pytest.fixture
def full_disk():
    """No file may grow, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_lock_that_cannot_be_written_is_named(tmp_path, full_disk):
    said = r"cannot write '\S+/.lock': the file would be larger"
    with pytest.raises(ConfigError, match=said), lock.Locks() as locks:
        locks.hold(tmp_path)


# What a failure leaves.


def test_a_run_that_fails_before_its_first_record_leaves_no_folder(config, tmp_path, monkeypatch):
    def fail(*arguments, **settings):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("floral.runs.train._Loop.run", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        floral.run(config(), out=tmp_path / "new" / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_later_keeps_what_it_recorded(config, tmp_path, watcher):
    def fail(taken):
        if taken == 3:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        floral.run(config(rounds=4), out=tmp_path, progress=watcher(fail))
    progress = watcher()
    assert floral.resume(tmp_path / "run", progress=progress).summaries["floral"]["rounds"] == 4
    assert progress.begun == {"floral": 2}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "expected the name of a folder"),
        ("a/b", "expected the name of a folder"),
        (7, "expected the name of a folder"),
        ("x" * 300, "the name is too long"),
        ("null\0", "null"),
    ],
    ids=["empty", "with a slash", "a number", "too long", "with a null character"],
)
def test_a_name_that_is_none_for_a_folder_leaves_nothing(name, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        record.new_folder(tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_run_folders_should_be_is_named(config, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(FloralError, match=r"runs' is a file and no folder"):
        floral.run(config(), out=tmp_path / "runs")


# Who trained there.


def test_each_command_that_trained_in_a_folder_is_recorded(config, tmp_path):
    folder = floral.run(config(), "rounds=1", out=tmp_path).folder
    floral.resume(folder, "rounds=2")
    said = [json.loads(line) for line in (folder / "commands.jsonl").read_text().splitlines()]
    assert [line["overrides"] for line in said] == [["rounds=1"], ["rounds=2"]]
    for line in said:
        assert line["host"] == socket.gethostname()
        assert line["folder"] == os.getcwd()
        assert line["date"].endswith("+00:00")
        assert set(line) >= {"command", "process", "commit"}


# Killed early.


def test_a_method_killed_before_its_first_checkpoint_says_that_nothing_was_saved(
    whole, tmp_path, watcher
):
    folder = tmp_path / "killed"
    shutil.copytree(whole.folder, folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "summary.json").unlink()
    progress = watcher()
    floral.resume(folder, progress=progress)
    assert progress.said == ["floral: nothing was saved yet; it starts from round 1"]
    assert progress.begun == {"floral": 0}
    metrics = "metrics.jsonl"
    assert (folder / metrics).read_bytes() == (whole.folder / metrics).read_bytes()
