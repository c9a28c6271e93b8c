"""A longer tiny run, and what it leaves when no one interrupts it."""

import numpy as np
import pytest

import floral

DIAGNOSING = {"every": 2, "personalize_steps": 2}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """The path of 60 tiny images of three classes."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    labels = np.arange(60) % 3
    noise = np.random.default_rng(0).standard_normal((60, 8, 8, 1))
    np.savez(path, x=(noise + labels[:, None, None, None]).astype(np.float32), y=labels)
    return str(path)


@pytest.fixture(scope="session")
def config(config):
    """``(**changes of top-level keys) -> config`` of six clients of two clusters, of which two
    never train; ten rounds of three clients."""
    data = {"source": config()["data"]["source"] | {"clients": 6}, "unseen": 2}
    longer = {"rounds": 10, "data": data, "cohort": {"kind": "fixed", "size": 3}}
    return lambda **changes: config(**{**longer, **changes})


@pytest.fixture(scope="session")
def whole(config, tmp_path_factory):
    """The result of ten rounds without an interruption."""
    return floral.run(config(), out=tmp_path_factory.mktemp("whole"), name="run")


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
