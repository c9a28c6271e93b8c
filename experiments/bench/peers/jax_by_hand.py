"""The task written by hand in JAX, with no toolkit: how fast this machine can go through XLA.

Every core is a device of its own (``--xla_force_host_platform_device_count``) and XLA's operations
stay on one thread: clients are spread over devices, not products over threads.

MLP: one compiled call a round. Under ``shard_map``, each device scans over its share of the cohort
with the weighted sum of the models in the carry; the model's buffers are donated.

CNN: XLA's convolutions are slow inside a loop on the CPU, so there is none: the three steps are
unrolled in one compiled call for a client, which also adds his model to the device's sum, a donated
buffer; the host hands clients to the devices in turn and nothing waits until the round's end. The
max-pool is the largest of four strided slices, whose gradient is far cheaper than that of
``reduce_window``, and comes before the bias and the ReLU, which commute with it.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from protocol import Task, Work, pinned, serve

BATCH, LEARNING_RATE = 20, 0.1
TOGETHER = 10  # clients evaluated in one call


def dense(weights, layer, x):
    return x @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"]


def pooled_convolution(weights, layer, x):
    """ReLU and max-pool of a convolution: [B, H, W, I] -> [B, H / 2, W / 2, O]."""
    y = jax.lax.conv_general_dilated(
        x,
        weights[f"{layer}/kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    rows = jnp.maximum(y[:, ::2], y[:, 1::2])
    largest = jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])
    return jax.nn.relu(largest + weights[f"{layer}/bias"])


def mlp(weights, x):
    return dense(weights, "dense_1", jax.nn.relu(dense(weights, "dense_0", x)))


def cnn(weights, x):
    h = pooled_convolution(weights, "conv_0", x)
    h = pooled_convolution(weights, "conv_1", h)
    h = jax.nn.relu(dense(weights, "dense_0", h.reshape(h.shape[0], -1)))
    return dense(weights, "dense_1", h)


def local(model: Callable[..., Any], weights, x, y):
    """A client's model after its epoch, and the mean loss before each step."""

    def loss(weights, x, y):
        logs = jax.nn.log_softmax(model(weights, x))
        return -jnp.mean(jnp.take_along_axis(logs, y[:, None], axis=1))

    total = jnp.zeros(())
    for start in range(0, x.shape[0], BATCH):
        batch = x[start : start + BATCH], y[start : start + BATCH]
        value, gradient = jax.value_and_grad(loss)(weights, *batch)
        weights = jax.tree.map(lambda w, g: w - LEARNING_RATE * g, weights, gradient)
        total += value
    return weights, total * BATCH / x.shape[0]


def accumulate(model, total, weights, x, y):
    """The running sums of weighted models and losses, with one client more."""
    own, loss = local(model, weights, x, y)
    samples = x.shape[0]
    return jax.tree.map(lambda t, w: t + samples * w, total, (own, loss))


def zeros(weights):
    return jax.tree.map(jnp.zeros_like, weights), jnp.zeros(())


def start_mlp(task: Task) -> Work:
    mesh = Mesh(np.array(jax.devices()), ("core",))
    everywhere, shared = PartitionSpec(), PartitionSpec("core")
    flat = task.x.reshape(*task.x.shape[:2], -1)
    x, y, weights = jax.device_put((flat, task.y, task.weights), NamedSharding(mesh, everywhere))

    def take_round(weights, x, y, cohort):
        def step(total, client):
            return accumulate(mlp, total, weights, x[client], y[client]), None

        total, _ = jax.lax.scan(step, zeros(weights), cohort)
        samples = x.shape[1] * cohort.size * mesh.size
        return jax.tree.map(lambda t: jax.lax.psum(t, "core") / samples, total)

    compiled = jax.jit(
        jax.shard_map(
            take_round,
            mesh=mesh,
            in_specs=(everywhere, everywhere, everywhere, shared),
            out_specs=everywhere,
            check_vma=False,
        ),
        donate_argnums=0,
    )
    place = NamedSharding(mesh, shared)

    def one_round(cohort: np.ndarray) -> float:
        nonlocal weights
        weights, loss = compiled(weights, x, y, jax.device_put(cohort, place))
        jax.block_until_ready(weights)
        return float(loss)

    compiled_accuracies = jax.jit(partial(accuracies, mlp))

    def evaluate_all() -> np.ndarray:
        shards = zip(*(shards_of(tree) for tree in (weights, x, y)), strict=True)
        return evaluate(compiled_accuracies, list(shards))

    return Work(one_round, evaluate_all)


def shards_of(tree) -> list[Any]:
    """What each device holds of arrays that all of them hold."""
    shards = jax.tree.map(lambda a: [shard.data for shard in a.addressable_shards], tree)
    treedef = jax.tree.structure(tree)
    return [
        jax.tree.unflatten(treedef, leaves)
        for leaves in zip(*treedef.flatten_up_to(shards), strict=True)
    ]


def start_cnn(task: Task) -> Work:
    devices = jax.devices()
    data = [jax.device_put((task.x, task.y), device) for device in devices]
    weights = jax.device_put(task.weights, devices[0])
    samples = task.x.shape[1] * task.cohorts.shape[1]
    begin = jax.jit(zeros)

    def add_client(total, weights, x, y, client):
        return accumulate(cnn, total, weights, x[client], y[client])

    add_client = jax.jit(add_client, donate_argnums=0)

    @jax.jit
    def mean(totals):
        return jax.tree.map(lambda *parts: sum(parts) / samples, *totals)

    def one_round(cohort: np.ndarray) -> float:
        nonlocal weights
        copies = [jax.device_put(weights, device) for device in devices]
        totals = [begin(copy) for copy in copies]
        for turn, client in enumerate(cohort):
            core = turn % len(devices)
            x, y = data[core]
            totals[core] = add_client(totals[core], copies[core], x, y, client)
        weights, loss = jax.block_until_ready(mean(jax.device_put(totals, devices[0])))
        return float(loss)

    compiled_accuracies = jax.jit(partial(accuracies, cnn))

    def evaluate_all() -> np.ndarray:
        copies = [(jax.device_put(weights, d), *own) for d, own in zip(devices, data, strict=True)]
        return evaluate(compiled_accuracies, copies)

    return Work(one_round, evaluate_all)


def accuracies(model, weights, x, y, first):
    """The accuracy of one model on each of a few clients in a row."""
    x = jax.lax.dynamic_slice_in_dim(x, first, TOGETHER)
    y = jax.lax.dynamic_slice_in_dim(y, first, TOGETHER)
    outputs = model(weights, x.reshape(-1, *x.shape[2:])).reshape(*y.shape, -1)
    return jnp.mean(outputs.argmax(-1) == y, axis=1)


def evaluate(compiled: Callable[..., Any], copies: list[Any]) -> np.ndarray:
    """The accuracy [K] on every client's examples; ``copies``: weights, x and y on each core."""
    num_clients = copies[0][1].shape[0]
    parts = []
    for turn, first in enumerate(range(0, num_clients, TOGETHER)):
        weights, x, y = copies[turn % len(copies)]
        parts.append(compiled(weights, x, y, first))
    return np.concatenate([np.asarray(part) for part in parts])


if __name__ == "__main__":
    arguments = pinned()
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={arguments.cores}"
        " --xla_cpu_multi_thread_eigen=false"
    )
    jax.config.update("jax_platforms", "cpu")
    serve(arguments, {"mlp": start_mlp, "cnn": start_cnn}[arguments.model], ("jax", "jaxlib"))
