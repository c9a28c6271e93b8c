"""Every config of the project is whole: it can be built, on images of the right format."""

import functools
import gzip
from pathlib import Path

import numpy as np
import pytest

import floral
from floral.config import areas as places
from floral.config.build import build_dataset
from floral.config.reading.resolve import methods, read
from floral.config.reading.yaml_file import read_value
from floral.config.schema.arguments import Schema
from floral.runs.prepare import build_all

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


@pytest.fixture(scope="module", autouse=True)
def read_once():
    """MNIST's 70,000 images are read once, not anew for every config of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floral.data, "mnist", functools.cache(floral.data.mnist))
        patch.setattr("floral.config.build.SCHEMA", Schema(places._BY_TYPE))
        yield


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
def here(striped_mnist, noisy_cifar):
    """``(name, *overrides) -> config``, its data the made ones."""

    def read_one(name, *overrides):
        path = CONFIGS[name]
        source = read(path)["data"]["source"]
        folders = {"mnist": striped_mnist, "cifar": noisy_cifar.get(source.get("classes"))}
        folder = folders.get(source["kind"])
        where = [] if folder is None else [f"data.source.folder={folder}"]
        return read(path, [*where, *overrides])

    return read_one


def parts(method):
    """What a method is made of, but for its rates and sizes."""
    numbers = ("_rate", "_models", "_adaptors", "_optimizer")
    algorithm = {k: v for k, v in method["algorithm"].items() if not k.endswith(numbers)}
    return method["adaptors"], method["mixing"], algorithm


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds(name, here):
    """Its own method, and those of the others that the config it extends has not."""
    config = here(name)
    parent = read_value(CONFIGS[name].read_text(), where=name).get("extends")
    known = []
    if parent is not None:
        beside = (CONFIGS[name].parent / parent).resolve().relative_to(FOLDER.resolve())
        known = [parts(method) for method in methods(here(str(beside))).values()]
    compare = {
        method: changes
        for method, changes in (config.get("compare") or {}).items()
        if parts(methods(config)[method]) not in known
    }
    assert build_all({**config, "compare": compare})


SMALL_RUNS = {
    "floral/cifar10_rotate_5.yaml": [
        "model={kind: cnn, channels: [2], kernels: [5], pools: [8], hidden: [4]}",
        "mixing={kind: softmax}",
    ],
    "floral/cifar100_batch_norm.yaml": [
        "model={kind: vgg, channels: [2], hidden: [4], norm: batch}",
        "algorithm={kind: partial, private: [batch_stats]}",
    ],
}


@pytest.mark.parametrize("name", SMALL_RUNS)
def test_a_config_of_cifar_trains(name, here, tmp_path):
    """Twenty clients or a hundred, of equal groups; a smaller network and two rounds."""
    few = ["rounds=2", "compare=null", "evaluate={every: 2, batch_size: 16, diagnose_clients: 0}"]
    config = here(name, *few, "local.batch_size=8", *SMALL_RUNS[name])
    experiment, state = floral.load_run(floral.run(config, out=tmp_path).folder)
    dataset = experiment.dataset
    clients, clusters = (20, 4) if "cifar10_" in name else (100, 10)
    assert np.bincount(dataset.traits["cluster"]).tolist() == [clients // clusters] * clusters
    assert set(dataset.splits["test"].sizes) == {1200 // clients // 6}
    assert int(state.round) == 2


def test_groups_of_cifar_100_have_ten_labels_each(here):
    dataset = build_dataset(methods(here("floral/cifar100_5.yaml"))["floral"])
    for cluster in range(10):
        members = np.flatnonzero(dataset.traits["cluster"] == cluster)
        labels = [dataset.client(k)[split]["y"] for k in members for split in ("train", "test")]
        assert set(np.concatenate(labels) % 10) == {cluster}


def test_a_config_of_mnist_runs(here, tmp_path):
    """The paper's population: 300 clients of four groups, 10 training images each in its 5 %."""
    few = ["rounds=2", "compare=null", "evaluate={every: 2, clients: 20, diagnose_clients: 0}"]
    result = floral.run(here("floral/mnist_label_shift_5.yaml", *few), out=tmp_path)
    experiment, state = floral.load_run(result.folder)
    sizes = {name: split.sizes for name, split in experiment.dataset.splits.items()}
    assert experiment.dataset.num_clients == 300
    assert set(sizes["train"]) <= {10, 11}
    assert set(sizes["test"]) <= {33, 34}
    assert np.bincount(experiment.dataset.traits["cluster"]).tolist() == [75] * 4
    assert int(state.round) == 2
