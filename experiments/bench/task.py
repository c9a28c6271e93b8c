"""The task on which the speed benchmark measures every toolkit: one file of plain numpy arrays.

    python experiments/bench/task.py            # writes the file, if it is not there, and names it

FedAvg: 1,000 clients with 60 images of 28x28x1 in 10 classes, labels by a Dirichlet(0.5) of each
client's own; 100 clients a round; one epoch of three batches of 20 in stored order; plain SGD at
0.1; a mean of the clients' models weighted by their examples. Models: ``mlp`` (784-200-10) and
``cnn`` (two 5x5 convolutions of 32 and 64 channels, SAME, each with a ReLU and a 2x2 max-pool,
then 512 and 10). Images are class means plus noise: speed does not depend on what is in them, and
losses still fall, so that toolkits can be checked against one another.

Weights, images and cohorts come from one seed through numpy alone, so every toolkit starts from the
same point and sees the same batches, whatever its own random numbers are.
"""

import argparse
import os
from pathlib import Path

import numpy as np

__all__ = ["BATCH", "CACHE", "LEARNING_RATE", "MODELS", "initial", "load", "make", "write"]

CLIENTS, SAMPLES, CLASSES, COHORT, ROUNDS = 1000, 60, 10, 100, 200
BATCH, LEARNING_RATE = 20, 0.1
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "floral" / "bench"

# Kernels as inputs x outputs, convolutions as height, width, inputs, outputs; images are NHWC.
MODELS: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp": {"dense_0": (784, 200), "dense_1": (200, 10)},
    "cnn": {
        "conv_0": (5, 5, 1, 32),
        "conv_1": (5, 5, 32, 64),
        "dense_0": (7 * 7 * 64, 512),
        "dense_1": (512, 10),
    },
}


def initial(model: str, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights by name: ``<layer>/kernel``, of variance 1 / fan in, and ``<layer>/bias``, zero.

    Args:
      model: a key of ``MODELS``.
      seed: of numpy's generator.
    """
    rng = np.random.default_rng([seed, list(MODELS).index(model)])
    weights = {}
    for layer, shape in MODELS[model].items():
        kernel = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
        weights[f"{layer}/kernel"] = kernel.astype(np.float32)
        weights[f"{layer}/bias"] = np.zeros(shape[-1], np.float32)
    return weights


def make(
    *,
    clients: int = CLIENTS,
    samples: int = SAMPLES,
    cohort: int = COHORT,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """All arrays of the task.

    Args:
      clients: in the population, K.
      samples: of each client, N.
      cohort: clients drawn for a round, without replacement, S.
      rounds: cohorts drawn, R.
      seed: of numpy's generators.

    Returns:
      ``x`` [K, N, 28, 28, 1] float32, ``y`` [K, N] int32, ``cohorts`` [R, S] int32 and, for each
      model and weight, ``<model>/<layer>/kernel`` and ``<model>/<layer>/bias``.
    """
    rng = np.random.default_rng(seed)
    proportions = rng.dirichlet(np.full(CLASSES, 0.5), clients)
    y = np.stack([rng.choice(CLASSES, samples, p=p) for p in proportions]).astype(np.int32)
    means = rng.normal(0.05, 0.05, (CLASSES, 28, 28, 1)).astype(np.float32)
    noise = rng.standard_normal((clients, samples, 28, 28, 1), np.float32)
    cohorts = [rng.choice(clients, cohort, replace=False) for _ in range(rounds)]
    weights = {
        f"{model}/{name}": array
        for model in MODELS
        for name, array in initial(model, seed=seed).items()
    }
    return {
        "x": means[y] + np.float32(0.1) * noise,
        "y": y,
        "cohorts": np.stack(cohorts).astype(np.int32),
        **weights,
    }


def load(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a task's file, by name."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def write(folder: str | Path = CACHE, *, seed: int = 0) -> Path:
    """The task's file in a folder, made under another name first if it is not there yet."""
    path = Path(folder) / f"task-{seed}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(unfinished, **make(seed=seed))  # pyright: ignore[reportArgumentType]
        unfinished.replace(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="writes the task of the speed benchmark")
    parser.add_argument("--folder", type=Path, default=CACHE, help="where the file is kept")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(write(arguments.folder, seed=arguments.seed))


if __name__ == "__main__":
    main()
