"""One point of ``scaling.py``: a method, a model and a population, measured in a fresh process.

    python experiments/bench/scaling_point.py '{"method": "floral", "clients": 1000}'

Prints one JSON line. Several processes that share a point are told of one another by the
environment (``JAX_NUM_PROCESSES`` and its like); all measure, the first prints.
"""

import json
import os
import statistics
import sys
import time
from typing import Any

from process_memory import memory

__all__ = ["POINT", "expected", "measure"]

POINT = {
    "method": "floral",
    "model": "mlp",
    "width": 200,
    "clients": 1000,
    "cohort": 100,
    "adaptors": 4,
    "rank": 0.01,
    "batch": 20,
    "samples": 20,
    "processes": 1,
    "devices": 0,
    "in_memory": False,
    "rounds": 20,
}
"""What a point is but for what it states; devices 0 is one a core."""


def dataset_of(point: dict[str, Any]) -> Any:
    """Images that are made when they are read, or, to leave that out, arrays in memory."""
    import numpy as np

    import floral as fl

    clients, samples = point["clients"], point["samples"]
    if not point["in_memory"]:
        return fl.data.synthetic_population(clients=clients, train=samples, test=0, clusters=4)
    rng = np.random.default_rng(0)
    images = rng.random((clients * samples, 28, 28, 1), np.float32)
    source = fl.data.arrays(images, rng.integers(0, 10, clients * samples))
    return fl.data.federate(source, partition=fl.data.iid(clients=clients))


def model_of(point: dict[str, Any]) -> Any:
    """The model of a point, for images of 28 x 28 (the ResNet and the ViT as for 32 x 32)."""
    import floral as fl

    match point["model"]:
        case "mlp":
            return fl.models.mlp(10, hidden=(point["width"],))
        case "cnn":  # FedAvg's own
            return fl.models.cnn(
                10, channels=(32, 64), kernels=(5, 5), pools=(2, 2), padding="SAME", hidden=(512,)
            )
        case "small cnn":  # FLoRAL's own
            return fl.models.cnn(10)
        case "resnet18":
            return fl.models.resnet(10)
        case "vit tiny":
            return fl.models.vit(10)
        case other:
            raise ValueError(f"no model is called {other!r}")


def algorithm_of(point: dict[str, Any], model: Any, dataset: Any) -> Any:
    """FedAvg, or FLoRAL with adaptors of every kernel, bias and scale."""
    import algorithms

    if point["method"] == "fedavg":
        return algorithms.fedavg(model)
    return algorithms.floral(
        algorithms.adapt(model, dataset, budget=point["rank"]),
        num_adaptors=point["adaptors"],
        stateful=point["method"] == "floral",
    )


def measure(point: dict[str, Any]) -> dict[str, float]:
    """One point, measured in this process, which has done nothing else."""
    from floral.processes.startup import join_processes, partners, prepare_jax, usable_cores

    found = partners(os.environ)
    prepare_jax(
        os.environ, cores=point["devices"] or usable_cores(), alone=not (found or point["devices"])
    )
    if found is not None:
        join_processes(found, launched=False)
    import jax

    import floral as fl

    jax.block_until_ready(jax.jit(lambda x: x + 1)(jax.numpy.zeros(1)))
    before = memory("VmRSS")
    dataset = dataset_of(point)
    model = model_of(point)
    simulator = fl.simulate.make_simulator(
        algorithm_of(point, model, dataset),
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        cohort=fl.simulate.fixed(size=point["cohort"]),
        batching=fl.data.batching(batch_size=point["batch"]),
        donate=True,
    )
    state = simulator.init(jax.random.key(0))
    seconds = []
    for _ in range(point["rounds"] + 2):
        begun = time.perf_counter()
        state, sums = simulator.round(state)
        jax.block_until_ready((state, sums))
        seconds.append(time.perf_counter() - begun)
    if int(sums["cohort"]) != point["cohort"]:
        raise RuntimeError(f"{int(sums['cohort'])} clients took part, not {point['cohort']}")
    return {
        "seconds": statistics.median(seconds[2:]),  # the first two compile and fill the caches
        "peak": memory("VmHWM") - before,
        "end": memory("VmRSS") - before,
        "expected": expected(point, devices=simulator.devices),
        "devices": simulator.devices,
        "chunk": simulator.chunk,
        "parameters": simulator.costs.model_parameters,
        "operations": simulator.costs.operations * point["cohort"],
    }


def expected(point: dict[str, Any], *, devices: int) -> int:
    """Bytes that a population, its clients' mixtures and two cohorts of images take.

    For each client: an offset of 8 bytes, a cluster of 4 and a mark of 1; on every device and once
    more for the draw an offset and an id of 4 bytes each, on every device a cluster.
    """
    of_client = 8 + 4 + 1 + 8 * (devices + 1) + 4 * devices
    if point["method"] == "floral":
        of_client += 4 * point["adaptors"] * devices
    cohorts = 2 * point["cohort"] * point["samples"] * (28 * 28 + 1) * 4
    return point["clients"] * of_client + cohorts


if __name__ == "__main__":
    measured = measure(POINT | json.loads(sys.argv[1]))
    if os.environ.get("JAX_PROCESS_ID", "0") == "0":
        print(json.dumps(measured))
