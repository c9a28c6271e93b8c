"""Whatever is wrong is said in one sentence before anything is trained.

A row says what is wrong, how to provoke it, and what is said: the place, the value given and the
nearest right answer. No row may leave a run folder behind.
"""

# ruff: noqa: E501  (a row is a line)

import copy
import re
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import floral
from floral import algorithms, data, losses, mixtures, models, simulate
from floral.config.reading.overrides import override
from floral.errors import ConfigError, DataError, FloralError, SpecError

CONFIG = {
    "rounds": 2,
    "data": {
        "source": {"kind": "synthetic_linear", "clients": 4, "dimension": 3, "outputs": 2},
    },
    "model": {"kind": "linear"},
    "adaptors": [{"match": ".*/kernel", "kind": "low_rank", "rank": 1}],
    "algorithm": {"kind": "floral", "num_adaptors": 2},
    "local": {"kind": "sgd", "learning_rate": 0.1},
}


def run(*overrides, **changes):
    """Runs the config with keys replaced and overridden, in the folder of the test."""
    return lambda: floral.run(copy.deepcopy({**CONFIG, **changes}), *overrides, out="runs")


def less(key):
    return lambda: floral.run({k: v for k, v in CONFIG.items() if k != key}, out="runs")


def images(kind="images.npz", **changes):
    source = {"kind": "npz", "path": kind}
    partition = {"kind": "iid", "clients": 4}
    return {"source": source, "partition": partition, **changes}


def compared(**child):
    return run(compare={"child": child})


def from_file(text):
    """Runs a config file of one line more than the config itself would have."""

    def provoke():
        Path("config.yaml").write_text(text)
        floral.run("config.yaml", out="runs")

    return provoke


X, Y = np.zeros((8, 6, 6, 1), np.float32), np.arange(8) % 2


def saved(name, x=X, y=Y):
    np.savez(name, x=x, y=y)


def resumed(change, *overrides):
    """Resumes a copy of a finished run after a change to its folder."""

    def provoke():
        shutil.copytree(Path("finished"), Path("run"))
        change(Path("run"))
        floral.resume("run", *overrides)

    return provoke


def edit(old, new):
    def change(folder):
        path = folder / "config.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def cut_checkpoint(folder):
    """Every file of the checkpoint loses its second half."""
    (folder / "summary.json").unlink()
    for path in (folder / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_data(folder):
    (folder / "summary.json").unlink()
    saved("examples.npz", x=np.ones((8, 6, 6, 1), np.float32))


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not train)(x))


def batch_norm_alone():
    batch = {"x": jnp.zeros((2, 3)), "mask": jnp.ones(2, bool)}
    model = models.from_linen(nn.BatchNorm(use_running_average=False))
    model.init(jax.random.key(0), batch)


def ensemble_with_statistics():
    population = data.from_clients([{"train": {"x": np.ones((4, 3)), "y": np.ones((4, 2))}}])
    model = models.from_linen(Normed(), train_argument="train")
    solver = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    ensemble = algorithms.ensemble(
        model, losses.squared_error, solver, mixtures.softmax(), simulate.sample_batch(population)
    )
    simulate.make_simulator(ensemble, model, population, metrics={})


def no_network():
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        run(data=images() | {"source": {"kind": "huggingface", "path": "floral/no-such-data"}})()


def client(x=((0.0,),), y=(0,)):
    return {"train": {"x": np.array(x).reshape(-1, 1), "y": np.array(y)}}


ROWS = [
    # Config files and their keys.
    ("an unknown key", run(adaptor=[]), ConfigError, "adaptor: .* takes no 'adaptor'; did you mean 'adaptors'?"),
    ("an unknown nested key", run("local.lerning_rate=0.1"), ConfigError, "local.lerning_rate: sgd takes no 'lerning_rate'; did you mean 'learning_rate'?"),
    ("a missing key", less("model"), ConfigError, "model: .* needs a mapping for the model here"),
    ("a missing nested key", run(local={"kind": "sgd"}), ConfigError, "local.learning_rate: sgd needs a number here"),
    ("a missing kind", run(model={"hidden": [3]}), ConfigError, "model.kind: say which model: mlp or linear or cnn or vgg or resnet or vit"),
    ("an unknown kind", run("algorithm.kind=florall"), ConfigError, "algorithm.kind: no algorithm is called 'florall'; did you mean 'floral'?"),
    ("text for a number", run("local.learning_rate=fast"), ConfigError, "local.learning_rate: expected a number, got 'fast'"),
    ("a fraction of a round", run("rounds=1.5"), ConfigError, "rounds: expected a whole number, got 1.5"),
    ("no rounds", run("rounds=0"), ConfigError, "rounds: expected a whole number of at least 1, got 0"),
    ("a negative seed", run("seed=-1"), ConfigError, "seed: expected a whole number of at least 0, got -1"),
    ("text for a mapping", run(model="mlp"), ConfigError, "model: expected a mapping as {kind: mlp}, got 'mlp'"),
    ("an unknown loss", run("loss=cross_entropi"), ConfigError, "loss: no loss is called 'cross_entropi'; did you mean 'cross_entropy'?"),
    ("no such config", lambda: floral.run("quickstrat.yaml", out="runs"), ConfigError, "quickstrat.yaml: there is no file 'quickstrat.yaml'; did you mean 'quickstart.yaml'?"),
    ("a parent that is not there", from_file("extends: quickstrat.yaml\n"), ConfigError, "config.yaml: extends: there is no file 'quickstrat.yaml'; did you mean 'quickstart.yaml'?"),
    ("a config that extends itself", from_file("extends: config.yaml\n"), ConfigError, "config.yaml: a config cannot extend itself: config.yaml -> config.yaml"),
    ("no YAML", from_file("a: [1\nb: 2\n"), ConfigError, "config.yaml:.*: not YAML: .*"),
    # Overrides.
    ("an override that sets nothing", run("seed"), ConfigError, "'seed' sets nothing; write seed=value"),
    ("an override of an unknown key", run("sed=1"), ConfigError, "sed: no top-level key is called 'sed'; did you mean 'seed'?"),
    ("an override of no entry", run("adaptors.1.rank=2"), ConfigError, "adaptors.1.rank: there is no entry 1; adaptors has the entries 0 to 0"),
    # Models and adaptors.
    ("rank 0", run("adaptors.0.rank=0"), ConfigError, "adaptors.0: rank must be a whole number of at least 1, got 0"),
    ("a rank above the leaf's", run("adaptors.0.rank=9"), SpecError, "low_rank does not fit 'params/Dense_0/kernel': rank 9 is above 2, the largest for shape (3, 2)"),
    ("budget 2", run(adaptors=[{"match": ".*", "kind": "low_rank", "budget": 2.0}]), ConfigError, "adaptors.0: budget is a share of the leaf's size and at most 1, got 2.0; a whole number of directions is stated as rank"),
    ("rank and budget", run("adaptors.0.budget=0.1"), ConfigError, "adaptors.0: state one of rank and budget, got rank=1 and budget=0.1"),
    ("a rule that matches nothing", run("adaptors.0.match=.*/Dens_0/kernel"), SpecError, "rule '.*/Dens_0/kernel' matched none of 2 parameters; did you mean '.*/Dense_0/kernel'?"),
    ("no regular expression", run("adaptors.0.match='(kernel'"), SpecError, "rule '(kernel' is no regular expression: .*"),
    ("convolutions on a matrix", run("adaptors.0.kind=conv", "adaptors.0.match=.*/kernel", "adaptors.0.rank=1"), SpecError, "conv separable does not fit 'params/Dense_0/kernel': .*"),
    ("low rank on a vector", run("adaptors.0.match=.*/bias"), SpecError, "low_rank does not fit 'params/Dense_0/bias': low_rank needs a matrix, got shape (2,); additive() fits any shape; rules that fit these params: .*"),
    ("FLoRAL without adaptors", run(adaptors=[]), ConfigError, "adaptors: floral needs at least one; rules that fit this model: .*"),
    ("batch norm that is not told that it trains", batch_norm_alone, SpecError, "from_linen: BatchNorm takes 'use_running_average', which nobody passes; give train_argument='use_running_average', or it trains as it predicts"),
    ("dropout of everything", run(model={"kind": "vgg", "dropout": 1.0}), ConfigError, "model: dropout must be below 1, got 1.0; 0.5 is usual"),
    ("an unknown norm", run(model={"kind": "mlp", "norm": "layer"}), ConfigError, "model.norm: expected 'none' or 'batch', got 'layer'"),
    ("images too small to pool", run(data=images(), model={"kind": "vgg"}), SpecError, "vgg: images of 6×6 pixels leave nothing after kernels of [3, 3, 3, 3, 3] .*; they must be 32×32 at least, or kernels and pools smaller"),
    # Methods.
    ("statistics in an ensemble", ensemble_with_statistics, SpecError, "ensemble: the model keeps statistics (batch norm), .*; use GroupNorm or LayerNorm"),
    ("known mixtures without clusters", run("mixing.kind=known", data=images()), SpecError, "known mixtures need the client trait 'cluster'; the data give none"),
    ("a cluster without an adaptor", run("mixing.kind=known", "algorithm.num_adaptors=1"), SpecError, "known: client 1 has cluster 1, expected one of the 1 adaptors, 0 to 0"),
    ("a floor that leaves nothing", run("mixing={kind: softmax, floor: 0.6}"), SpecError, "softmax: a floor of 0.6 leaves nothing to mix over 2 adaptors; at most 0.5 fits"),
    ("a misspelt trait", run("mixing.kind=known", "mixing.trait=clutser"), SpecError, "known mixtures need the client trait 'clutser'; the data give cluster; did you mean 'cluster'?"),
    ("more adaptors than there are", run("mixing.kind=top_k", "mixing.k=3"), SpecError, "top_k: k = 3 is more than the bank's 2 adaptors"),
    ("training nothing", run("algorithm.train=[bse]"), ConfigError, "algorithm: train: 'bse' matches none of the parts base, bank, mixture nor a path below them; did you mean 'base'?"),
    ("private statistics of none", run("algorithm.private=[mixture, stats]"), ConfigError, "algorithm: private: 'stats' matches none of the parts base, bank, mixture nor a path below them; .*"),
    ("training statistics", run("algorithm.train=[base, stats]", model={"kind": "mlp", "norm": "batch"}, adaptors=[{"match": ".*", "kind": "additive"}]), ConfigError, "algorithm: train: 'stats' matches none of the parts base, bank, mixture nor a path below them; .*"),
    ("a negative learning rate", run("local.learning_rate=-0.1"), ConfigError, "local: learning_rate must not be negative, got -0.1"),
    ("a negative rate of the mixture", run("algorithm.mixture_learning_rate=-0.1"), ConfigError, "algorithm: mixture_learning_rate must not be negative, got -0.1"),
    ("momentum 1.5", run("local.momentum=1.5"), ConfigError, "local: momentum must lie between 0.0 and 1.0, got 1.5"),
    ("an unknown server optimizer", run("algorithm.server_optimizer={kind: adan}"), ConfigError, "algorithm.server_optimizer.kind: no optimizer is called 'adan'; did you mean 'adam'?"),
    ("a clip at zero", run("uplink.client=[{kind: clip, max_norm: 0}]"), ConfigError, "uplink.client.0: max_norm must be positive, got 0.0"),
    # Methods to compare with.
    ("a proximal term that pushes", run("algorithm={kind: fedprox, mu: -1.0}"), ConfigError, "algorithm: mu must not be negative, got -1.0"),
    ("control variates with momentum", run("algorithm={kind: scaffold}", "local.momentum=0.9"), ConfigError, "algorithm: scaffold: the local optimizer has a state (momentum, moments); .*: set local to sgd with momentum = 0"),
    ("a private part that is not there", run("algorithm={kind: partial, private: [params/Dense_1/bias]}"), ConfigError, "algorithm: private: 'params/Dense_1/bias' matches no path of the model, such as 'params/Dense_0/.*'; did you mean 'params/Dense_0/bias'?"),
    ("a head that never trains", run("algorithm={kind: fedrep, private: ['**/bias'], head_passes: 0}"), ConfigError, "algorithm: head_passes must be a whole number of at least 1, got 0"),
    ("a head that is not there", run("algorithm={kind: fedbabu, head: [params/head]}"), ConfigError, "algorithm: head: 'params/head' matches no path of the model, such as 'params/Dense_0/.*"),
    ("a negative number of steps", run("algorithm={kind: fedavg_finetuned, tuning_steps: -1}"), ConfigError, "algorithm: tuning_steps must not be negative, got -1"),
    ("a pull that pushes", run("algorithm={kind: ditto, pull: -0.1}"), ConfigError, "algorithm: pull must not be negative, got -0.1"),
    ("a share above one", run("algorithm={kind: apfl, alpha: 1.5}"), ConfigError, "algorithm: alpha must lie between 0.0 and 1.0, got 1.5"),
    ("a pull that diverges", run("algorithm={kind: pfedme, pull: 30}"), ConfigError, "algorithm: pfedme: learning_rate = 0.1 times pull = 30.0 must stay below 2, or the pull alone diverges; take a rate of at most 0.0333"),
    ("no models to choose from", run("algorithm={kind: ifca, num_models: 0}"), ConfigError, "algorithm: num_models must be a whole number of at least 1, got 0"),
    ("half a model", run("algorithm={kind: fedem, num_models: 2.5}"), ConfigError, "algorithm.num_models: expected a whole number, got 2.5"),
    ("no pairs of factors", run("algorithm={kind: fedsa_lora}", "adaptors=[{match: '.*', kind: additive}]"), ConfigError, "algorithm: private: 'bank/**/b' matches none of the parts base, bank, mixture nor a path below them.*"),
    ("a factor that is not there", run("algorithm={kind: ffa_lora, train: [bank/**/c]}"), ConfigError, "algorithm: train: 'bank/**/c' matches none of the parts base, bank, mixture nor a path below them.*"),
    ("a pair of adaptors without adaptors", run("algorithm={kind: dual_adaptor}", adaptors=[]), ConfigError, "adaptors: dual_adaptor needs at least one; rules that fit this model: .*"),
    ("neighbours without classes", run("algorithm={kind: knn_per}"), ConfigError, "algorithm: knn_per mixes probabilities of classes: it needs labels [B] of whole numbers and outputs [B, classes], got targets float32[2, 2] and outputs [2, 2]"),
    ("no neighbours", run("algorithm={kind: knn_per, num_neighbors: 0}"), ConfigError, "algorithm: num_neighbors must be a whole number of at least 1, got 0"),
    # Rounds.
    ("a cohort larger than the population", run(cohort={"kind": "fixed", "size": 5}), SpecError, "cohort.size: 5 clients a round, but only 4 clients train; at most 4 fit"),
    ("a fraction of nothing", run(cohort={"kind": "fixed", "fraction": 0.0}), ConfigError, "cohort: fraction must be positive, got 0.0"),
    ("a size and a fraction", run(cohort={"kind": "fixed", "size": 1, "fraction": 0.5}), ConfigError, "cohort: give either size or fraction, got size = 1 and fraction = 0.5"),
    ("a chunk for vmap", run(execution={"walk": "vmap", "chunk": 2}), ConfigError, "execution: chunk belongs to walk = 'chunk' and to no other; got walk = 'vmap', chunk = 2"),
    ("epochs and steps", run("local.epochs=2", "local.steps=3"), ConfigError, "local: give epochs or steps, not both: got epochs=2, steps=3"),
    ("no evaluation ever", run("evaluate.every=0"), ConfigError, "evaluate: every must be a whole number of at least 1, got 0"),
    ("an unknown augmentation", run("local.augment={kind: flip_corp}"), ConfigError, "local.augment.kind: no augment is called 'flip_corp'; did you mean 'flip_crop'?"),
    ("a negative padding", run("local.augment={kind: flip_crop, padding: -1}"), ConfigError, "local.augment: padding must not be negative, got -1"),
    ("augmented images that are none", run("local.augment={kind: flip_crop}"), SpecError, "flip_crop: expected images [B, height, width, channels], or [B, height, width] of one channel, got inputs of shape (2, 3)"),
    # Comparisons.
    ("a wrong key of a method", compared(local={"lr": 0.1}), ConfigError, "compare.child.local.lr: sgd takes no 'lr'; .*"),
    ("a method that does not fit", compared(cohort={"kind": "fixed", "size": 9}), SpecError, "compare.child: cohort.size: 9 clients a round, .*"),
    ("a method of the config's own name", run(compare={"floral": {}}), ConfigError, "compare.floral: the config's own method is called 'floral' already; give this one another name"),
    ("a method of no folder's name", run(compare={"../up": {}}), ConfigError, "compare.../up: a method's name must be usable as a folder's"),
    ("a start from nowhere", compared(start_from="floarl"), ConfigError, "compare.child: start_from: 'floarl' is neither a method that comes before 'child' (there is floral) nor a run folder; did you mean 'floral'?"),
    ("a start from other shapes", compared(algorithm={"num_adaptors": 3}, start_from="floral"), SpecError, "compare.child: start_from: bank: 'params/Dense_0/kernel/a' has shape (2, 1, 3), expected (3, 1, 3)"),
    ("a start whose groups are numbered anew", compared(mixing={"kind": "discriminants", "size": 4}, start_from="floral"), ConfigError, "compare.child: start_from: discriminants would number the groups that they find otherwise than the bank is that the run starts from; set mixing to softmax or exponential_weights"),
    ("a start from another family", compared(algorithm={"kind": "fedavg"}, start_from="floral"), ConfigError, "compare.child: start_from: a FloralServer has no part that a FedAvgServer could start from"),
    # Data.
    ("a file that is not there", run(data=images("example.npz")), DataError, "no data file at 'example.npz'; did you mean 'examples.npz'?"),
    ("an IDX file that is not there", run(data=images() | {"source": {"kind": "idx", "images": "image-idx3", "labels": "labels-idx1"}}), DataError, "no data file at 'image-idx3'; did you mean 'images-idx3'?"),
    ("a truncated IDX file", run(data=images() | {"source": {"kind": "idx", "images": "images-idx3", "labels": "labels-idx1"}}), DataError, "'images-idx3' is cut short: its header announces 288 bytes for [8, 6, 6], it has 100"),
    ("a NaN", run(data=images("nan.npz")), DataError, "nan.npz: 'x' of example 3 is nan at (0, 0, 0); every number must be finite"),
    ("a label out of range", run("data.source.num_classes=2", data=images("labels.npz")), DataError, "labels.npz: label of example 2 is 2, expected 0 to 1 for 2 classes"),
    ("a negative label", run(data=images("negative.npz")), DataError, "negative.npz: label of example 0 is -1, expected 0 to 1 for 2 classes"),
    ("arrays of other lengths", run(data=images("lengths.npz")), DataError, "lengths.npz: arrays differ in length: 'x' has 8, 'y' has 7"),
    ("no such array", run("data.source.x=imgae", data=images("named.npz")), DataError, "'named.npz' has no array 'imgae'; it has image, y; did you mean 'image'?"),
    ("CIFAR of twenty classes", run(data=images() | {"source": {"kind": "cifar", "classes": 20}}), ConfigError, "data.source.classes: expected 10 or 100, got 20"),
    ("CIFAR by no library", run(data=images() | {"source": {"kind": "cifar", "via": "tdfs"}}), ConfigError, "data.source.via: expected 'huggingface' or 'tfds', got 'tdfs'; did you mean 'tfds'?"),
    ("CIFAR that is not there", run(data=images() | {"source": {"kind": "cifar", "folder": "/no/cifar"}}), DataError, "no data set at '/no/cifar'"),
    ("turns of no quarter", run("data.shift={kind: rotate, clusters: 3, keep_turns: true}", data=images()), ConfigError, "data.shift: rotate: keep_turns needs 1, 2 or 4 clusters, got 3"),
    ("an empty client", lambda: data.from_clients([client(), client((), ())]), DataError, "client 1, split 'train' is empty: it has no examples"),
    ("a client without training examples", lambda: data.from_clients([client(), {"test": client()["train"]}]), DataError, "client 1 has no training example (1 of 2 clients have none)"),
    ("more clients than examples", run("data.partition.clients=9", data=images()), DataError, "8 examples are too few for 9 clients with at least 1 each; use at most 8 clients"),
    ("no one left to train", run("data.unseen=4"), DataError, "unseen=4 leaves none of 4 clients to train; give a number of clients, or a share below 1"),
    ("no partition", run(data={"source": {"kind": "npz", "path": "examples.npz"}}), DataError, "examples.npz needs a partition: how are its examples dealt to clients?"),
    ("a partition of clients", run("data.partition={kind: iid}"), DataError, "this source comes with its clients and splits; it takes no partition, split or keep, only shift, unseen and standardize"),
    ("held-out shares above one", run("data.split={test: 0.6, validation: 0.5}", data=images()), FloralError, ".*held-out fractions must sum to less than 1, got 1.1"),
    ("an unknown split", run("data.split={tests: 0.5}", data=images()), ConfigError, "data: .*must be one of validation, test; got 'tests'; did you mean 'test'?"),
    ("classes where there are none", run("loss=cross_entropy"), ConfigError, "loss: cross_entropy needs classes, but the data's targets are numbers"),
    ("a data set out of reach", no_network, DataError, "no network: the hub's data set 'floral/no-such-data' is not on this machine; save it on a connected one with save_to_disk and give that folder"),
    # Run folders.
    ("no run folder", lambda: floral.resume("finish"), ConfigError, "finish: no run folder, it has no config.yaml; did you mean 'finished'?"),
    ("a new setting for an old run", resumed(lambda folder: None, "seed=1"), ConfigError, "'seed=1': a resumed run takes rounds=…, data.source.path=… alone; start a new run for anything else"),
    ("fewer rounds than taken", resumed(lambda folder: None, "rounds=1"), ConfigError, "rounds: run has taken 2 already, got 1; a resumed run goes on, never back"),
    ("another config", resumed(edit("learning_rate: 0.1", "learning_rate: 0.2")), ConfigError, "run/config.yaml: the config is not the one this run began with; only rounds, checkpoint and where files lie may change; start a new run for anything else"),
    ("other data", resumed(other_data, "data.source.path=examples.npz"), DataError, "run: the data have fingerprint [0-9a-f]{12}, the run began with [0-9a-f]{12}; a run goes on only with the data it began with"),
    ("a truncated checkpoint", resumed(cut_checkpoint), ConfigError, "run/checkpoints/2: the checkpoint is damaged, or of another experiment or version .*; delete that folder to go on from the checkpoint before it, or from the start"),
    ("a damaged summary", resumed(lambda folder: (folder / "summary.json").write_text("{")), ConfigError, "run/summary.json: damaged at line 1: .*"),
    ("a name that is a path", lambda: floral.run(CONFIG, out="runs", name="a/b"), ConfigError, "name: expected the name of a folder, got 'a/b'; its parent is out"),
    ("a parent that is a file", lambda: floral.run(CONFIG, out="examples.npz"), ConfigError, "out: cannot make the folder examples.npz/run: 'examples.npz' is a file and no folder"),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, good and bad, a config, and a run that is finished."""
    folder = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        saved("images.npz")
        saved("examples.npz")
        saved("nan.npz", x=np.where(np.arange(8)[:, None, None, None] == 3, np.nan, X))
        saved("labels.npz", y=np.arange(8) % 3)
        saved("negative.npz", y=Y - (np.arange(8) == 0))
        saved("lengths.npz", y=Y[:7])
        np.savez("named.npz", image=X, y=Y)
        header = bytes([0, 0, 8, 3]) + np.array([8, 6, 6], ">u4").tobytes()
        Path("images-idx3").write_bytes(header + bytes(100))
        Path("labels-idx1").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 8]) + bytes(8))
        Path("quickstart.yaml").write_text("rounds: 1\n")
        config = {**CONFIG, "data": images("examples.npz")}
        floral.run(config, "algorithm={kind: fedavg}", out=".", name="finished")
    return folder


@pytest.mark.parametrize(
    ("provoke", "kind", "sentence"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_what_is_wrong_is_said_before_training(
    place, tmp_path, monkeypatch, provoke, kind, sentence
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    with pytest.raises(kind) as raised:
        provoke()
    said = str(raised.value)
    assert isinstance(raised.value, FloralError)
    assert _pattern(sentence).fullmatch(said), said
    assert not Path("runs").exists()


def _pattern(sentence):
    """Plain text but for ``.*`` and the twelve digits of a fingerprint; a dot ends no line."""
    parts = re.split(r"(\.\*|\[0-9a-f\]\{12\})", sentence)
    return re.compile("".join(p if i % 2 else re.escape(p) for i, p in enumerate(parts)))


def test_rows_are_what_they_say():
    """The config that all rows change is right, and every row is told apart by its words."""
    assert override(CONFIG, []) == CONFIG
    assert len({row[0] for row in ROWS}) == len(ROWS) >= 30


def test_several_mistakes_are_said_at_once():
    with pytest.raises(ConfigError) as raised:
        run("local.lr=1", "model.kind=mlpp", "rounds=x")()
    assert [line.partition(":")[0] for line in str(raised.value).splitlines()] == [
        "rounds",
        "model.kind",
        "local.lr",
    ]
