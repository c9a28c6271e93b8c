"""Files that cannot be read or written, devices that are not there: one sentence, exit status 1."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import floral
from floral.config.reading.yaml_file import dump, write_atomically
from floral.errors import ConfigError, FloralError
from floral.files import FileError, in_words
from floral.runs import train as loop


@pytest.fixture(autouse=True)
def here(tmp_path_factory, monkeypatch):
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


def one_sentence(said):
    return said.startswith("floral: ") and said.count("\n") == 1 and "Traceback" not in said


def test_a_report_for_a_folder_that_is_not_there_is_refused(command, whole):
    status, _, said = command("report", whole.folder, "--out", "no/such/folder/r.md")
    assert (status, one_sentence(said)) == (1, True)
    assert "cannot write 'no/such/folder/r.md': there is no folder 'no/such/folder'" in said


def test_a_report_in_the_place_of_a_folder_is_refused(command, whole):
    Path("taken").mkdir()
    status, _, said = command("report", whole.folder, "--out", "taken")
    assert (status, one_sentence(said)) == (1, True)
    assert "cannot write 'taken': it is a folder" in said
    assert [path.name for path in Path().iterdir()] == ["taken"]


@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_folder_as_a_config_is_refused(command, verb, whole):
    status, _, said = command(verb, ".")
    assert (status, one_sentence(said)) == (1, True)
    assert "'.' is a folder, not a YAML file" in said
    *_, said = command(verb, whole.folder)
    assert "config.yaml" in said
    assert f"floral resume {whole.folder}" in said


def test_a_config_that_is_not_text_is_refused(command):
    Path("c.yaml").write_bytes(b"\xff\xfe")
    status, _, said = command("check", "c.yaml")
    assert (status, one_sentence(said)) == (1, True)
    assert "not UTF-8 text" in said


@pytest.mark.parametrize("name", ["summary.json", "config.yaml", "environment.json"])
def test_a_folder_where_a_file_of_a_run_should_be_is_named(command, whole, tmp_path, name):
    folder = tmp_path / "copy"
    shutil.copytree(whole.folder, folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    status, _, said = command("resume", folder, "rounds=4")
    assert status in (0, 1)
    assert "Traceback" not in said
    assert status == 0 or one_sentence(said)


def test_an_error_that_nothing_foresaw_is_one_sentence_too(command, monkeypatch):
    def fail(arguments):
        raise PermissionError(13, "Permission denied", "/there/file")

    monkeypatch.setattr("floral.cli.look.schema", fail)
    assert command("schema") == (1, "", "floral: '/there/file': there is no permission\n")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
    ],
    ids=["disk full", "quota", "read-only"],
)
def test_reasons_are_put_in_words(number, said):
    assert in_words(OSError(number, os.strerror(number))) == said


# A full disk.


def test_on_a_full_disk_a_run_says_how_to_go_on_and_goes_on_as_if_nothing_was(
    config, tmp_path, monkeypatch
):
    whole = floral.run(config(rounds=6), out=tmp_path, name="whole")
    save = loop._Loop._save

    def full(self):
        if self.taken == 4:
            with (self.folder / "metrics.jsonl").open("a") as torn:
                torn.write('{"round": 3, "tr')
            with loop.record.touching(self.folder / "metrics.jsonl", "write"):
                raise OSError(errno.ENOSPC, "No space left on device")
        save(self)

    monkeypatch.setattr(loop._Loop, "_save", full)
    said = r"the disk is full; .* free some space, then floral resume .*full"
    with pytest.raises(ConfigError, match=said):
        floral.run(config(rounds=6), out=tmp_path, name="full")
    monkeypatch.setattr(loop._Loop, "_save", save)
    floral.resume(tmp_path / "full")
    for name in ("metrics.jsonl", "clients/round_000006.parquet"):
        assert (tmp_path / "full" / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_checkpoint_on_a_full_disk_is_refused_in_words(config, tmp_path, monkeypatch):
    """As the library that writes arrays reports it."""
    import orbax.checkpoint

    def full(self, *arguments, **settings):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing file 15: No space left on device [")

    monkeypatch.setattr(orbax.checkpoint.CheckpointManager, "save", full)
    with pytest.raises(ConfigError, match=r"cannot write .*checkpoints': the disk is full; all"):
        floral.run(config(), out=tmp_path)


def test_what_the_devices_have_no_memory_for_is_one_sentence_and_leaves_no_folder(
    config, tmp_path, monkeypatch
):
    def full(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: Out of memory allocating 576062491616 bytes.")

    monkeypatch.setattr(loop._Loop, "run", full)
    said = (
        r"too little memory \(Out of memory allocating 576062491616 bytes.\); train fewer clients"
    )
    with pytest.raises(ConfigError, match=said):
        floral.run(config(), out=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_more_steps_than_can_be_counted_are_refused(config, tmp_path):
    many = config(local={"kind": "sgd", "learning_rate": 0.1, "batch_size": 3, "epochs": 2**31 - 1})
    with pytest.raises(FloralError, match=r"epochs=2147483647: .* would take 4294967294 steps"):
        floral.run(many, out=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_no_part_of_it(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match="the disk is full"):
        write_atomically(tmp_path / "file", "text")
    assert list(tmp_path.iterdir()) == []


# Devices, pipes, variables.


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"JAX_PLATFORMS": "cuda"},
            "JAX_PLATFORMS=cuda: no such device here; set JAX_PLATFORMS",
        ),
        ({"JAX_NUM_CPU_DEVICES": "two"}, "the environment: Invalid value"),
    ],
    ids=["no GPU", "no number"],
)
def test_devices_that_are_not_there_are_refused(environment, expected, config, tmp_path):
    (tmp_path / "c.yaml").write_text(dump(config()))
    ended = python("-m", "floral", "check", str(tmp_path / "c.yaml"), **environment)
    assert ended.returncode == 1
    assert one_sentence(ended.stderr)
    assert expected in ended.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("schema", "algorithm")], ids=" ".join)
def test_where_nobody_reads_on_nothing_is_said(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "floral", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert ended.returncode in (0, 141)  # argparse itself ignores what it cannot print
    assert ended.stderr == b""


def test_a_damaged_record_is_named(whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole.folder, folder)
    (folder / "environment.json").write_text(json.dumps({})[:1])
    with pytest.raises(FloralError, match=r"environment.json: damaged at line 1"):
        floral.load_run(folder)
