import numpy as np
import pytest

from floral import data
from floral.errors import DataError

datasets = pytest.importorskip("datasets")
library = pytest.importorskip("tensorflow_datasets")
PIXELS = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = [0, 1, 2, 0, 1, 2]
WRITERS = ["b", "a", "b", "a", "b", "c"]


@pytest.fixture(autouse=True, scope="module")
def caches(tmp_path_factory):
    """Whatever the libraries cache goes to a folder of this test."""
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def table(make_table):
    return make_table(PIXELS, LABELS, WRITERS)


@pytest.fixture(scope="module")
def prepared(prepare_tfds, tmp_path_factory):
    """A folder of tfds data sets: ``tiny`` as array_record."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare_tfds(PIXELS, LABELS, WRITERS, folder)
    return str(folder)


def assert_is_the_table(source, num_classes, field="writer"):
    np.testing.assert_allclose(source.examples["x"][..., 0], PIXELS / np.float32(255))
    assert source.examples["x"].shape == (6, 4, 4, 1)
    assert source.examples["y"].tolist() == LABELS
    assert source.fields[field].tolist() == WRITERS
    assert source.num_classes == num_classes


def test_a_data_set_in_memory_is_read(table):
    assert_is_the_table(data.from_dataset(table, client="writer"), 4)


def test_a_saved_data_set_is_read(table, tmp_path):
    table.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=table).save_to_disk(str(tmp_path / "several"))
    for name in ("one", "several"):
        assert_is_the_table(data.huggingface(path=str(tmp_path / name), client="writer"), 4)
    with pytest.raises(DataError, match="split 'test' is missing; there are train"):
        data.huggingface(path=str(tmp_path / "several"), split="test")


def test_a_parquet_file_and_its_folder_are_read(table, tmp_path):
    table.to_parquet(str(tmp_path / "train.parquet"))
    for path in (tmp_path, tmp_path / "train.parquet"):
        assert_is_the_table(data.huggingface(path=str(path), client="writer"), 4)


def test_a_folder_of_images_by_class_is_read(tmp_path):
    from PIL import Image

    for i, pixels in enumerate(PIXELS):
        folder = tmp_path / "train" / "xyz"[LABELS[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    source = data.huggingface(path=str(tmp_path))
    assert source.examples["y"].tolist() == sorted(LABELS)
    assert source.num_classes == 3
    np.testing.assert_allclose(source.examples["x"][1, ..., 0], PIXELS[3] / np.float32(255))


def test_a_csv_file_is_read(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("height,kind\n1.5,cat\n0.5,dog\n1.0,cat\n")
    source = data.huggingface(path=str(path), x="height", y="kind")
    assert source.examples["x"].tolist() == [1.5, 0.5, 1.0]
    assert source.examples["y"].tolist() == [0, 1, 0]


def test_clients_of_a_hub_column_become_natural_clients(table):
    source = data.from_dataset(table, client="writer")
    population = data.federate(source, partition=data.natural(field="writer"))
    assert population.splits["train"].sizes.tolist() == [2, 3, 1]


def test_columns_that_are_missing_or_ragged_are_named(table):
    with pytest.raises(DataError, match=r"column 'labl' is missing; .*did you mean 'label"):
        data.from_dataset(table, y="labl")
    with pytest.raises(DataError, match="choose one of the splits train"):
        data.from_dataset(datasets.DatasetDict(train=table))
    ragged = datasets.Dataset.from_dict({"image": [[1.0], [1.0, 2.0]], "label": [0, 1]})
    with pytest.raises(
        DataError, match=r"column 'image': example 1 has shape \[2\], example 0 \[1"
    ):
        data.from_dataset(ragged)


def test_a_hub_name_without_a_network_is_one_sentence(monkeypatch):
    from huggingface_hub import constants

    # The environment's HF_HUB_OFFLINE=1 is read into these when the libraries are imported.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        data.huggingface(path="nobody/nothing")
    assert str(error.value) == (
        "no network: the hub's data set 'nobody/nothing' is not on this machine; save it on a "
        "connected one with save_to_disk and give that folder"
    )


def test_a_local_path_that_is_wrong_never_asks_the_hub(tmp_path):
    with pytest.raises(DataError, match="no data set at '/no/such/folder'"):
        data.huggingface(path="/no/such/folder")
    with pytest.raises(DataError, match=r"no data set at 'train\.parquet'"):
        data.huggingface(path="train.parquet")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(DataError, match=r"must end in one of \.parquet, \.csv, \.tsv, \.json"):
        data.huggingface(path=str(tmp_path / "notes.txt"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match=r"datasets cannot read '.*torn\.parquet', split 'train'"):
        data.huggingface(path=str(tmp_path / "torn.parquet"))


def test_a_prepared_tfds_data_set_is_read_without_tensorflow(prepared):
    assert_is_the_table(data.tfds(name="tiny", data_dir=prepared, client="writer"), 3)
    part = data.tfds(name="tiny", data_dir=prepared, split="train[:50%]")
    assert part.examples["y"].tolist() == LABELS[:3]


def test_a_tfds_data_set_that_cannot_be_read_says_why(prepared, tmp_path, monkeypatch):
    for settings, message in [
        ({"name": "tinny"}, "tfds knows no data set 'tinny', and none is in"),
        ({"name": "mnist"}, "'mnist' is not prepared in .*; set download=true, or prepare it with"),
        ({"name": "tiny", "split": "tset"}, "'tiny' has no split 'tset'; it has train"),
        ({"name": "tiny", "x": "imge"}, "feature 'imge' is missing; .*did you mean 'image'"),
        ({"name": "tiny", "client": "user"}, "feature 'user' is missing; there are"),
    ]:
        with pytest.raises(DataError, match=message):
            data.tfds(data_dir=prepared, **settings)


def test_a_hub_that_does_not_answer_is_asked_once_and_the_disk_is_looked_at(monkeypatch):
    from huggingface_hub import constants

    asked = []

    def refuse(request, timeout):
        asked.append(request.full_url)
        raise OSError("no route")

    def load(*arguments, **settings):
        assert constants.HF_HUB_OFFLINE
        assert datasets.config.HF_HUB_OFFLINE
        raise ConnectionError("offline")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match="no network: the hub's data set 'nobody/nothing'"):
        data.huggingface(path="nobody/nothing")
    assert asked == [constants.ENDPOINT]
    assert not constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_tfds_data_set_in_another_format_says_what_it_needs(prepared, tmp_path):
    import shutil

    folder = shutil.copytree(prepared, tmp_path / "copy")
    info = folder / "tiny" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="prepared as tfrecord, which needs TensorFlow; prepare it"):
        data.tfds(name="tiny", data_dir=str(folder))


def test_a_tfds_download_without_a_network_is_one_sentence(tmp_path, monkeypatch):
    def unreachable(self, **settings):
        raise RuntimeError("download failed") from ConnectionError("no route")

    monkeypatch.setattr(library.core.DatasetBuilder, "download_and_prepare", unreachable)
    with pytest.raises(DataError) as error:
        data.tfds(name="mnist", data_dir=str(tmp_path), download=True)
    assert str(error.value) == (
        "no network: tfds cannot fetch 'mnist'; prepare it on a connected machine with "
        "file_format='array_record' and give its data_dir"
    )


def test_a_tfds_download_that_fails_otherwise_says_how(tmp_path, monkeypatch):
    def broken(self, **settings):
        raise ModuleNotFoundError("No module named 'some_module'")

    monkeypatch.setattr(library.core.DatasetBuilder, "download_and_prepare", broken)
    with pytest.raises(DataError, match=r"cannot prepare 'mnist' in .*: No module named 'some"):
        data.tfds(name="mnist", data_dir=str(tmp_path), download=True)
