"""What all tests share: strict array semantics, quick compilation and one tiny ragged population.

Nearly all the time goes into compiling programs that run for a millisecond. XLA's older emitters,
which jaxlib 0.10 still has, compile them in half the time, LLVM optimising them as ever, so that
what is asked bit for bit is asked of fully optimised programs. ``XLA_FLAGS= pytest`` asks it of XLA
as it comes.
"""

import functools
import gc
import inspect
import json
import os
import tempfile

import jax
import numpy as np
import optax
import pytest
from hypothesis import settings

from floral import adaptors, algorithms, data, losses, metrics, mixtures, models, simulate
from floral.config.reading.yaml_file import dump

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)  # as the command line has it on two cores
if jax.__version_info__ < (0, 11):  # later ones do not know the flag, and stop at it
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")  # read at first use
gc.set_threshold(20_000)  # looking through all that was traced takes up to a tenth of the time

# A first call compiles, so that timings say nothing; the same examples are drawn on every run.
settings.register_profile("floral", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("floral")

pytest_plugins = ["tiny_runs"]  # of tests/plugins

SIZES = (4, 1, 7, 4, 7)
CLUSTERS = (0, 1, 0, 1, 1)


def pytest_configure(config):
    """What one process has compiled, pytest's others and those that tests start take from disk.

    The folder lasts as long as the tests, unless JAX_COMPILATION_CACHE_DIR names one that is kept:
    most of a second run's time is then saved.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:  # the process that starts all others
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            folder = tempfile.TemporaryDirectory(prefix="floral-compiled-")
            config.add_cleanup(folder.cleanup)
            os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _leaves(tree):
    """Leaves by path, random keys as their numbers."""
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(leaf)
            if jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.dtypes.prng_key)
            else leaf
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _assert_same(left, right):
    """Two trees are equal bit for bit (a NaN equals a NaN)."""
    ones, others = _leaves(left), _leaves(right)
    assert ones.keys() == others.keys()
    for path, leaf in ones.items():
        assert leaf.dtype == others[path].dtype, path
        np.testing.assert_array_equal(leaf, others[path], err_msg=path)


def _assert_near(left, right, tolerance=1e-5):
    """Two trees of numbers of order one are equal up to the reassociation of float32 sums."""
    ones, others = _leaves(left), _leaves(right)
    assert ones.keys() == others.keys()
    for path, leaf in ones.items():
        np.testing.assert_allclose(leaf, others[path], rtol=tolerance, atol=tolerance, err_msg=path)


@pytest.fixture(scope="session")
def jit():
    """``jax.jit``, quick to compile and slow to run: programs that run once, and of which nothing
    is asked bit for bit, are not worth optimising."""
    return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def same():
    return _assert_same


@pytest.fixture(scope="session")
def near():
    return _assert_near


def _population(sizes=SIZES, *, seed=0, unseen=None, clusters=CLUSTERS, targets=None):
    """Linear regressions 3 → 2, one matrix a cluster; client k has ``sizes[k]`` examples."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((2, 3, 2))

    def split(size, cluster):
        x = rng.standard_normal((size, 3))
        return {"x": x, "y": x @ truth[cluster] if targets is None else targets(x)}

    clients = [
        {"train": split(size, cluster), "test": split(1 + size % 3, cluster)}
        for size, cluster in zip(sizes, clusters, strict=True)
    ]
    traits = {"cluster": np.array(clusters)}
    return data.from_clients(clients, traits=traits, unseen=unseen)


@pytest.fixture(scope="session")
def make_population():
    return _population


@pytest.fixture(scope="session")
def population():
    """Five clients with 4, 1, 7, 4 and 7 examples, of the clusters 0, 1, 0, 1, 1."""
    return _population()


@pytest.fixture(scope="session")
def two_classes():
    """``(x [n, 3]) -> labels [n]``, targets for ``make_population``."""
    return lambda x: (x @ np.array([1.0, -1.0, 0.5]) > 0).astype(np.int32)


@pytest.fixture(scope="session")
def network():
    """A network 3 → 4 → 2 with ReLU: a linear one cannot tell mixed weights from mixed outputs."""
    return models.mlp(2, hidden=(4,))


@pytest.fixture(scope="session")
def adapt(population):
    """``(model) -> AdaptedModel`` with rank-1 kernels and additive biases."""

    def make(model, *, rank=1, kernel=".*kernel", bias=".*bias"):
        batch = simulate.sample_batch(population)
        params, _ = jax.eval_shape(model.init, jax.random.key(0), batch)
        rules = [
            adaptors.Rule(kernel, adaptors.low_rank(rank=rank)),
            adaptors.Rule(bias, adaptors.additive()),
        ]
        return adaptors.adapted(model, adaptors.make_plan(rules, params), batch)

    return make


def _remembering(make):
    """``make``, which gives the same settings the same object: a round is then compiled once."""
    made = {}

    def remember(*args, **options):
        try:
            key = (args, tuple(sorted(options.items())))
            hash(key)
        except TypeError:  # a setting that is a list, a data set, …
            return make(*args, **options)
        if key not in made:
            made[key] = make(*args, **options)
        return made[key]

    return remember


@pytest.fixture(scope="session")
def build(population, network, adapt):
    """``(name, **settings) -> algorithm``, on the shared network unless one is given.

    They learn regressions, ``of_classes`` two classes.
    """
    sgd = algorithms.local_solver(optax.sgd, learning_rate=0.1)
    parts = {
        "loss": losses.squared_error,
        "sample": simulate.sample_batch(population),
        "total_examples": sum(SIZES),
    }
    defaults = {"floral": {"num_adaptors": 2}, "ensemble": {"num_models": 2}}
    adapted = functools.cache(adapt)

    def make(name, *, model=network, local=sgd, mixing=None, of_classes=False, **options):
        mixing = mixtures.softmax() if mixing is None else mixing
        factory = getattr(algorithms, name)
        given = parts | {"model": model, "adapted": adapted(model), "local": local}
        given["mixing"] = mixing
        if of_classes:
            labels = np.zeros(2, np.int32)
            given |= {"loss": losses.cross_entropy, "sample": parts["sample"] | {"y": labels}}
        wiring = [
            given["adapted" if parameter.annotation is adaptors.AdaptedModel else wire]
            for wire, parameter in inspect.signature(factory).parameters.items()
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        ]
        return factory(*wiring, **defaults.get(name, {}) | options)

    return _remembering(make)


@pytest.fixture(scope="session")
def simulator(population, network):
    """``(algorithm, dataset=population, **settings) -> Simulator`` with batches of two, of the
    linear model unless another is given.

    On one device, unless a test asks for more: sums over devices are bit for bit the same only on
    as many of them.
    """

    def make(algorithm, dataset=None, *, model=network, **options):
        dataset = population if dataset is None else dataset
        options = {
            "metrics": {"loss": metrics.from_per_example(algorithm.loss or losses.squared_error)},
            "batching": data.batching(batch_size=2),
            "execution": simulate.execution(),
        } | options
        if options["execution"].devices is None:
            options["execution"] = options["execution"]._replace(devices=1)
        return simulate.make_simulator(algorithm, model, dataset, **options)

    return _remembering(make)


@pytest.fixture(scope="session")
def after():
    """``(simulator, rounds, key=0) -> state`` after so many rounds."""

    def run(simulator, rounds, seed=0, state=None):
        state = simulator.init(jax.random.key(seed)) if state is None else state
        for _ in range(rounds):
            state, _ = simulator.round(state)
        return state

    return run


@pytest.fixture(scope="session")
def add_run():
    """``(parent, name, seed, {method: last accuracy}, **settings) -> folder``: of a made-up run,
    whose accuracies rise from half of the last."""

    def add(parent, name, seed, methods, *, keep=1.0, rounds=4, agreement=None, **changes):
        source = {"source": {"kind": "mnist"}, "standardize": True}
        data = {**source, "shift": {"kind": "rotate"}, "keep": keep, "seed": seed}
        config = {"seed": seed, "rounds": rounds, "data": data, **changes}
        folder = parent / name
        folder.mkdir()
        for method, last in methods.items():
            place = folder / method
            place.mkdir()
            (place / "config.yaml").write_text(dump(config))
            (place / "summary.json").write_text(
                json.dumps({"seed": seed, "rounds": rounds, "seconds": 2.5})
            )
            lines = []
            for taken in range(1, rounds + 1):
                mean = last * (0.5 + 0.5 * taken / rounds)
                numbers = {"test": {"accuracy": {"mean": mean, "worst_decile": mean / 2}}}
                if agreement is not None:
                    numbers["mixture"] = {"agreement": agreement}
                lines.append(json.dumps({"round": taken, "evaluation": numbers}) + "\n")
            (place / "metrics.jsonl").write_text("".join(lines))
        whole = {**config, "compare": {name: {} for name in methods}}
        (folder / "config.yaml").write_text(dump(whole))
        return folder

    return add
