"""Params of every width of number train under every walk; a round keeps all dtypes it carries.

Rounds are traced, not compiled: a loop whose carry changes its dtype fails while it is traced.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from floral import mixtures, simulate
from floral.models import Model

WALKS = {
    "side by side": {"walk": "vmap"},
    "chunks": {"walk": "chunk", "chunk": 2},
    "one by one": {"walk": "scan"},
    "two devices": {"walk": "chunk", "chunk": 2, "devices": 2},
}
KINDS = {
    "bfloat16": lambda path: jnp.bfloat16,
    "float16": lambda path: jnp.float16,
    "mixed": lambda path: jnp.bfloat16 if "kernel" in str(path) else jnp.float32,
    "narrow and wide": lambda path: jnp.float64 if "kernel" in str(path) else jnp.bfloat16,
}


@pytest.fixture(scope="module")
def narrow(network):
    """``(kind) -> model`` whose params have the dtypes of that kind; the same model each time."""

    def make(kind):
        def init(key, batch):
            params, stats = network.init(key, batch)
            cast = jax.tree_util.tree_map_with_path(
                lambda path, leaf: leaf.astype(KINDS[kind](path)), params
            )
            return cast, stats

        return Model(init, network.apply, network.features)

    made = {kind: make(kind) for kind in KINDS}
    return made.__getitem__


@pytest.fixture
def traced(named, build, simulator, make_population, two_classes, narrow):
    """``(kind, walk) -> (structs of a state, of the state after a round, of its metrics)``."""

    def trace(kind, walk):
        name, settings = named
        of_classes = settings.get("of_classes", False)
        model = narrow(kind)
        sim = simulator(
            build(name, model=model, **settings),
            make_population(targets=two_classes if of_classes else None),
            model=model,
            execution=simulate.execution(**WALKS[walk]),
            metrics={},
        )
        state = jax.eval_shape(sim.init, jax.random.key(0))
        after, metrics = sim.lower(state).out_info
        return state, after, metrics

    return trace


def _dtypes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)


@pytest.mark.parametrize(
    ("kind", "walk"), [("bfloat16", "chunks"), ("float16", "two devices"), ("mixed", "one by one")]
)
def test_a_round_keeps_the_dtypes_of_all_it_carries(traced, kind, walk):
    state, after, metrics = traced(kind, walk)
    assert _dtypes(after) == _dtypes(state)
    assert metrics["loss_sum"].dtype == jnp.float32
    assert metrics["examples"].dtype == jnp.int32


@pytest.mark.skipif(
    not jax.config.jax_enable_x64, reason="asked with 64 bits in a process of its own"
)
def test_with_64_bits_a_round_keeps_them_too(traced):
    state, after, _ = traced("narrow and wide", "chunks")
    assert _dtypes(after) == _dtypes(state)


@pytest.mark.skipif(
    not jax.config.jax_enable_x64, reason="asked with 64 bits in a process of its own"
)
@pytest.mark.parametrize(
    "mixing",
    [
        mixtures.exponential_weights(balance=0.5, settle=9),
        mixtures.responsibilities(),
        mixtures.discriminants(size=8, survey_rounds=1, group_rounds=1, cells=8, starts=2),
    ],
    ids=["exponential weights", "responsibilities", "discriminants"],
)
def test_with_64_bits_a_round_keeps_those_of_every_mixing(build, simulator, mixing):
    sim = simulator(build("floral", mixing=mixing), execution=simulate.execution(**WALKS["chunks"]))
    state = jax.eval_shape(sim.init, jax.random.key(0))
    after, _ = sim.lower(state).out_info
    assert _dtypes(after) == _dtypes(state)


def test_with_64_bits_every_algorithm_trains(request):
    """The tests above, in a process in which JAX has 64 bits."""
    chosen = "test_with_64_bits_a_round_keeps"
    options = ["-n", "0", "-p", "no:cacheprovider", "-k", chosen]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, __file__],
        env={**os.environ, "JAX_ENABLE_X64": "1"},
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
