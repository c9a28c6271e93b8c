import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import data

KERNEL, BIAS = "params/Dense_0/kernel", "params/Dense_0/bias"
FULL = data.batching(batch_size=7, shuffle=False)


@pytest.fixture(scope="module")
def adapted_locally(build, simulator):
    return simulator(build("local_adaptor"), batching=FULL)


def test_the_first_round_is_the_one_worked_out_by_hand(adapted_locally, population, near):
    """One full-batch step: b = 0 at the start, so a stands still and b moves along aᵀ G."""
    before = adapted_locally.init(jax.random.key(0))
    after, _ = adapted_locally.round(before)
    dense = jax.tree.map(np.asarray, before.server.base["params"]["Dense_0"])
    a = np.asarray(before.server.bank[KERNEL]["a"][0])
    ends, sizes = [], []
    for client in range(population.num_clients):
        batch = population.client(client)["train"]
        error = batch["x"] @ dense["kernel"] + dense["bias"] - batch["y"]
        slope = {"kernel": 2 / error.size * batch["x"].T @ error}
        slope["bias"] = 2 / error.size * error.sum(axis=0)
        row = jax.tree.map(lambda leaf: leaf[client, 0], after.table["client"]["bank"])  # noqa: B023
        near(row[KERNEL]["a"], a)
        near(row[KERNEL]["b"], np.float32(-0.1 * a @ slope["kernel"]))
        near(row[BIAS]["offset"], np.float32(-0.1 * slope["bias"]))
        ends.append(jax.tree.map(lambda v, g: v - 0.1 * g, dense, slope))
        sizes.append(len(error))
    mean = jax.tree.map(
        lambda *leaves: np.average(leaves, axis=0, weights=sizes).astype(np.float32), *ends
    )
    near(after.server.base["params"]["Dense_0"], mean)


def test_the_bank_is_private_and_the_servers_never_moves(adapted_locally, after, same):
    start = adapted_locally.init(jax.random.key(0))
    end = after(adapted_locally, 3)
    same(end.server.bank, start.server.bank)
    rows = np.asarray(end.table["client"]["bank"][KERNEL]["b"])[:, 0, 0, 0]
    assert len(np.unique(rows)) == 5


def test_only_the_base_is_uploaded(adapted_locally):
    assert adapted_locally.costs.uploaded_parameters == 8
    assert adapted_locally.costs.upload_bytes == 4 * (8 + 1)
    assert adapted_locally.costs.client_state_bytes >= 4 * (3 + 2 + 2)


def test_every_adaptor_counts_whole(adapted_locally, after, near):
    state = after(adapted_locally, 2)
    row = jax.tree.map(lambda leaf: leaf[3, 0], state.table["client"]["bank"])
    dense = state.server.base["params"]["Dense_0"]
    merged = adapted_locally.export(state, 3)["params"]["Dense_0"]
    near(merged["kernel"], dense["kernel"] + row[KERNEL]["a"].T @ row[KERNEL]["b"])
    near(merged["bias"], dense["bias"] + row[BIAS]["offset"])
    x = jnp.ones((2, 3))
    near(
        adapted_locally.predict(state, 3, x),
        x @ merged["kernel"] + jnp.broadcast_to(merged["bias"], (2, 2)),
    )


def test_it_reports_no_mixture(adapted_locally):
    assert "mixture" not in adapted_locally.evaluate(adapted_locally.init(jax.random.key(0)))
