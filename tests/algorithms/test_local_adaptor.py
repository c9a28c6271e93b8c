import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floral import data

LAYERS = ("Dense_0", "Dense_1")
BASE = 3 * 4 + 4 + 4 * 2 + 2
ADAPTOR = (3 + 4) + 4 + (4 + 2) + 2  # rank one in each kernel, and additive biases
FULL = data.batching(batch_size=7, shuffle=False)


@pytest.fixture(scope="module")
def adapted_locally(build, simulator):
    return simulator(build("local_adaptor"), batching=FULL)


def test_the_first_round_is_the_one_worked_out_by_hand(adapted_locally, population, slope_of, near):
    """One full-batch step: b = 0 at the start, so a stands still and b moves along aᵀ G."""
    before = adapted_locally.init(jax.random.key(0))
    after, _ = adapted_locally.round(before)
    base = jax.tree.map(np.asarray, before.server.base)
    ends, sizes = [], []
    for client in range(population.num_clients):
        batch = population.client(client)["train"]
        slope = slope_of(base, batch)
        row = jax.tree.map(lambda leaf: leaf[client, 0], after.table["client"]["bank"])  # noqa: B023
        for layer in LAYERS:
            kernel, bias = f"params/{layer}/kernel", f"params/{layer}/bias"
            a = np.asarray(before.server.bank[kernel]["a"][0])
            near(row[kernel]["a"], a)
            near(row[kernel]["b"], np.float32(-0.1 * a @ slope["params"][layer]["kernel"]))
            near(row[bias]["offset"], np.float32(-0.1 * slope["params"][layer]["bias"]))
        ends.append(jax.tree.map(lambda v, g: v - 0.1 * g, base, slope))
        sizes.append(len(batch["x"]))
    mean = jax.tree.map(
        lambda *leaves: np.average(leaves, axis=0, weights=sizes).astype(np.float32), *ends
    )
    near(after.server.base, mean)


def test_the_bank_is_private_and_the_servers_never_moves(adapted_locally, after, same):
    start = adapted_locally.init(jax.random.key(0))
    end = after(adapted_locally, 3)
    same(end.server.bank, start.server.bank)
    rows = np.asarray(end.table["client"]["bank"]["params/Dense_1/kernel"]["b"])[:, 0, 0, 0]
    assert len(np.unique(rows)) == 5


def test_only_the_base_is_uploaded(adapted_locally):
    assert adapted_locally.costs.uploaded_parameters == BASE
    assert adapted_locally.costs.upload_bytes == 4 * (BASE + 1)
    assert adapted_locally.costs.client_state_bytes >= 4 * ADAPTOR


def test_every_adaptor_counts_whole(adapted_locally, after, outputs_of, near):
    state = after(adapted_locally, 2)
    row = jax.tree.map(lambda leaf: leaf[3, 0], state.table["client"]["bank"])
    merged = adapted_locally.export(state, 3)
    for layer in LAYERS:
        dense, own = state.server.base["params"][layer], merged["params"][layer]
        pair = row[f"params/{layer}/kernel"]
        near(own["kernel"], dense["kernel"] + pair["a"].T @ pair["b"])
        near(own["bias"], dense["bias"] + row[f"params/{layer}/bias"]["offset"])
    x = jnp.ones((2, 3))
    near(adapted_locally.predict(state, 3, x), outputs_of(merged, x))


def test_it_reports_no_mixture(adapted_locally):
    assert "mixture" not in adapted_locally.evaluate(adapted_locally.init(jax.random.key(0)))
