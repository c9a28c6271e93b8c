"""Synthetic tasks whose clusters and true parameters are known.

Client k belongs to cluster c = k mod C and draws x ~ N(0, I_d). The clusters share a matrix W and
differ by a low-rank part: W_c = W + α u_c v_cᵀ.

Source: Almansoori et al., "Collaborative and Efficient Personalization with Mixtures of Adaptors",
CPAL 2025, section 6 and its code: d = 10, r = 1, α = 2; W, u_c, b ~ N(0, 1/d), v_c ~ N(0, 1/r),
variances. Differs from the code: parameters and data come from named streams of one seed.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from floral import check
from floral.data.checks.host_arrays import generator
from floral.data.clients import FederatedDataset, from_clients
from floral.first_argument import first_by_place
from floral.typing import Seed

__all__ = ["SyntheticTask", "synthetic_linear", "synthetic_mlp"]


class SyntheticTask(NamedTuple):
    """A population, and the truth behind it."""

    dataset: FederatedDataset
    """Regression: y is ``[M, outputs]``, ``num_classes`` None; the trait ``"cluster"`` is set."""
    parameters: dict[str, np.ndarray]
    """float64: ``"kernel"`` [C, d, ...], ``"bias"``, and ``"head"`` of the MLP."""
    truth: Callable[[np.ndarray, int], np.ndarray]
    """``(x [n, d], cluster) -> y [n, outputs]`` without label noise, in float64."""


@first_by_place
def synthetic_linear(
    *,
    clients: int = 10,
    clusters: int = 2,
    train: int = 7,
    validation: int = 0,
    test: int = 1,
    dimension: int = 10,
    outputs: int = 3,
    rank: int = 1,
    alpha: float = 2.0,
    noise: float = 0.0,
    seed: Seed = 0,
) -> SyntheticTask:
    """Linear regressions: y = the first columns of x W_c + b.

    Against the truth ``(W_c, b)``, the population error of a linear model is
    ``(‖W - W_c‖² + ‖b - b_c‖²) / outputs``, mean squared over the outputs.

    Args:
      clients: the number of clients, N.
      clusters: C; client k belongs to cluster k mod C.
      train: training examples a client.
      validation: validation examples a client.
      test: test examples a client.
      dimension: d, the number of features.
      outputs: the number of targets, at most d.
      rank: r of what tells the clusters apart.
      alpha: the size of what tells the clusters apart.
      noise: standard deviation of the noise on the targets.
      seed: of the parameters and the data, in separate streams.

    Example:
      >>> task = synthetic_linear()
      >>> task.dataset.client(3)["train"]["x"].shape, task.dataset.traits["cluster"][:4].tolist()
      ((7, 10), [0, 1, 0, 1])
      >>> test = task.dataset.client(3)["test"]
      >>> bool(np.allclose(task.truth(test["x"], 1), test["y"], atol=1e-5))
      True
    """
    check.positive_int(outputs=outputs)
    check.positive_int(dimension=dimension)
    check.in_range(1, dimension, outputs=outputs)
    kernel, bias, _ = _parameters(clusters, dimension, rank, alpha, seed)
    kernel, bias = kernel[:, :, :outputs], bias[:outputs]
    sizes = {"train": train, "validation": validation, "test": test}

    def truth(x: np.ndarray, cluster: int) -> np.ndarray:
        return np.asarray(x, np.float64) @ kernel[cluster] + bias

    dataset = _draw(truth, clients, clusters, sizes, dimension, noise, seed)
    return SyntheticTask(dataset, {"kernel": kernel, "bias": bias}, truth)


@first_by_place
def synthetic_mlp(
    *,
    clients: int = 20,
    clusters: int = 4,
    train: int = 96,
    validation: int = 0,
    test: int = 24,
    dimension: int = 10,
    rank: int = 1,
    alpha: float = 2.0,
    noise: float = 0.0,
    standardize_hidden: bool = False,
    seed: Seed = 0,
) -> SyntheticTask:
    """Teacher networks: y = relu(x W_c + b) Φ with one output and Φ ~ N(0, 1/d) shared.

    Args:
      clients: the number of clients, N.
      clusters: C; client k belongs to cluster k mod C.
      train: training examples a client.
      validation: validation examples a client.
      test: test examples a client.
      dimension: d, the number of features and of hidden units.
      rank: r of what tells the clusters apart.
      alpha: the size of what tells the clusters apart.
      noise: standard deviation of the noise on the targets.
      standardize_hidden: whether each hidden unit of a teacher has mean 0 and standard deviation 1,
        as batch norm would have it.
      seed: of the parameters and the data, in separate streams.

    Differs from the paper's code: there the moments of hidden units are those of each client's own
    examples, here those of its cluster's x ~ N(0, I_d).
    """
    check.boolean(standardize_hidden=standardize_hidden)
    kernel, bias, head = _parameters(clusters, dimension, rank, alpha, seed)
    mean, std = np.zeros((clusters, dimension)), np.ones((clusters, dimension))
    if standardize_hidden:
        mean, std = _moments_of_relu(bias, np.sqrt(np.sum(kernel**2, axis=1)))
    sizes = {"train": train, "validation": validation, "test": test}

    def truth(x: np.ndarray, cluster: int) -> np.ndarray:
        hidden = np.maximum(np.asarray(x, np.float64) @ kernel[cluster] + bias, 0.0)
        return (hidden - mean[cluster]) / std[cluster] @ head

    dataset = _draw(truth, clients, clusters, sizes, dimension, noise, seed)
    return SyntheticTask(dataset, {"kernel": kernel, "bias": bias, "head": head}, truth)


def _parameters(
    clusters: int, dimension: int, rank: int, alpha: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    check.positive_int(clusters=clusters, dimension=dimension, rank=rank)
    check.non_negative(alpha=alpha, seed=seed)
    rng = generator(seed, "synthetic parameters")
    scale = dimension**-0.5
    shared = scale * rng.standard_normal((dimension, dimension))
    bias = scale * rng.standard_normal(dimension)
    head = scale * rng.standard_normal((dimension, 1))
    left = scale * rng.standard_normal((clusters, dimension, rank))
    right = rank**-0.5 * rng.standard_normal((clusters, dimension, rank))
    return shared + alpha * left @ right.transpose(0, 2, 1), bias, head


def _moments_of_relu(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of max(h, 0) where h is normal with these."""
    ratio = mean / std
    density = np.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    below = np.vectorize(math.erf, otypes=[float])(ratio / math.sqrt(2)) / 2 + 0.5
    first = mean * below + std * density
    second = (mean**2 + std**2) * below + mean * std * density
    return first, np.sqrt(second - first**2)


def _draw(
    truth: Callable[[np.ndarray, int], np.ndarray],
    num_clients: int,
    clusters: int,
    sizes: dict[str, int],
    dimension: int,
    noise: float,
    seed: int,
) -> FederatedDataset:
    check.positive_int(clients=num_clients, train=sizes["train"])
    check.in_range(1, num_clients, clusters=clusters)
    check.non_negative(noise=noise)
    check.whole(**sizes)
    rng = generator(seed, "synthetic data")
    clients = []
    for k in range(num_clients):
        client = {}
        for name, size in sizes.items():
            if size:
                x = rng.standard_normal((size, dimension)).astype(np.float32)
                y = truth(x, k % clusters)
                client[name] = {"x": x, "y": y + noise * rng.standard_normal(y.shape)}
        clients.append(client)
    return from_clients(clients, traits={"cluster": np.arange(num_clients) % clusters})
