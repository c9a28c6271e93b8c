"""Every config of the project is whole: it can be built, on images of the right format."""

import gzip
from pathlib import Path

import numpy as np
import pytest

import floral
from floral.experiment.config import read
from floral.experiment.prepare import build_all

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = {str(path.relative_to(FOLDER)): path for path in sorted(FOLDER.rglob("*.yaml"))}


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


@pytest.fixture(scope="module")
def noisy_cifar(tmp_path_factory):
    """By the number of classes the folder of a few images, saved as the hub has them."""
    datasets = pytest.importorskip("datasets")
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 32, 32, 3), np.uint8)

    def saved(classes, label):
        features = datasets.Features(
            {"img": datasets.Image(), label: datasets.ClassLabel(num_classes=classes)}
        )
        labels = np.arange(1200) % classes
        splits = {
            name: datasets.Dataset.from_dict(
                {"img": list(pixels[rows]), label: labels[rows]}, features=features
            )
            for name, rows in {"train": slice(0, 1000), "test": slice(1000, None)}.items()
        }
        folder = tmp_path_factory.mktemp(f"cifar{classes}")
        datasets.DatasetDict(splits).save_to_disk(str(folder))
        return folder

    return {10: saved(10, "label"), 100: saved(100, "fine_label")}


@pytest.fixture(scope="module")
def read_here(striped_mnist, noisy_cifar):
    """``(name, *overrides) -> config``, its data the made ones."""

    def read_one(name, *overrides):
        path = CONFIGS[name]
        source = read(path)["data"]["source"]
        folders = {"mnist": striped_mnist, "cifar": noisy_cifar.get(source.get("classes"))}
        folder = folders.get(source["kind"])
        where = [] if folder is None else [f"data.source.folder={folder}"]
        return read(path, [*where, *overrides])

    return read_one


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds(name, read_here):
    assert build_all(read_here(name))


def test_a_config_of_mnist_runs(read_here, tmp_path):
    """The paper's population: 300 clients of four groups, 10 training images each in its 5 %."""
    few = ["rounds=2", "compare=null", "evaluate.every=2"]
    result = floral.run(read_here("floral/mnist_label_shift_5.yaml", *few), out=tmp_path)
    experiment, state = floral.load_run(result.folder)
    sizes = {name: split.sizes for name, split in experiment.dataset.splits.items()}
    assert experiment.dataset.num_clients == 300
    assert set(sizes["train"]) <= {10, 11}
    assert set(sizes["test"]) <= {33, 34}
    assert np.bincount(experiment.dataset.traits["cluster"]).tolist() == [75] * 4
    assert int(state.round) == 2
