"""A state comes back as it was saved, or not at all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from floral.errors import ConfigError
from floral.records import checkpoint
from floral.simulate import SimulationState


class Server(NamedTuple):
    base: dict
    optimizer: tuple


def state_of(key):
    base = {"Dense_0/kernel": jnp.arange(6.0).reshape(2, 3), "half": jnp.ones(2, jnp.bfloat16)}
    table = {"client": {"mixture": jnp.ones((4, 2))}, "uplink": ()}
    server = Server(base, optax.chain(optax.clip(1.0), optax.adam(0.1)).init(base))
    return SimulationState(jnp.asarray(3, jnp.int32), key, server, table, ())


@pytest.fixture
def state():
    return state_of(jax.random.key(7))


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_a_state_comes_back_as_it_was_saved(kind, tmp_path, same):
    state = state_of(jax.random.key(7, impl=kind))
    checkpoint.save(tmp_path, state, keep=1)
    struct = jax.eval_shape(lambda: state)
    found = checkpoint.restore(tmp_path, checkpoint.latest_round(tmp_path), struct)
    same(found, state)
    assert jax.random.key_impl(found.key) == jax.random.key_impl(state.key)
    assert jax.tree.structure(found) == jax.tree.structure(state)


def saved_otherwise(folder, state, **changes):
    """A checkpoint of the state with fields in a form of their own; None leaves one out."""
    fields = jax.tree.map(checkpoint._on_host, state._replace(uplink=None)._asdict() | changes)
    held = {name: value for name, value in fields.items() if jax.tree.leaves(value)}
    with checkpoint._manager(folder) as manager:
        manager.save(3, args=ocp.args.StandardSave(held), force=True)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda words: None, r"key: nothing is saved, not uint32\[2\]"),
        (lambda words: words.astype(np.float32), r"key: float32\[2\] is saved, not uint32\[2\]"),
        (lambda words: words.astype(np.uint64), r"key: uint64\[2\] is saved, not uint32\[2\]"),
        (lambda words: np.tile(words, 2), r"key: uint32\[4\] is saved, not uint32\[2\]"),
        (lambda words: words[None], r"key: uint32\[1, 2\] is saved, not uint32\[2\]"),
        (lambda words: {"data": words}, r"key: nothing is saved, not uint32\[2\]"),
    ],
    ids=["none", "floats", "64 bits", "another generator's", "with an axis", "deeper"],
)
def test_a_random_key_in_another_form_is_refused(form, said, state, tmp_path):
    """As another version of floral or JAX may have left it: a key that was cast would go on with
    other numbers."""
    saved_otherwise(tmp_path, state, key=form(np.asarray(jax.random.key_data(state.key))))
    struct = jax.eval_shape(lambda: state)
    with pytest.raises(ConfigError, match=rf"/3: the checkpoint is .* version \({said}\); delete"):
        checkpoint.restore(tmp_path, 3, struct)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"half": jnp.ones(2)}, r"server/base/half: float32\[2\] is saved, not bfloat16\[2\]"),
        ({"new": jnp.ones(2)}, r"server/base/new: float32\[2\] is saved, not nothing"),
    ],
    ids=["dtype", "name"],
)
def test_a_server_in_another_form_is_refused(base, said, state, tmp_path):
    server = state.server._replace(base=state.server.base | base)
    saved_otherwise(tmp_path, state, server=server)
    with pytest.raises(ConfigError, match=said):
        checkpoint.restore(tmp_path, 3, state)
