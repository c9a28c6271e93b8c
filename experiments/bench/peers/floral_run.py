"""The task in this toolkit, as a user would run it: a model, an algorithm, a simulator.

JAX is set up as the command line does it (``floral.processes.startup``), but without the
compilation cache, so that the first round is a cold one; ``--warm`` keeps compilations in a folder
of its own.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from protocol import Task, Work, pinned, serve

CLASSES = 10
LAYERS = {
    "mlp": {"dense_0": "Dense_0", "dense_1": "Dense_1"},
    "cnn": {"conv_0": "Conv_0", "conv_1": "Conv_1", "dense_0": "Dense_0", "dense_1": "Dense_1"},
}


def start(task: Task, model_name: str) -> Work:
    import jax
    import optax

    import floral as fl

    clients = [{"train": {"x": x, "y": y}} for x, y in zip(task.x, task.y, strict=True)]
    dataset = fl.data.from_clients(clients, num_classes=CLASSES)
    if model_name == "mlp":
        model = fl.models.mlp(CLASSES, hidden=(200,))
    else:
        model = fl.models.cnn(
            CLASSES, channels=(32, 64), kernels=(5, 5), pools=(2, 2), padding="SAME", hidden=(512,)
        )
    local = fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)
    simulator = fl.simulate.make_simulator(
        fl.algorithms.fedavg(model, fl.losses.cross_entropy, local),
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        cohort=fl.simulate.scheduled(task.cohorts),
        batching=fl.data.batching(batch_size=20, shuffle=SHUFFLE),
        donate=True,
    )
    names = LAYERS[model_name]
    params = {
        "params": {
            layer: {leaf: task.weights[f"{name}/{leaf}"] for leaf in ("kernel", "bias")}
            for name, layer in names.items()
        }
    }
    state = simulator.init(jax.random.key(0), params)

    def one_round(cohort: np.ndarray) -> float:
        nonlocal state
        state, metrics = simulator.round(state)
        jax.block_until_ready(state)
        return float(metrics["loss_sum"]) / int(metrics["examples"])

    def evaluate() -> np.ndarray:
        return simulator.evaluate(state, "train")["accuracy"]

    return Work(one_round, evaluate)


if __name__ == "__main__":
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--shuffle", action="store_true")
    own.add_argument("--warm", type=Path)
    mine, others = own.parse_known_args()
    sys.argv[1:] = others
    SHUFFLE = mine.shuffle
    settings = pinned()
    from floral.processes.startup import prepare_jax

    os.environ["JAX_COMPILATION_CACHE_DIR"] = "" if mine.warm is None else str(mine.warm)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    prepare_jax(os.environ, cores=settings.cores)
    serve(settings, lambda task: start(task, settings.model), ("floral", "jax", "jaxlib"))
