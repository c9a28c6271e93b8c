"""What every test of the data shares."""

import io

import jax
import numpy as np
import pytest

from floral.data import FederatedDataset, federated

jax.config.update("jax_numpy_rank_promotion", "raise")

SIZES = (4, 1, 7, 3, 5)


@pytest.fixture(scope="session")
def ragged() -> FederatedDataset:
    """Five clients of sizes 4, 1, 7, 3 and 5; example i has features (i + 1, -i - 1)."""
    rows = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    x = np.stack([np.arange(1.0, 21.0), -np.arange(1.0, 21.0)], axis=1)
    return federated({"x": x, "y": np.arange(1, 21)}, {"train": rows}, num_classes=21)


@pytest.fixture(scope="session")
def make_table():
    """``(pixels [M, 4, 4], labels, writers) -> datasets.Dataset`` of these images."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["w", "x", "y", "z"]),
        writer=datasets.Value("string"),
    )

    def make(pixels, labels, writers):
        columns = {"image": list(pixels), "label": labels, "writer": writers}
        return datasets.Dataset.from_dict(columns, features=features)

    return make


@pytest.fixture(scope="session")
def prepare_tfds():
    """``(pixels [M, 4, 4], labels, writers, folder)`` prepares them as the data set ``tiny``."""
    library = pytest.importorskip("tensorflow_datasets")

    def png(pixels):
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        file.seek(0)
        return file

    def prepare(pixels, labels, writers, folder):
        class Tiny(library.core.GeneratorBasedBuilder, skip_registration=True):
            # tfds finds a builder's files by its module, and packages through importlib_resources,
            # which it does not install; a module that is no package has no files to find.
            __module__ = "made_here"
            VERSION = library.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": library.features.Image(shape=(4, 4, 1)),
                    "label": library.features.ClassLabel(num_classes=1 + max(labels)),
                    "writer": library.features.Text(),
                }
                return library.core.DatasetInfo(
                    builder=self,
                    features=library.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                    disable_shuffling=True,
                )

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i, row in enumerate(zip(pixels, labels, writers, strict=True)):
                    yield i, {"image": png(row[0]), "label": int(row[1]), "writer": str(row[2])}

        Tiny(data_dir=str(folder), file_format="array_record").download_and_prepare()

    return prepare
