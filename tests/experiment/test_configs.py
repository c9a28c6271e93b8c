"""Every config of the project is whole: it can be built, on images of the right format."""

import gzip
from pathlib import Path

import numpy as np
import pytest

import floral
from floral.experiment.config import read
from floral.experiment.prepare import build_all

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def striped_mnist(tmp_path_factory):
    """MNIST's four files, with as many images, all of them stripes."""
    folder = tmp_path_factory.mktemp("mnist")
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        numbers = np.array([count, 28, 28], ">u4").tobytes()
        images = bytes([0, 0, 8, 3]) + numbers + bytes(range(196)) * (4 * count)
        labels = bytes([0, 0, 8, 1]) + numbers[:4] + bytes(i % 10 for i in range(count))
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(content, compresslevel=1))
    return folder


def overrides(path, folder):
    return [f"data.source.folder={folder}"] if path.name.startswith("mnist") else []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_builds(path, striped_mnist):
    assert build_all(read(path, overrides(path, striped_mnist)))


def test_a_config_of_mnist_runs(striped_mnist, tmp_path):
    """The paper's population: 300 clients of four groups, 10 training images each in its 5 %."""
    path = next(
        path for path in CONFIGS if path.parts[-2:] == ("floral", "mnist_label_shift_5.yaml")
    )
    few = ["rounds=2", "compare=null", "evaluate.every=2"]
    result = floral.run(path, *few, *overrides(path, striped_mnist), out=tmp_path)
    experiment, state = floral.load_run(result.folder)
    sizes = {name: split.sizes for name, split in experiment.dataset.splits.items()}
    assert experiment.dataset.num_clients == 300
    assert set(sizes["train"]) <= {10, 11}
    assert set(sizes["test"]) <= {33, 34}
    assert np.bincount(experiment.dataset.traits["cluster"]).tolist() == [75] * 4
    assert int(state.round) == 2
