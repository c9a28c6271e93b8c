"""CIFAR by way of two libraries, on made images in the format in which each of them has it."""

import io

import numpy as np
import pytest

from floral import data
from floral.errors import DataError

datasets = pytest.importorskip("datasets")
library = pytest.importorskip("tensorflow_datasets")
SIZES = {"train": 10, "test": 4}
PIXELS = {
    split: np.random.default_rng(seed).integers(0, 256, (size, 32, 32, 3), np.uint8)
    for seed, (split, size) in enumerate(SIZES.items())
}
FINE = {split: [7 * i % 100 for i in range(size)] for split, size in SIZES.items()}
COARSE = {split: [i % 10 for i in range(size)] for split, size in SIZES.items()}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Folders of ``save_to_disk`` by the number of classes, with the hub's own columns."""

    def saved(name, **labels):
        features = datasets.Features(
            img=datasets.Image(),
            **{column: datasets.ClassLabel(num_classes=n) for column, (n, _) in labels.items()},
        )
        splits = {
            split: datasets.Dataset.from_dict(
                {"img": list(PIXELS[split])} | {c: y[split] for c, (_, y) in labels.items()},
                features=features,
            )
            for split in SIZES
        }
        folder = str(tmp_path_factory.mktemp(name))
        datasets.DatasetDict(splits).save_to_disk(folder)
        return folder

    return {
        10: saved("cifar10", label=(10, COARSE)),
        100: saved("cifar100", fine_label=(100, FINE), coarse_label=(20, COARSE)),
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A ``data_dir`` with both data sets as array_record."""
    folder = str(tmp_path_factory.mktemp("tfds"))

    def png(pixels):
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        file.seek(0)
        return file

    class Base(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version("3.0.2")
        labels = {"label": (10, COARSE)}  # noqa: RUF012  (the library's classes have fields)

        def _info(self):
            labels = {
                name: library.features.ClassLabel(num_classes=n)
                for name, (n, _) in self.labels.items()
            }
            return library.core.DatasetInfo(
                builder=self,
                features=library.features.FeaturesDict(
                    {
                        "id": library.features.Text(),
                        "image": library.features.Image(shape=(32, 32, 3)),
                        **labels,
                    }
                ),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in SIZES}

        def _generate_examples(self, split):
            for i, pixels in enumerate(PIXELS[split]):
                labels = {name: y[split][i] for name, (_, y) in self.labels.items()}
                yield i, {"id": f"{split}_{i}", "image": png(pixels), **labels}

    for name, labels in {
        "Cifar10": {"label": (10, COARSE)},
        "Cifar100": {"label": (100, FINE), "coarse_label": (20, COARSE)},
    }.items():
        # A module that is no package has no files for the library to look for.
        module = {"labels": labels, "__module__": "made_here"}
        made = type(name, (Base,), module, skip_registration=True)
        made(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("via", ["huggingface", "tfds"])
def test_both_libraries_give_the_same_images_and_fine_labels(hub, prepared, classes, via):
    folder = hub[classes] if via == "huggingface" else prepared
    source = data.cifar(classes=classes, via=via, folder=folder)
    labels = FINE if classes == 100 else COARSE
    pixels = np.concatenate([PIXELS["train"], PIXELS["test"]])
    np.testing.assert_array_equal(source.examples["x"], pixels / np.float32(255))
    assert source.examples["x"].dtype == np.float32
    assert source.examples["y"].tolist() == labels["train"] + labels["test"]
    assert source.fields["split"].tolist() == ["train"] * 10 + ["test"] * 4
    assert source.num_classes == classes
    assert source.name == f"cifar{classes}"


def test_other_data_and_none_are_refused(hub, tmp_path):
    with pytest.raises(DataError, match="column 'fine_label' is missing"):
        data.cifar(classes=100, folder=hub[10])
    with pytest.raises(DataError, match="no data set at '/no/such/folder'"):
        data.cifar(folder="/no/such/folder")
    with pytest.raises(DataError, match=r"'cifar10' is not prepared in .*; set download=true"):
        data.cifar(via="tfds", folder=str(tmp_path))
    grey = datasets.Features(img=datasets.Image(), label=datasets.ClassLabel(num_classes=10))
    small = {"img": [pixels[:28, :28, 0] for pixels in PIXELS["test"]], "label": COARSE["test"]}
    table = datasets.Dataset.from_dict(small, features=grey)
    datasets.DatasetDict(train=table, test=table).save_to_disk(str(tmp_path / "grey"))
    said = r"shape \[32, 32, 3\] and 10 classes, got \[28, 28, 1\] and 10"
    with pytest.raises(DataError, match=said):
        data.cifar(folder=str(tmp_path / "grey"))
