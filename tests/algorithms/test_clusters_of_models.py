"""IFCA and FedEM: several whole models, chosen or shared by their losses."""

import jax
import numpy as np

from floral import data

FULL = data.batching(batch_size=7, shuffle=False)


def _models(state):
    return jax.tree.map(np.array, state.server.models["params"]["Dense_0"])


def _errors(models, batch):
    """[C, n, 2]."""
    return np.stack(
        [batch["x"] @ models["kernel"][c] + models["bias"][c] - batch["y"] for c in (0, 1)]
    )


def _stepped(models, c, batch, error, shares=1.0):
    """Model c after one step on the mean of its losses, each example by its share."""
    slope = 2 / error.size * (np.broadcast_to(shares, len(error))[:, None] * error)
    return {
        "kernel": models["kernel"][c] - 0.1 * batch["x"].T @ slope,
        "bias": models["bias"][c] - 0.1 * slope.sum(axis=0),
    }


def test_ifca_is_the_algorithm_written_out(build, simulator, population, near):
    """Everyone chooses the model of least loss and takes its step; each model is averaged over
    those that chose it."""
    sim = simulator(build("ifca", num_models=2), batching=FULL)
    state, models = sim.init(jax.random.key(0)), None
    sizes, seen = population.splits["train"].sizes, set()
    for _ in range(3):
        models, ends, chosen = _models(state), [], []
        for client in range(5):
            batch = population.client(client)["train"]
            errors = _errors(models, batch)
            chosen.append(int(np.argmin(np.square(errors).mean(axis=(1, 2)))))
            ends.append(_stepped(models, chosen[-1], batch, errors[chosen[-1]]))
        for c in set(chosen):
            members = [client for client in range(5) if chosen[client] == c]
            for name, leaf in models.items():
                leaf[c] = np.average(
                    [ends[k][name] for k in members], axis=0, weights=sizes[members]
                )
        state, _ = sim.round(state)
        near(_models(state), models)
        np.testing.assert_array_equal(sim.evaluate(state)["mixture"], np.eye(2)[chosen])
        seen |= set(chosen)
    assert seen == {0, 1}


def test_fedem_is_the_algorithm_written_out(build, simulator, population, near):
    sim = simulator(build("fedem", num_models=2), batching=FULL)
    state = sim.init(jax.random.key(0))
    sizes, mixtures = population.splits["train"].sizes, np.full((5, 2), 0.5)
    for _ in range(3):
        models, ends = _models(state), []
        for client in range(5):
            batch = population.client(client)["train"]
            errors = _errors(models, batch)
            shares = mixtures[client][:, None] * np.exp(-np.square(errors).mean(axis=2))  # [C, n]
            shares = shares / shares.sum(axis=0)
            mixtures[client] = shares.mean(axis=1)
            ends.append([_stepped(models, c, batch, errors[c], shares[c]) for c in (0, 1)])
        for name, leaf in models.items():
            for c in (0, 1):
                leaf[c] = np.average([end[c][name] for end in ends], axis=0, weights=sizes)
        state, _ = sim.round(state)
        near(_models(state), models)
        near(sim.evaluate(state)["mixture"], np.float32(mixtures))
    assert np.ptp(mixtures[:, 0]) > 0.1


def test_fedem_of_one_model_is_fedavg(build, simulator, after, near):
    state = after(simulator(build("fedem", num_models=1)), 3)
    average = after(simulator(build("fedavg")), 3)
    near(jax.tree.map(lambda leaf: leaf[0], state.server.models), average.server.params)
