"""IFCA and FedEM: several whole models, chosen or shared by their losses."""

import jax
import numpy as np

from floral import data

FULL = data.batching(batch_size=7, shuffle=False)


def _models(state):
    return jax.tree.map(np.array, state.server.models)


def _one(models, c):
    return jax.tree.map(lambda leaf: leaf[c], models)


def _losses(outputs_of, models, batch):
    """[C, n], of every model on every example."""
    return np.stack(
        [
            np.square(outputs_of(_one(models, c), batch["x"]) - batch["y"]).mean(axis=1)
            for c in (0, 1)
        ]
    )


def _stepped(slope_of, model, batch, shares=None):
    """The model after one step on the mean of its losses, each example by its share."""
    return jax.tree.map(lambda v, g: v - 0.1 * g, model, slope_of(model, batch, shares))


def _put_average(models, c, ends, weights):
    def put(leaf, *values):
        leaf[c] = np.average(values, axis=0, weights=weights)

    jax.tree.map(put, models, *ends)


def test_ifca_is_the_algorithm_written_out(
    build, simulator, population, outputs_of, slope_of, near
):
    """Everyone chooses the model of least loss and takes its step; each model is averaged over
    those that chose it."""
    sim = simulator(build("ifca", num_models=2), batching=FULL)
    state, models = sim.init(jax.random.key(0)), None
    sizes, seen = population.splits["train"].sizes, set()
    for _ in range(3):
        models, ends, chosen = _models(state), [], []
        for client in range(5):
            batch = population.client(client)["train"]
            chosen.append(int(np.argmin(_losses(outputs_of, models, batch).mean(axis=1))))
            ends.append(_stepped(slope_of, _one(models, chosen[-1]), batch))
        for c in set(chosen):
            members = [client for client in range(5) if chosen[client] == c]
            _put_average(models, c, [ends[k] for k in members], sizes[members])
        state, _ = sim.round(state)
        near(_models(state), models)
        np.testing.assert_array_equal(sim.evaluate(state)["mixture"], np.eye(2)[chosen])
        seen |= set(chosen)
    assert seen == {0, 1}


def test_fedem_is_the_algorithm_written_out(
    build, simulator, population, outputs_of, slope_of, near
):
    sim = simulator(build("fedem", num_models=2), batching=FULL)
    state = sim.init(jax.random.key(0))
    sizes, mixtures = population.splits["train"].sizes, np.full((5, 2), 0.5)
    for _ in range(3):
        models, ends = _models(state), []
        for client in range(5):
            batch = population.client(client)["train"]
            likely = np.exp(-_losses(outputs_of, models, batch))
            shares = mixtures[client][:, None] * likely  # [C, n]
            shares = np.float32(shares / shares.sum(axis=0))
            mixtures[client] = shares.mean(axis=1)
            ends.append([_stepped(slope_of, _one(models, c), batch, shares[c]) for c in (0, 1)])
        for c in (0, 1):
            _put_average(models, c, [end[c] for end in ends], sizes)
        state, _ = sim.round(state)
        near(_models(state), models)
        near(sim.evaluate(state)["mixture"], np.float32(mixtures))
    assert np.ptp(mixtures[:, 0]) > 0.1


def test_fedem_of_one_model_is_fedavg(build, simulator, after, near):
    state = after(simulator(build("fedem", num_models=1)), 3)
    average = after(simulator(build("fedavg")), 3)
    near(jax.tree.map(lambda leaf: leaf[0], state.server.models), average.server.params)
