"""Several processes of one run on this machine: started, watched and ended together.

Every process takes part in every round, so one that dies leaves the others waiting. The launcher
names it, ends them, and says how to go on; what was saved is whole.
"""

import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from floral.errors import ConfigError, FloralError
from floral.files import sentence
from floral.processes.startup import prepare_jax, usable_cores

__all__ = ["LAUNCH", "child_environment", "how_it_ended", "launch", "leave", "tell_launcher"]

LAUNCH = "FLORAL_LAUNCH"
"""The variable that names the launcher's own folder to its children."""

STOPPED, REFUSED, CRASHED = 130, 1, 70
"""How a child ends: saved and stopped as it was asked to, with a message, with a traceback."""

_SAVING_SECONDS = 60  # from the first child that stopped as it was asked to, to the last
_SHARED_FATE_SECONDS = 0.5  # in which the others notice by themselves
_TERM_SECONDS = 2.0  # between SIGTERM and SIGKILL


def launch(arguments: Sequence[str], *, processes: int) -> int:
    """Runs a command as several processes that take one run together.

    Process 0 speaks for all: its output is this one's. What the others say is kept in a folder,
    which is named and left behind if the run fails. Ctrl-C and SIGTERM are passed on: the run is
    saved and stops; a second one ends it at once.

    Args:
      arguments: of the command line, as ``["run", "config.yaml"]``.
      processes: how many; each has its share of the cores, at least one.

    Returns:
      The exit status: 0 done, 1 if a process failed, 130 stopped.

    Raises:
      ConfigError: if there are no processes.
    """
    if processes < 1:
        raise ConfigError(f"processes: expected a whole number of at least 1, got {processes}")
    cores = usable_cores()
    if processes > cores:
        print(f"floral: {processes} processes take turns on {cores} cores", file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="floral-launch-"))
    children = _Children(arguments, processes, cores, folder)
    try:
        status = children.watch()
    finally:
        children.end()
    if status in (0, STOPPED):
        shutil.rmtree(folder, ignore_errors=True)
    return status


def child_environment(
    environment: Mapping[str, str], *, rank: int, processes: int, cores: int, address: str
) -> dict[str, str]:
    """The environment of one process: who it is, where process 0 is, its share of the cores.

    They run on the CPU unless ``JAX_PLATFORMS`` says otherwise: one process alone uses all
    accelerators of a machine.
    """
    own = dict(environment)
    own |= {
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_PROCESS_ID": str(rank),
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_COORDINATOR_BIND_ADDRESS": address,
    }
    own.setdefault("JAX_PLATFORMS", "cpu")
    prepare_jax(own, cores=max(1, cores // processes), alone=processes == 1)
    return own


def how_it_ended(status: int) -> str:
    """An exit status, as ``subprocess`` gives it, in words.

    Example:
      >>> how_it_ended(-9)
      'was killed by SIGKILL'
    """
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def tell_launcher(folder: Path) -> None:
    """Lets the launcher know the run folder, if there is a launcher; process 0 does."""
    if LAUNCH in os.environ:
        Path(os.environ[LAUNCH], "run").write_text(str(folder), encoding="utf-8")


def leave(error: Exception) -> NoReturn:
    """Ends a process, one of several, that cannot go on; the others wait for it in vain, so it does
    not wait for them.

    What is wrong with the run is one line on the standard error. Anything else is a traceback, in
    the launcher's folder if there is one: it may well be no more than the loss of another process.
    """
    sys.stdout.flush()
    rank = os.environ.get("JAX_PROCESS_ID", os.environ.get("SLURM_PROCID"))
    if isinstance(error, FloralError | OSError):
        said = error if isinstance(error, FloralError) else sentence(error)
        print(f"floral: {said}", file=sys.stderr, flush=True)
        if rank == "0":
            time.sleep(_SHARED_FATE_SECONDS / 2)  # without process 0 the others cannot say as much
        os._exit(REFUSED)
    place = os.environ.get(LAUNCH)
    if place is None:
        traceback.print_exception(error)
    else:
        with Path(place, f"rank_{rank}.log").open("a", encoding="utf-8") as log:
            traceback.print_exception(error, file=log)
    os._exit(CRASHED)


class _Children:
    """The processes, in the order of their ranks."""

    def __init__(self, arguments: Sequence[str], processes: int, cores: int, folder: Path):
        self._folder = folder
        self._again = f"floral launch --processes {processes} "
        self._ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._wishes = 0
        self._running: list[subprocess.Popen[bytes]] = []
        address = f"127.0.0.1:{_free_port()}"
        for rank in range(processes):
            environment = child_environment(
                {**os.environ, LAUNCH: str(folder)},
                rank=rank,
                processes=processes,
                cores=cores,
                address=address,
            )
            self._start(arguments, rank, environment)

    def _start(self, arguments: Sequence[str], rank: int, environment: dict[str, str]) -> None:
        """In a session of its own, so that Ctrl-C comes from the launcher alone."""
        output: Any = None if rank == 0 else self._log(rank).open("wb")
        child = subprocess.Popen(
            [sys.executable, "-m", "floral", *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=None if rank == 0 else subprocess.STDOUT,
            start_new_session=True,
        )
        if output is not None:
            output.close()
        self._running.append(child)
        waiting = threading.Thread(
            target=lambda: self._ended.put((rank, child.wait())), daemon=True
        )
        waiting.start()

    def _log(self, rank: int) -> Path:
        return self._folder / f"rank_{rank}.log"

    def watch(self) -> int:
        """Waits for all; ends the others once one has failed. Returns the exit status."""
        before = {
            number: signal.signal(number, self._pass_on)
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        statuses: dict[int, int] = {}  # in the order in which they ended
        deadline = float("inf")
        try:
            while len(statuses) < len(self._running):
                try:
                    rank, status = self._ended.get(timeout=0.1)
                except queue.Empty:
                    if time.monotonic() > deadline:
                        self.end()
                        deadline = float("inf")
                    continue
                statuses[rank] = status
                if status and deadline == float("inf"):
                    as_asked = self._wishes == 1 and status in (STOPPED, -signal.SIGTERM)
                    grace = _SAVING_SECONDS if as_asked else _SHARED_FATE_SECONDS
                    deadline = time.monotonic() + grace
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._judge(statuses)

    def end(self) -> None:
        """Ends those that still run: SIGTERM, and soon SIGKILL."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _TERM_SECONDS
        while any(child.returncode is None for child in self._running):
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
                break
            time.sleep(0.02)

    def _pass_on(self, number: int, frame: object) -> None:
        self._wishes += 1
        self._signal(signal.SIGTERM if self._wishes == 1 else signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for child in self._running:
            if child.returncode is None:
                child.send_signal(number)

    def _judge(self, statuses: Mapping[int, int]) -> int:
        """The exit status of the whole, and on the standard error whose fault it is."""
        failed = [rank for rank, status in statuses.items() if status]
        if not failed:
            return 0
        if self._wishes:
            if statuses[0] != STOPPED:  # which has said how to go on
                self._say("stopped")
            return STOPPED
        first = failed[0]
        if statuses[0] == REFUSED == statuses[first]:  # and has said why
            return REFUSED
        log = self._log(first)
        said = f"; what it said: {log}" if log.is_file() and log.stat().st_size else ""
        others = ", the others were ended" if len(statuses) > 1 else ""
        whose = f"rank {first} of {len(statuses)} (process {self._running[first].pid})"
        self._say(f"{whose} {how_it_ended(statuses[first])}{others}{said}")
        return 1

    def _say(self, words: str) -> None:
        print(f"floral: {words}", file=sys.stderr)
        told = self._folder / "run"
        if told.is_file():
            run_folder = told.read_text(encoding="utf-8")
            print(f"go on with: {self._again}resume {run_folder}", file=sys.stderr)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
