"""What a round should cost on one H100 and on 64 of them: a model on paper.

    python experiments/bench/cost_model.py   # half a minute; --precision fp32, --chunk 64, --json

No number printed here was measured, on this hardware or any other: operations and bytes are counted
by tracing the program, rates are those of data sheets, and the shares of them that are reached are
assumed, with a range. ``accelerator.py`` has measured it on one H100: rounds of the MLP, FedAvg's
and FLoRAL's, are as predicted within a sixth where 256 clients or more go side by side, and quicker
than that where fewer do (launches cost less than guessed); with convolutions of clients' own
kernels, which are grouped ones side by side, they take four to seven times as long as predicted.
As in ``task.py`` a client takes three steps of SGD, on 20 of its 60 examples each, in float32;
ResNet-18 has group norm and 32x32x3 images; FLoRAL has C = 4 and rho = 1 %, ``mixture only`` all
else frozen.

Sources: NVIDIA's data sheet of the H100 SXM (FP32 67 TFLOP/s; TF32 989 "with sparsity", half of it
dense; 80 GB of HBM3 at 3.35 TB/s; both ways together NVLink 900 GB/s and PCIe Gen5 128 GB/s); the
DGX H100's user guide (8 a node, each with a card of 400 Gb/s); JAX's "Matmul precision" (float32 is
multiplied in TF32 there unless told otherwise); for the ring, nccl-tests' PERFORMANCE.md.

A device takes the longest of three times, as if the other two hid behind it:

* compute: operations / (share of peak x peak). The share is the widest guess: where weights are a
  client's own, vmap makes of each client a small product, or a group of a convolution.
* memory: bytes / (share of bandwidth x bandwidth), nothing staying in cache. In a step: the traced
  operands and results of products (own weights read forward and backward, a gradient written), an
  update (two reads, one write), and what lies between products (``MODELS``). In a round: four
  passes over own weights (copied, subtracted, summed) and four over the examples. Weights that all
  share are read once for a whole chunk.
* launches: 5 us for each of 8 kernels for each leaf of the model and bank, every step of a chunk.

The chunk is the largest that fits into the three quarters of a device that JAX takes, beside the
state, twice, and the examples of two cohorts. A client takes its weights, gradient and update, its
examples, and the inputs of all layers five times. A round takes as long as the slower of the device
and the feed of the next cohort, and then the all-reduce:

* feed: one process a device, whose one thread copies rows (20 us a client and 8 GB/s: bare
  assumptions) and then sends them through PCIe. A population on the devices has none.
* all-reduce: a ring, 2 (n - 1) / n x bytes / bandwidth of its slowest link, and 5 us for each of
  its 2 (n - 1) steps. NCCL's trees, and rings through all cards of a node, can do better.

Left out: compilation, the host between rounds, clients of unlike sizes, evaluation. The zeros in
gradients of strided convolutions are counted as operations: 11 % of ResNet-18's.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import algorithms
import jax
import jax.numpy as jnp
import numpy as np

import floral as fl
from floral.operations import work_of
from floral.simulate.clients import client_context

__all__ = ["MODELS", "Cell", "Workload", "predict", "workloads"]

PEAK = {"tf32": 989e12 / 2, "fp32": 67e12}  # operations a second, dense
HBM, HBM_BYTES, USABLE = 3.35e12, 80e9, 0.75
PCIE, NVLINK, INFINIBAND, NODE = 128e9 / 2, 900e9 / 2, 400e9 / 8, 8  # bytes a second, one way
HOST_COPY, HOST_CLIENT, LAUNCH, HOP, KERNELS, KEPT = 8e9, 20e-6, 5e-6, 5e-6, 8, 5  # guessed
SAMPLES, BATCH, STEPS, ADAPTORS, BUDGET = 60, 20, 3, 4, 0.01
_CNN = fl.models.cnn(10, kernels=(5, 5), pools=(2, 2), padding="SAME", hidden=(512,))
# A model, an example's shape, and passes over a layer's input besides those of products: group norm
# reads for its moments, reads and writes (3), and back reads two arrays twice and writes one (5).
MODELS: dict[str, tuple[fl.models.Model, tuple[int, ...], int]] = {
    "mlp": (fl.models.mlp(10, hidden=(200,)), (28, 28, 1), 0),
    "cnn": (_CNN, (28, 28, 1), 4),
    "resnet18": (fl.models.resnet(10), (32, 32, 3), 8),
}
_TRAINED = {"floral": ("base", "bank", "mixture"), "mixture only": ("mixture",)}


class Workload(NamedTuple):
    """One client's round, counted by tracing."""

    model: str
    method: str
    operations: float  # of products
    own_bytes: float  # moved by products for this client alone
    shared_bytes: float  # moved by products once for all clients side by side
    trained_bytes: float  # weights that it trains and sends
    inputs_bytes: float  # what goes into its layers' products, for one batch
    example_bytes: float  # all its examples
    state_bytes: float  # the server's state
    sent_bytes: float  # its upload, which is also what is reduced over devices
    leaves: int  # arrays of the model and the bank

    def moved(self, chunk: int) -> float:
        """Bytes through device memory, for one of so many clients side by side."""
        between = MODELS[self.model][2] * self.inputs_bytes * STEPS
        weights = self.trained_bytes * (3 * STEPS + 4) + self.shared_bytes / chunk
        return self.own_bytes + between + weights + 4 * self.example_bytes


class Cell(NamedTuple):
    """A predicted round; seconds are None where it does not fit."""

    bound: str
    device_bytes: float
    chunk: int = 0  # clients side by side on a device
    seconds: float | None = None
    unfed: float | None = None  # seconds if examples were on the devices already
    parts: dict[str, float] | None = None  # seconds of each thing that may bound it


def predict(
    work: Workload, cohort: int, devices: int, shares: tuple[float, float], peak: float, most: int
) -> Cell:
    """A round at these shares of the peak and of bandwidths; at most so many side by side."""
    share = -(-cohort // devices)
    examples = share * work.example_bytes
    fixed = 2 * work.state_bytes + work.trained_bytes + 2 * examples
    each = 3 * work.trained_bytes + work.example_bytes + KEPT * work.inputs_bytes
    fitting = int((USABLE * HBM_BYTES - fixed) // each)
    if fitting < 1:
        return Cell("does not fit", fixed + each)
    chunks = -(-share // min(fitting, most))
    chunk = -(-share // chunks)
    device = {
        "compute": chunk * chunks * work.operations / (shares[0] * peak),
        "memory bandwidth": chunk * chunks * work.moved(chunk) / (shares[1] * HBM),
        "launches": chunks * (STEPS + 1) * work.leaves * KERNELS * LAUNCH,
    }
    copied = examples / HOST_COPY + share * HOST_CLIENT
    feed = {"feed: host's copy": copied, "feed: PCIe": examples / (shares[1] * PCIE)}
    link = shares[1] * (NVLINK if devices <= NODE else INFINIBAND)
    ring = 2 * (devices - 1) * (work.sent_bytes / devices / link + HOP)
    worked, fed = max(device.values()), sum(feed.values())
    slower = device if worked >= fed else feed
    bound = max(slower, key=slower.__getitem__) if max(worked, fed) >= ring else "all-reduce"
    times = (max(worked, fed) + ring, worked + ring, {**device, **feed, "all-reduce": ring})
    return Cell(bound, fixed + chunk * each, chunk, *times)


def workloads(model_name: str) -> Iterator[Workload]:
    """Every method with a model; programs are traced, nothing is trained."""
    model, shape, _ = MODELS[model_name]
    client = {"x": np.zeros((SAMPLES, *shape), np.float32), "y": np.zeros(SAMPLES, np.int32)}
    dataset = fl.data.from_clients([{"train": client}] * 2, num_classes=10)
    yield _trace((model_name, "fedavg"), model, algorithms.fedavg(model), dataset)
    adapted = algorithms.adapt(model, dataset, budget=BUDGET)
    for method, train in _TRAINED.items():
        algorithm = algorithms.floral(adapted, num_adaptors=ADAPTORS, train=train)
        yield _trace((model_name, method), model, algorithm, dataset)


def _trace(names: tuple[str, str], model: Any, algorithm: Any, dataset: Any) -> Workload:
    """Two clients side by side tell apart what they share; two batch sizes, a layer's inputs."""
    parts: Any = {"metrics": {}, "batching": fl.data.batching(batch_size=BATCH)}
    simulator = fl.simulate.make_simulator(algorithm, model, dataset, **parts)
    server = jax.eval_shape(simulator.init, jax.random.key(0)).server
    sample = fl.simulate.sample_batch(dataset, size=1)
    start = jax.eval_shape(model.init, jax.random.key(0), sample)

    def turn(client, batches, server):
        key, zero = jax.random.key(0), jnp.zeros((), jnp.int32)
        context = client_context(simulator.data, client, zero, key, jnp.ones(()))
        row = algorithm.client_init(jax.random.fold_in(key, client), server, context.traits)
        received = algorithm.download(server, context)
        return algorithm.client_update(key, received, row, fl.data.as_batches(batches), context)

    def batch(*axes: int) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape[1:]), x.dtype), sample)

    def side_by_side(clients: int) -> float:
        ids, batches = jax.ShapeDtypeStruct((clients,), jnp.int32), batch(clients, 1, BATCH)
        return work_of(jax.vmap(turn, (0, 0, None)), ids, batches, server, trips=STEPS).bytes

    def forward(size: int) -> float:
        return work_of(lambda start, batch: model.apply(*start, batch)[0], start, batch(size)).bytes

    one, two = side_by_side(1), side_by_side(2)
    return Workload(
        *names,
        operations=simulator.costs.operations,
        own_bytes=two - one,
        shared_bytes=2 * one - two,
        trained_bytes=4.0 * simulator.costs.uploaded_parameters,
        inputs_bytes=(forward(2 * BATCH) - forward(BATCH)) / 2,
        example_bytes=SAMPLES * 4.0 * (sample["x"].size + sample["y"].size),
        state_bytes=simulator.costs.server_state_bytes,
        sent_bytes=simulator.costs.upload_bytes,
        leaves=len(jax.tree.leaves((start[0], getattr(server, "bank", ())))),
    )


def _table(head: str, rows: list[list[str]]) -> str:
    titles = head.split(", ")
    lines = [" | ".join(titles), " | ".join(["---"] * 2 + ["---:"] * (len(titles) - 2))]
    return "\n".join(f"| {line} |" for line in [*lines, *map(" | ".join, rows)]) + "\n"


def _client(w: Workload) -> list[str]:
    moved = (w.moved(1), w.moved(1000))
    figures = [count / 1e6 for count in (w.sent_bytes, *moved)]
    figures += [w.operations / count for count in moved]
    return [w.model, w.method, f"{w.operations / 1e9:.3g}", *(f"{x:,.1f}" for x in figures)]


def _round(w: Workload, cohort: int, low: Cell, cell: Cell, high: Cell) -> list[str]:
    times = ["–"] * 5
    if cell.seconds is not None:
        times = [f"{cell.seconds:.3g}", f"{high.seconds:.3g} to {low.seconds:.3g}"]
        times += [f"{cohort / cell.seconds:,.0f}", f"{cell.unfed:.3g}", f"{cell.chunk:,}"]
    memory = f"{cell.device_bytes / 1e9:.3g}"
    return [w.model, w.method, f"{cohort:,}", *times, memory, cell.bound]


def main() -> None:
    parser = argparse.ArgumentParser(description="a round on paper, on H100s")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=tuple(MODELS))
    parser.add_argument("--cohorts", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--of-peak", nargs=3, type=float, default=[0.2, 0.4, 0.6])
    parser.add_argument("--of-bandwidth", nargs=3, type=float, default=[0.4, 0.6, 0.8])
    parser.add_argument("--precision", default="tf32", choices=tuple(PEAK))
    parser.add_argument("--chunk", type=int, default=10**9, help="clients side by side at most")
    parser.add_argument("--json", action="store_true", help="print one JSON line a cell instead")
    given = parser.parse_args()
    peak, levels = PEAK[given.precision], [*zip(given.of_peak, given.of_bandwidth, strict=True)]
    works = [work for name in given.models for work in workloads(name)]
    found = [
        (n, work, cohort, [predict(work, cohort, n, pair, peak, given.chunk) for pair in levels])
        for n, work, cohort in itertools.product(given.devices, works, given.cohorts)
    ]
    if given.json:
        for n, work, cohort, cells in found:
            point = {"devices": n, "cohort": cohort, "peak": peak, "shares": levels}
            print(json.dumps({**point, **work._asdict(), "cells": [c._asdict() for c in cells]}))
        return
    print(f"{__doc__}\nOne client; compute and memory balance at {peak / HBM:.0f} a byte.\n")
    head = "model, method, Gop, MB sent, MB moved, MB beside 999, op a byte, op a byte beside 999"
    print(_table(head, [_client(work) for work in works]))
    head = "model, method, cohort, seconds, range, clients/s, without feed, chunk, GB each, bound"
    for n in given.devices:
        print(f"{n} H100, {given.precision}; shares of peak and of bandwidth {levels}\n")
        print(_table(head, [_round(w, k, *cells) for m, w, k, cells in found if m == n]))


if __name__ == "__main__":
    main()
