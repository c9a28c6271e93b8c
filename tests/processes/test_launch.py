"""Several processes that take one run together: how they find one another, agree, stop and die.

The slow tests are real: two processes on this machine with two devices each, real signals.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from floral.errors import ConfigError
from floral.processes.launch import child_environment, how_it_ended, launch
from floral.processes.startup import partners
from floral.records import checkpoint

SECONDS = 300  # what shows no sign of life by then never will

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-4]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"}
NAMED = {
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "2",
    "JAX_COORDINATOR_ADDRESS": "there:99",
}
SECOND_OF_FOUR = {
    "num_processes": 4,
    "process_id": 2,
    "coordinator_address": "there:99",
    "cluster_detection_method": "deactivate",
}


# Who belongs together.


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (NAMED, SECOND_OF_FOUR),
        (SLURM | NAMED, SECOND_OF_FOUR),
        (SLURM | {"JAX_NUM_PROCESSES": "1"}, None),
        (SLURM, {"cluster_detection_method": "slurm"}),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),
        (
            OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1"},
            {"cluster_detection_method": "ompi"},
        ),
        (OPEN_MPI | {"JAX_COORDINATOR_ADDRESS": "there:99"}, SECOND_OF_FOUR),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
    ],
    ids=[
        "nothing",
        "named",
        "named under a scheduler",
        "kept alone",
        "slurm",
        "one slurm task",
        "a slurm batch script",
        "open mpi",
        "newer open mpi",
        "one mpi process",
        "a pod",
        "one TPU host",
        "a TPU pod",
    ],
)
def test_processes_that_were_started_together_are_found(environment, expected):
    assert partners(environment) == expected


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        (OPEN_MPI, "JAX_COORDINATOR_ADDRESS"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_PROCESS_ID"),
        (NAMED | {"JAX_PROCESS_ID": "two"}, "'two'"),
        (NAMED | {"JAX_NUM_PROCESSES": "many"}, "'many'"),
    ],
)
def test_processes_that_cannot_find_one_another_are_refused(environment, missing):
    with pytest.raises(ConfigError, match=f"missing or no number: .*{missing}"):
        partners(environment)


def test_each_process_has_its_share_of_the_cores_and_no_threads_within_a_device():
    settings = child_environment({}, rank=1, processes=2, cores=4, address="127.0.0.1:9")
    assert settings["JAX_NUM_CPU_DEVICES"] == "2"
    assert (settings["JAX_PROCESS_ID"], settings["JAX_NUM_PROCESSES"]) == ("1", "2")
    for cores in (1, 2):
        settings = child_environment({}, rank=0, processes=2, cores=cores, address="127.0.0.1:9")
        assert settings["JAX_NUM_CPU_DEVICES"] == "1"
        assert settings["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"


def test_what_a_user_sets_is_every_processs():
    given = {"JAX_NUM_CPU_DEVICES": "3", "JAX_PLATFORMS": "cuda", "XLA_FLAGS": "--x"}
    settings = child_environment(given, rank=0, processes=2, cores=8, address="127.0.0.1:9")
    assert settings["JAX_NUM_CPU_DEVICES"] == "3"
    assert settings["JAX_PLATFORMS"] == "cuda"
    assert settings["XLA_FLAGS"].startswith("--x ")


# The command line.


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--processes", "0", "run", "x.yaml"), 1, "at least 1, got 0"),
        (("--processes", "two", "run", "x.yaml"), 2, "invalid int value: 'two'"),
        (("run", "x.yaml"), 2, "--processes"),
        (("--processes", "2"), 2, "expected run or resume"),
        (("--processes", "2", "check", "x.yaml"), 2, "expected run or resume"),
        (("--processes", "2", "run"), 2, "config"),
        (("--processes", "2", "run", "x.yaml", "--outt", "y"), 2, "--outt"),
    ],
    ids=["none", "no number", "not said", "nothing", "another command", "no config", "unknown"],
)
def test_a_wrong_launch_starts_nothing(arguments, status, said, command):
    found, _, err = command("launch", *arguments)
    assert found == status
    assert said in err


def test_more_processes_than_cores_are_allowed_and_said(capfd):
    many = len(os.sched_getaffinity(0)) + 1
    assert launch(["--help"], processes=many) == 0
    printed = capfd.readouterr()
    assert f"{many} processes take turns on {many - 1} cores" in printed.err
    assert printed.out.count("usage: floral") == 1  # rank 0's alone


def test_what_all_processes_refuse_is_said_once(capfd):
    assert launch(["schema", "algoritm"], processes=2) == 1
    printed = capfd.readouterr()
    assert printed.err.count("did you mean 'algorithm'?") == 1
    assert "rank" not in printed.err


def test_ends_are_put_in_words():
    assert how_it_ended(-signal.SIGKILL) == "was killed by SIGKILL"
    assert how_it_ended(-200) == "was killed by signal 200"
    assert how_it_ended(70) == "ended with exit status 70"


# Two processes, for real.

HEEDING_CTRL_C = """
import signal, sys
from floral.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""

CONFIG = """\
rounds: 12
data:
  source: {kind: synthetic_linear, clients: 10, train: 6, validation: 2, test: 2, dimension: 3,
           outputs: 2}
  unseen: 2
model: {kind: linear}
adaptors: [{match: .*/kernel, kind: low_rank, rank: 1}]
algorithm: {kind: floral, num_adaptors: 2}
local: {kind: sgd, learning_rate: 0.05, batch_size: 3}
cohort: {kind: fixed, size: 5}
evaluate: {every: 3, personalize_steps: 2}
"""


class Shell:
    """Starts the command line with its files in one folder, and leaves nothing running."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []
        (folder / "small.yaml").write_text(CONFIG)

    def start(self, *arguments, devices, **settings):
        settings |= {
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_NUM_CPU_DEVICES": str(devices),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", HEEDING_CTRL_C, *map(str, arguments)],
            cwd=self.folder,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments, devices):
        process = self.start(*arguments, devices=devices)
        printed, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        return printed

    def together(self, *arguments):
        """Two processes of two devices each."""
        return self.run("launch", "--processes", 2, *arguments, devices=2)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    shell = Shell(tmp_path_factory.mktemp("launch"))
    yield shell
    for process in shell.started:
        if process.poll() is None:
            process.kill()  # and its children notice


@pytest.fixture(scope="module")
def pair(shell):
    """The run folder of twelve rounds by two processes."""
    printed = shell.together("run", "small.yaml", "--name", "pair")
    assert printed.count("floral: round 12/12") == 1
    assert "Gloo" not in printed
    return shell.folder / "runs" / "pair"


@pytest.fixture(scope="module")
def half(shell):
    """The run folder of the first six rounds by two processes."""
    shell.together("run", "small.yaml", "rounds=6", "--name", "half")
    return shell.folder / "runs" / "half"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def numbers(value, at=""):
    """Every number of a nested mapping or list, by its place."""
    if isinstance(value, dict):
        return {k: n for key, v in value.items() for k, n in numbers(v, f"{at}.{key}").items()}
    if isinstance(value, list):
        return {k: n for i, v in enumerate(value) for k, n in numbers(v, f"{at}.{i}").items()}
    return {at: value}


def tables(folder):
    import pyarrow.parquet

    return {
        path.name: pyarrow.parquet.read_table(path).to_pydict()
        for path in sorted((folder / "clients").iterdir())
    }


def assert_near(one, other, tolerance=1e-5):
    """Two runs have the same numbers up to the reassociation of float32 sums."""
    for read in (lines, tables):
        left, right = numbers(read(one)), numbers(read(other))
        assert left.keys() == right.keys()
        np.testing.assert_allclose(
            [*left.values()], [*right.values()], rtol=tolerance, atol=tolerance
        )


def assert_same(one, other):
    """Two runs have the same numbers bit for bit."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert repr(tables(one)) == repr(tables(other))


@pytest.mark.slow
def test_two_processes_train_evaluate_and_save_as_one_does(shell, pair):
    shell.run("run", "small.yaml", "--name", "alone", devices=4)
    alone = shell.folder / "runs" / "alone"
    assert_near(pair, alone)
    assert {path.name for path in pair.iterdir()} == {path.name for path in alone.iterdir()}
    environment = json.loads((pair / "environment.json").read_text())
    assert (environment["processes"], environment["devices"]) == (2, 4)
    assert checkpoint.latest_round(pair / "checkpoints") == 12


@pytest.mark.slow
def test_two_processes_agree_on_a_timed_walk(shell):
    """Otherwise each would wait for rounds that the other does not take."""
    said = []
    for name in ("timed", "recalled"):
        arguments = ("run", "small.yaml", "--name", name, "rounds=3", "execution.walk=timed")
        process = shell.start(
            *("launch", "--processes", 2, *arguments),
            devices=2,
            XDG_CACHE_HOME=str(shell.folder / "caches"),
        )
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        said.append(errors.count("walk: timing a few rounds"))
    assert said == [1, 0]
    remembered = json.loads((shell.folder / "caches" / "floral" / "walks.json").read_text())
    (seconds,) = remembered.values()
    assert list(seconds) == ["1", "2"]
    for name in ("timed", "recalled"):
        environment = json.loads((shell.folder / "runs" / name / "environment.json").read_text())
        assert environment["chunk_seconds"] == seconds
        assert str(environment["chunk"]) == min(seconds, key=seconds.get)


@pytest.mark.slow
def test_resumed_as_it_was_begun_a_run_is_the_uninterrupted_one(shell, pair, half):
    again = Path(shutil.copytree(half, half.with_name("again")))
    shell.together("resume", again, "rounds=12")
    assert_same(again, pair)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [4, 1])
def test_one_process_goes_on_with_the_run_of_two(shell, pair, half, devices):
    again = Path(shutil.copytree(half, half.with_name(f"on_{devices}")))
    shell.run("resume", again, "rounds=12", devices=devices)
    assert_near(again, pair)


@pytest.mark.slow
def test_two_processes_go_on_with_the_run_of_one(shell, pair):
    shell.run("run", "small.yaml", "rounds=6", "--name", "one", devices=1)
    shell.together("resume", "runs/one", "rounds=12")
    assert_near(shell.folder / "runs" / "one", pair)


@pytest.mark.slow
def test_what_process_0_is_refused_all_are(shell):
    (shell.folder / "taken").write_text("a file, and no folder")
    process = shell.start(
        *("launch", "--processes", 2, "run", "small.yaml", "--out", "taken"), devices=1
    )
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert errors.count("floral: out: cannot make the folder") == 1
    assert "rank" not in errors


OWN_SOURCE = '''
import os
from floral.data import synthetic_linear


def source(*, clients: int):
    """Linear tasks of each process's own."""
    return synthetic_linear(clients=clients, seed=int(os.environ["JAX_PROCESS_ID"]))
'''


@pytest.mark.slow
def test_processes_with_different_data_are_refused(shell):
    (shell.folder / "own_source.py").write_text(OWN_SOURCE)
    (shell.folder / "differing.yaml").write_text(
        CONFIG.replace(
            "kind: synthetic_linear, clients: 10, train: 6, validation: 2, test: 2, "
            "dimension: 3,\n           outputs: 2",
            "kind: 'own_source:source', clients: 10",
        )
    )
    process = shell.start("launch", "--processes", 2, "run", "differing.yaml", devices=1)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "a run needs the same data on every machine" in errors
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_processes_that_slurm_has_started_join(shell, pair):
    task = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    processes = [
        shell.start(
            *("run", "small.yaml", "--name", "slurm"),
            devices=2,
            **task,
            SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank),
        )
        for rank in range(2)
    ]
    (printed, errors), (silence, others) = (p.communicate(timeout=SECONDS) for p in processes)
    assert [process.returncode for process in processes] == [0, 0], errors + others
    assert "floral: round 12/12" in printed
    assert silence == ""
    assert_same(shell.folder / "runs" / "slurm", pair)


READS = """
import os, sys
import jax, numpy as np
from floral.processes.startup import join_processes, partners
join_processes(partners(os.environ), launched=False)
from floral import data
from floral.data.storage.lazy import LazyArray
from floral.simulate.feed import Feed
from floral.simulate.shard import make_mesh

class Noted(LazyArray):
    digest = ""
    def rows(self, first, last):
        read.append(first // 3)
        return np.full((last - first, *self.shape[1:]), first // 3, self.dtype)

read = []
clients = [{"train": {"x": np.zeros((3, 2)), "y": np.zeros((3, 1))}} for _ in range(8)]
dataset = data.from_clients(clients)
train = dataset.splits["train"]
noted = {name: Noted(array.shape, array.dtype) for name, array in train.examples.items()}
dataset = dataset._replace(splits={"train": train._replace(examples=noted)})
held = Feed(dataset, make_mesh(jax.devices()))("train", np.arange(8, dtype=np.int32))
here = {int(piece.data[0, 0]) for piece in held.examples["x"].addressable_shards}
print(sorted(set(read)), sorted(here))
"""


@pytest.mark.slow
def test_a_process_reads_only_the_clients_of_its_own_devices():
    address = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", READS],
            env=os.environ
            | {
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(rank),
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_CPU_DEVICES": "2",
                "JAX_PLATFORMS": "cpu",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=SECONDS)[0] for process in processes]
    assert printed == ["[0, 1, 2, 3] [0, 2]\n", "[4, 5, 6, 7] [4, 6]\n"]


def read_until(process, words):
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(process.communicate())


def children_of(process):
    """The ids of a launcher's processes, in the order of their ranks."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return sorted(int(pid) for t in threads for pid in (t / "children").read_text().split())


def is_running(pid):
    """Whether there is such a process, and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


LONG = ("rounds=300", "evaluate.every=20", "checkpoint.every=20")


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_and_the_run_goes_on(shell):
    """First rank 1 is, then rank 1 while rank 0 answers nothing, not even SIGTERM."""
    shell.together("run", "small.yaml", *LONG, "--name", "whole")
    whole = shell.folder / "runs" / "whole"
    cut, again = whole.with_name("cut"), whole.with_name("cut-again")
    arguments = ("run", "small.yaml", *LONG, "--name", "cut")
    for moment, stuck in (("round 60/300", False), ("round 160/300", True)):
        process = shell.start("launch", "--processes", 2, *arguments, devices=2)
        read_until(process, moment)
        first, second = children_of(process)
        if stuck:
            os.kill(first, signal.SIGSTOP)
        os.kill(second, signal.SIGKILL)
        killed = time.monotonic()
        _, errors = process.communicate(timeout=SECONDS)
        seconds = time.monotonic() - killed
        print(f"{seconds:.2f} s from kill to exit")
        assert seconds < 5
        assert process.returncode == 1
        assert f"floral: rank 1 of 2 (process {second}) was killed by SIGKILL" in errors
        assert "go on with: floral launch --processes 2 resume runs/cut\n" in errors
        assert "Traceback" not in errors
        assert not is_running(first)
        assert not (cut / "summary.json").exists()
        arguments = ("resume", "runs/cut")
    shutil.copytree(cut, again)
    shell.together("resume", "runs/cut")
    assert_same(cut, whole)
    shell.run("resume", again, devices=4)
    assert_near(again, whole)


def endless(shell, name):
    """A launched run that will not end: the launcher past round nine, the ids of its processes and
    the run folder, where nothing is saved yet."""
    process = shell.start(
        *("launch", "--processes", 2, "run", "small.yaml", "rounds=1000000"),
        *("checkpoint.every=1000000", "--name", name),
        devices=2,
    )
    read_until(process, "round 9/")
    return process, children_of(process), shell.folder / "runs" / name


@pytest.mark.slow
def test_ctrl_c_on_the_launcher_saves_and_stops_all(shell):
    process, children, folder = endless(shell, "endless")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "go on with: floral launch --processes 2 resume runs/endless\n" in errors
    assert "Traceback" not in errors
    assert not any(map(is_running, children))
    assert checkpoint.latest_round(folder / "checkpoints") == len(lines(folder)) >= 9


@pytest.mark.slow
def test_a_launcher_that_is_killed_leaves_a_saved_run_and_no_process(shell):
    process, children, folder = endless(shell, "orphan")
    process.kill()
    deadline = time.monotonic() + 60
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, children))
    assert (checkpoint.latest_round(folder / "checkpoints") or 0) >= 9
