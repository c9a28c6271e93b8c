"""A config that runs in a second, and what it leaves when no one interrupts it."""

import copy

import numpy as np
import pytest

import floral
from floral.experiment.progress import Silent

BASE = {
    "rounds": 10,
    "data": {
        "source": {
            "kind": "synthetic_linear",
            "clients": 6,
            "train": 6,
            "validation": 2,
            "test": 2,
            "dimension": 3,
            "outputs": 2,
        },
        "unseen": 2,
    },
    "model": {"kind": "linear"},
    "adaptors": [{"match": ".*/kernel", "kind": "low_rank", "rank": 1}],
    "algorithm": {"kind": "floral", "num_adaptors": 2},
    "local": {"kind": "sgd", "learning_rate": 0.1, "batch_size": 3},
    "cohort": {"kind": "fixed", "size": 3},
    "evaluate": {"every": 2, "personalize_steps": 2, "diagnose_clients": 0},
}
DIAGNOSING = {"every": 2, "personalize_steps": 2}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """The path of 60 tiny images of three classes."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    labels = np.arange(60) % 3
    noise = np.random.default_rng(0).standard_normal((60, 8, 8, 1))
    np.savez(path, x=(noise + labels[:, None, None, None]).astype(np.float32), y=labels)
    return str(path)


class Watcher(Silent):
    """Notes which methods were trained, and from which round on; may press Ctrl-C."""

    def __init__(self, *, stop_at=None, method=None):
        self.begun = {}
        self.stop_at, self.method = stop_at, method

    def start(self, name, experiment, begun):
        self.begun[name] = begun

    def tick(self, taken, line):
        if taken == self.stop_at and self.method in (None, [*self.begun][-1]):
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def watcher():
    """``(stop_at=None, method=None) -> progress`` with ``begun``, the rounds that methods began at;
    it interrupts one method, or any, at the tick of a round."""
    return Watcher


@pytest.fixture(scope="session")
def config():
    """``(**changes of top-level keys) -> config`` of six clients of two clusters, ten rounds."""
    return lambda **changes: copy.deepcopy({**BASE, **changes})


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The result of ten rounds without an interruption."""
    return floral.run(copy.deepcopy(BASE), out=tmp_path_factory.mktemp("whole"), name="run")


@pytest.fixture(scope="session")
def diagnosing(config):
    """``(**changes) -> config`` whose evaluations also look at losses and gradients."""
    return lambda **changes: config(**{"evaluate": dict(DIAGNOSING), **changes})


@pytest.fixture(scope="session")
def diagnosed(diagnosing, tmp_path_factory):
    """The result of ten such rounds."""
    return floral.run(diagnosing(), out=tmp_path_factory.mktemp("diagnosed"), name="run")


@pytest.fixture(scope="session")
def kept():
    """``(folder) -> contents`` of all that must be the same however often a run was interrupted."""
    import pyarrow.parquet

    def columns(path):
        table = pyarrow.parquet.read_table(path)
        return {name: table[name].to_numpy().tobytes() for name in table.column_names}

    def read(folder):
        tables = sorted((folder / "clients").glob("*.parquet"))
        metrics = (folder / "metrics.jsonl").read_bytes()
        return {"metrics": metrics, **{path.name: columns(path) for path in tables}}

    return read
