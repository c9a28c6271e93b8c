"""What tests of whole runs share: a config that trains in a second, progress that is watched, and
the command line in one call. A plugin of pytest, so that tests of every folder see it."""

import copy
import sys

import pytest

import floral
from floral.cli import main
from floral.runs.progress import Silent

TINY = {
    "rounds": 2,
    "data": {
        "source": {
            "kind": "synthetic_linear",
            "clients": 4,
            "train": 6,
            "validation": 2,
            "test": 2,
            "dimension": 3,
            "outputs": 2,
        }
    },
    "model": {"kind": "linear"},
    "adaptors": [{"match": ".*/kernel", "kind": "low_rank", "rank": 1}],
    "algorithm": {"kind": "floral", "num_adaptors": 2},
    "local": {"kind": "sgd", "learning_rate": 0.1, "batch_size": 3},
    "evaluate": {"every": 2, "personalize_steps": 2, "diagnose_clients": 0},
}


class Watcher(Silent):
    """Notes which methods were trained, from which round on, and what was said.

    After every round it calls ``then(round)``; at the round ``stop_at`` of ``method``, or of any,
    it presses Ctrl-C.
    """

    def __init__(self, then=None, *, stop_at=None, method=None):
        self.begun, self.said = {}, []
        self.then, self.stop_at, self.method = then, stop_at, method

    def note(self, line):
        self.said.append(line)

    def start(self, name, experiment, begun):
        self.begun[name] = begun

    def tick(self, taken, line):
        if self.then is not None:
            self.then(taken)
        if taken == self.stop_at and self.method in (None, [*self.begun][-1]):
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def watcher():
    """``(then=None, *, stop_at=None, method=None) -> progress`` with ``begun`` and ``said``."""
    return Watcher


@pytest.fixture(scope="session")
def config():
    """``(**changes of top-level keys) -> config`` of four clients of two clusters, two rounds."""
    return lambda **changes: copy.deepcopy({**TINY, **changes})


@pytest.fixture(scope="session")
def whole(config, tmp_path_factory):
    """The result of a finished run. A folder of tests with a ``config`` of its own also has a
    ``whole`` of its own: this one is made once for all."""
    return floral.run(config(), out=tmp_path_factory.mktemp("whole"), name="run")


@pytest.fixture
def command(capsys, monkeypatch):
    """``(*arguments) -> (exit status, stdout, stderr)`` of the command ``floral``."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments):
        try:
            status = main(list(map(str, arguments)))
        except SystemExit as stop:  # argparse's own way out
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run
