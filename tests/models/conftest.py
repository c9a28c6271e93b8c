"""What the tests of single models share: programs that run once are not worth optimising."""

import functools

import jax
import pytest

_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def jit():
    """``jax.jit``, quick to compile and slow to run."""
    return _jit


@pytest.fixture(scope="session")
def init():
    """``(model, batch, seed=0) -> (params, stats)``."""
    return lambda model, batch, seed=0: _jit(model.init)(jax.random.key(seed), batch)
