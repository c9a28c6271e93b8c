"""The task in fedjax: its own ``federated_averaging`` on its own datasets, batches in stored order.

fedjax 0.0.17 was written for JAX of 2023; 0.4.30 is a late one that it runs on unchanged. Of its
backends for clients, ``jit`` runs one after another, a compiled call for every step, and ``pmap``
one client a device side by side, with masks. ``jit`` is what is measured: on the MLP it was
the faster, on one core clearly (0.09 s against 0.20), on two by less; on the CNN, on two cores, the
two were within the noise of a busy machine, and one core was not tried.
fedjax does not report a loss: it is found for a check by stepping through the cohort once more,
outside the time.
"""

# pyright: reportMissingImports=false, reportCallIssue=false, reportArgumentType=false
# fedjax's own dataclasses hide their constructors, and its clients' ids may be more than bytes.

from collections import OrderedDict

import fedjax
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg
from protocol import Task, Work, pinned, serve

BATCH, LEARNING_RATE = 20, 0.1


def dense(params, layer, x):
    return x @ params[f"{layer}/kernel"] + params[f"{layer}/bias"]


def pooled_convolution(params, layer, x):
    y = jax.lax.conv_general_dilated(
        x, params[f"{layer}/kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    active = jax.nn.relu(y + params[f"{layer}/bias"])
    rows = jnp.maximum(active[:, ::2], active[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def mlp(params, x):
    return dense(params, "dense_1", jax.nn.relu(dense(params, "dense_0", x)))


def cnn(params, x):
    h = pooled_convolution(params, "conv_1", pooled_convolution(params, "conv_0", x))
    h = jax.nn.relu(dense(params, "dense_0", h.reshape(h.shape[0], -1)))
    return dense(params, "dense_1", h)


def make_model(network, weights) -> fedjax.Model:
    return fedjax.Model(
        init=lambda rng: weights,
        apply_for_train=lambda params, batch, rng: network(params, batch["x"]),
        apply_for_eval=lambda params, batch: network(params, batch["x"]),
        train_loss=lambda batch, outputs: fedjax.metrics.unreduced_cross_entropy_loss(
            batch["y"], outputs
        ),
        eval_metrics=OrderedDict(accuracy=fedjax.metrics.Accuracy()),
    )


def start(task: Task, name: str) -> Work:
    x = task.x.reshape(*task.x.shape[:2], -1) if name == "mlp" else task.x
    datasets = [fedjax.ClientDataset({"x": x[i], "y": task.y[i]}) for i in range(len(x))]
    model = make_model({"mlp": mlp, "cnn": cnn}[name], task.weights)
    in_order = fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=1, skip_shuffle=True)
    grad = fedjax.model_grad(model)
    algorithm = fed_avg.federated_averaging(
        grad, fedjax.optimizers.sgd(LEARNING_RATE), fedjax.optimizers.sgd(1.0), in_order
    )
    evaluator = fedjax.ModelEvaluator(model)
    state = algorithm.init(jax.tree_util.tree_map(jnp.asarray, task.weights))
    keys = jax.random.split(jax.random.PRNGKey(0), len(datasets))

    def one_round(cohort: np.ndarray) -> None:
        nonlocal state
        clients = [(int(client), datasets[client], keys[client]) for client in cohort]
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)

    def evaluate() -> np.ndarray:
        batches = fedjax.PaddedBatchHParams(batch_size=task.x.shape[1])
        clients = [(i, dataset.padded_batch(batches)) for i, dataset in enumerate(datasets)]
        found = dict(evaluator.evaluate_global_params(state.params, clients))
        return np.array([found[i]["accuracy"] for i in range(len(datasets))])

    @jax.jit
    def step(params, batch):
        outputs = model.apply_for_train(params, batch, None)
        moved = grad(params, batch, keys[0])
        loss = jnp.mean(model.train_loss(batch, outputs))
        return jax.tree_util.tree_map(lambda p, g: p - LEARNING_RATE * g, params, moved), loss

    def loss(cohort: np.ndarray) -> float:
        losses = []
        for client in cohort:
            params = state.params
            for batch in datasets[client].shuffle_repeat_batch(in_order):
                params, value = step(params, batch)
                losses.append(value)
        return float(np.mean(losses))

    return Work(one_round, evaluate, loss)


if __name__ == "__main__":
    settings = pinned()
    jax.config.update("jax_platforms", "cpu")
    with fedjax.for_each_client_backend("jit"):
        serve(settings, lambda task: start(task, settings.model), ("fedjax", "jax", "jaxlib"))
