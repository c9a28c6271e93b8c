"""A config that trains in a second, and progress that is watched."""

import copy

import pytest

import floral
from floral.experiment.progress import Silent

BASE = {
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
    """Notes which methods began at which round, and what was said; ``then(round)`` runs at each."""

    def __init__(self, then=None):
        self.begun, self.said, self.then = {}, [], then

    def note(self, line):
        self.said.append(line)

    def start(self, name, experiment, begun):
        self.begun[name] = begun

    def tick(self, taken, line):
        if self.then is not None:
            self.then(taken)


@pytest.fixture(scope="session")
def watcher():
    """``(then=None) -> progress``"""
    return Watcher


@pytest.fixture(scope="session")
def config():
    """``(**changes of top-level keys) -> config``"""
    return lambda **changes: copy.deepcopy({**BASE, **changes})


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The result of a finished run."""
    return floral.run(copy.deepcopy(BASE), out=tmp_path_factory.mktemp("whole"), name="run")
