"""What the tests of single models share."""

import jax
import pytest


@pytest.fixture(scope="session")
def init(jit):
    """``(model, batch, seed=0) -> (params, stats)``."""
    return lambda model, batch, seed=0: jit(model.init)(jax.random.key(seed), batch)
