"""A client's splits come from the client alone and share nothing, whatever the source and the deal.

``SOURCES``, ``POPULATIONS``, ``PARTITIONERS`` and ``SHIFTS`` say how each one of
``floral.data.__all__`` is made; a newly exported one fails here until it is listed. Every example
that a source gives carries its own number as one more field, so that who got what is exact.
"""

import inspect
import typing
from itertools import chain

import numpy as np
import pytest

from floral import data
from floral.data import FederatedDataset, Partitioner, Shift, Source, SyntheticTask

COUNT, CLASSES = 24, 4
LABELS = np.arange(COUNT) % CLASSES
WRITERS = np.array(["b", "a", "c"])[np.arange(COUNT) % 3]
PIXELS = np.tile(np.arange(200, 216, dtype=np.uint8).reshape(1, 4, 4), (COUNT, 1, 1))
PIXELS[:, 0, 0] = np.arange(COUNT)  # no two images are alike, however their pixels are ordered
LEFT_OUT = (0, 1, 2, 3)  # by the saved partition
SPLIT = {"validation": 0.25, "test": 0.25}

SOURCES = {
    "arrays": lambda files: data.arrays(PIXELS[..., None] / 255, LABELS),
    "digits": lambda files: data.digits(per_class=3),
    "npz": lambda files: data.npz(path=str(files / "examples.npz")),
    "idx": lambda files: data.idx(
        images=[str(files / f"{part}-images-idx3-ubyte") for part in ("train", "t10k")],
        labels=[str(files / f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")],
    ),
    "mnist": lambda files: data.mnist(folder=str(files)),
    "from_dataset": lambda files: data.from_dataset(_loaded(files), client="writer"),
    "huggingface": lambda files: data.huggingface(path=str(files / "saved"), client="writer"),
    "cifar": lambda files: data.cifar(folder=str(files / "cifar")),
    "tfds": lambda files: data.tfds(name="tiny", data_dir=str(files / "tfds"), client="writer"),
}

LAYOUT = {
    "train": [[3, 9, 1], [20, 0], [7, 4, 5]],
    "validation": [[2], [6], [8]],
    "test": [[11, 10], [21, 22], [19, 18]],
}
"""Rows of every client in the populations that are given whole."""

POPULATIONS = {
    "from_clients": lambda files, seed: data.from_clients(_clients(), num_classes=CLASSES),
    "from_flat": lambda files, seed: data.from_flat(*_flat(), num_classes=CLASSES),
    "federated": lambda files, seed: data.federated(_examples(), _by_split(), num_classes=CLASSES),
    "from_npz": lambda files, seed: data.from_npz(
        path=str(files / "clients.npz"), num_classes=CLASSES
    ),
    "mapped": lambda files, seed: data.mapped(folder=str(files / "mapped")),
    "generated": lambda files, seed: data.generated(
        _drawn, sizes={"train": 3, "validation": 1, "test": [2, 0, 4]}, clients=3, seed=seed
    ),
    "synthetic_linear": lambda files, seed: data.synthetic_linear(
        clients=4, validation=2, seed=seed
    ),
    "synthetic_mlp": lambda files, seed: data.synthetic_mlp(clients=4, validation=2, seed=seed),
    "synthetic_population": lambda files, seed: data.synthetic_population(
        clients=4, train=3, validation=2, test=2, side=4, seed=seed
    ),
}
GIVEN = {"from_clients", "from_flat", "federated", "from_npz", "mapped"}
"""Those that are given whole, so that no seed changes them."""

PARTITIONERS = {
    "iid": lambda files: data.iid(clients=4),
    "blocks": lambda files: data.blocks(clients=4),
    "dirichlet": lambda files: data.dirichlet(clients=4, alpha=0.3),
    "shards": lambda files: data.shards(clients=4),
    "quantity_skew": lambda files: data.quantity_skew(clients=4),
    "label_clusters": lambda files: data.label_clusters(clients=4, clusters=2),
    "natural": lambda files: data.natural(field="writer"),
    "saved": lambda files: data.saved(path=str(files / "partition.npz")),
}
SEEDLESS = {"blocks", "label_clusters", "natural", "saved"}
"""Those that deal alike whatever the seed."""

SHIFTS = {
    "none": data.none(),
    "rotate": data.rotate(clusters=2),
    "permute": data.permute(clusters=2),
    "label_shift": data.label_shift(clusters=2),
    "noise": data.noise(clusters=2),
}


def _exported(*kinds):
    """The public functions that return one of these, but ``federate``, which all are given to."""
    named = {name: getattr(data, name) for name in data.__all__}
    return {
        name
        for name, value in named.items()
        if inspect.isfunction(value) and typing.get_type_hints(value).get("return") in kinds
    } - {"federate"}


def test_every_source_partitioner_and_shift_has_a_case():
    assert _exported(Source) == set(SOURCES)
    assert _exported(FederatedDataset, SyntheticTask) == set(POPULATIONS)
    assert _exported(Partitioner) == set(PARTITIONERS)
    assert _exported(Shift) == set(SHIFTS)


def _examples():
    return {"x": PIXELS[..., None] / np.float32(255), "y": LABELS}


def _by_split():
    return {name: [np.array(rows) for rows in clients] for name, clients in LAYOUT.items()}


def _clients():
    return [
        {
            name: {field: values[rows[k]] for field, values in _examples().items()}
            for name, rows in LAYOUT.items()
        }
        for k in range(3)
    ]


def _flat():
    rows = {name: np.concatenate(clients) for name, clients in LAYOUT.items()}
    examples = {
        name: {field: values[of] for field, values in _examples().items()}
        for name, of in rows.items()
    }
    offsets = {
        name: np.cumsum([0, *map(len, clients)]).tolist() for name, clients in LAYOUT.items()
    }
    return examples, offsets


def _drawn(rng, client, size):
    return {"x": rng.standard_normal((size, 5)), "y": rng.standard_normal((size, 1))}


def _loaded(files):
    import datasets

    return datasets.load_from_disk(str(files / "saved"))


def _write_idx(path, values):
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def _save_cifar(path):
    """The same images, as large and as colourful as CIFAR's."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(img=datasets.Image(), label=datasets.ClassLabel(num_classes=10))
    images = np.tile(PIXELS[..., None], (1, 8, 8, 3))
    splits = {
        name: datasets.Dataset.from_dict(
            {"img": list(images[rows]), "label": LABELS[rows].tolist()}, features=features
        )
        for name, rows in (("train", slice(0, 18)), ("test", slice(18, COUNT)))
    }
    datasets.DatasetDict(splits).save_to_disk(str(path))


@pytest.fixture(scope="module")
def files(tmp_path_factory, make_table, prepare_tfds):
    """A folder with all that the sources read."""
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "examples.npz", x=PIXELS, y=LABELS)
    for part, rows in (("train", slice(0, 18)), ("t10k", slice(18, COUNT))):
        _write_idx(folder / f"{part}-images-idx3-ubyte", PIXELS[rows])
        _write_idx(folder / f"{part}-labels-idx1-ubyte", LABELS[rows])
    make_table(PIXELS, LABELS, WRITERS).save_to_disk(str(folder / "saved"))
    _save_cifar(folder / "cifar")
    prepare_tfds(PIXELS, LABELS, WRITERS, folder / "tfds")
    data.save_mapped(POPULATIONS["from_clients"](folder, 0), folder / "mapped")
    equal = {name: np.array([rows[:2] for rows in LAYOUT[name]]) for name in ("train", "test")}
    arrays = {f"x_{name}": _examples()["x"][rows] for name, rows in equal.items()}
    arrays |= {f"y_{name}": LABELS[rows] for name, rows in equal.items()}
    np.savez(folder / "clients.npz", **arrays)
    dealt = np.split(np.random.default_rng(0).permutation(np.arange(len(LEFT_OUT), COUNT)), 4)
    data.save_partition(folder / "partition.npz", data.Partition.of(dealt))
    return folder


@pytest.fixture(scope="module", params=SOURCES)
def source(request, files):
    """A source of which example i has the tag i, and a writer to be told apart by."""
    made = SOURCES[request.param](files)
    count = len(made.examples["y"])
    assert len({row.tobytes() for row in made.examples["x"]}) == count >= COUNT
    writers = np.arange(count) % 3
    return made._replace(
        examples={**made.examples, "tag": np.arange(count)},
        fields={"writer": writers, **made.fields},
    )


@pytest.fixture(params=PARTITIONERS)
def partitioner(request, files):
    return request.param, PARTITIONERS[request.param](files)


def tags(population):
    """By client, the tags of each of its splits."""
    return [
        {name: split["tag"].tolist() for name, split in population.client(k).items()}
        for k in range(population.num_clients)
    ]


def owned(population):
    """By client, all its tags; no tag may stand anywhere twice."""
    clients = [list(chain(*splits.values())) for splits in tags(population)]
    every = list(chain(*clients))
    assert len(set(every)) == len(every)
    return [set(client) for client in clients]


def test_every_example_is_in_one_split_of_the_one_client_that_it_was_dealt_to(source, partitioner):
    name, deal = partitioner
    population = data.federate(source, partition=deal, split=SPLIT)
    assert list(population.splits) == ["train", "validation", "test"]
    assert owned(population) == owned(data.federate(source, partition=deal))
    dealt = set(range(COUNT if name == "saved" else len(source.examples["y"])))
    assert set().union(*owned(population)) == dealt - set(LEFT_OUT if name == "saved" else ())
    for split in population.splits.values():
        assert split.examples["tag"].size
        for field, values in split.examples.items():
            np.testing.assert_array_equal(values, source.examples[field][split.examples["tag"]])
    partition = deal({"y": source.examples["y"], **source.fields}, np.random.default_rng(1))
    given = data.federate(source, partition=partition, split=SPLIT)
    assert owned(given) == [set(rows.tolist()) for rows in partition.rows()]


def test_examples_that_are_not_kept_are_never_read(source, partitioner):
    _, deal = partitioner

    def thinned(source):
        return data.federate(source, partition=deal, split=SPLIT, keep=0.4)

    def changed(rows):
        x = source.examples["x"].copy()
        x[rows] += 1
        return source._replace(examples={**source.examples, "x": x})

    thin = thinned(source)
    whole = data.federate(source, partition=deal, split=SPLIT)
    for some, all_of_them in zip(tags(thin), tags(whole), strict=True):
        assert some["test"] == all_of_them["test"]
    for some, all_of_them in zip(owned(thin), owned(whole), strict=True):
        assert some <= all_of_them
    kept = set().union(*owned(thin))
    discarded = sorted(set().union(*owned(whole)) - kept)
    assert discarded
    assert thinned(changed(discarded)).fingerprint == thin.fingerprint
    assert thinned(changed(sorted(kept)[:1])).fingerprint != thin.fingerprint


def test_a_seed_gives_its_own_split_again_and_another_seed_another(source, partitioner):
    name, deal = partitioner

    def dealt(seed):
        return data.federate(source, partition=deal, split=SPLIT, keep=0.8, seed=seed)

    one, again, other = dealt(0), dealt(0), dealt(1)
    assert one.fingerprint == again.fingerprint
    assert tags(one) != tags(other)
    same_owners = [owned(data.federate(source, partition=deal, seed=seed)) for seed in (0, 1)]
    assert (same_owners[0] == same_owners[1]) == (name in SEEDLESS)


@pytest.mark.parametrize("shift", SHIFTS)
def test_neither_a_shift_nor_clients_that_stay_unseen_move_an_example(source, partitioner, shift):
    _, deal = partitioner
    settings = {"partition": deal, "split": SPLIT, "keep": 0.5}
    plain = data.federate(source, **settings)
    other = data.federate(source, shift=SHIFTS[shift], unseen=1, **settings)
    assert tags(other) == tags(plain)
    assert other.unseen.sum() == 1
    assert len(other.seen) == plain.num_clients - 1


def rows_of(population):
    """By client and split, each example's features in sorted order, which no shift of SHIFTS but
    noise changes."""
    return [
        {
            name: [np.sort(row, axis=None).tobytes() for row in np.asarray(split["x"])]
            for name, split in population.client(k).items()
        }
        for k in range(population.num_clients)
    ]


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_population_that_comes_with_its_clients_keeps_every_example_where_it_is(name, files):
    made = POPULATIONS[name](files, 0)
    population = data.federate(made, unseen=1)
    rows = rows_of(population)
    every = [row for client in rows for split in client.values() for row in split]
    assert len(set(every)) == len(every) > 0
    assert all(client["train"] for client in rows)
    assert population.unseen.sum() == 1
    if name in GIVEN:
        most = 2 if name == "from_npz" else None
        x = _examples()["x"]
        for k, client in enumerate(rows):
            for split, found in client.items():
                given = x[LAYOUT[split][k][:most]]
                assert found == [np.sort(row, axis=None).tobytes() for row in given]


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_population_is_its_seed_s(name, files):
    one, again, other = (
        data.federate(POPULATIONS[name](files, seed)).fingerprint for seed in (0, 0, 1)
    )
    assert one == again
    assert (one == other) == (name in GIVEN)


@pytest.mark.parametrize("shift", sorted(SHIFTS.keys() - {"noise"}))
@pytest.mark.parametrize("name", sorted(GIVEN - {"mapped"}))
def test_a_shift_leaves_a_population_s_examples_with_their_clients(name, shift, files):
    population = POPULATIONS[name](files, 0)
    assert rows_of(data.federate(population, shift=SHIFTS[shift])) == rows_of(population)
