"""The task's two models in PyTorch, for every peer that is built on it."""

# pyright: reportMissingImports=false

import numpy as np
import torch
from torch import nn
from torch.nn import functional

__all__ = ["CNN", "MLP", "images", "load_weights", "make"]


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense_0 = nn.Linear(784, 200)
        self.dense_1 = nn.Linear(200, 10)

    def forward(self, x):
        return self.dense_1(torch.relu(self.dense_0(x)))


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_0 = nn.Conv2d(1, 32, 5, padding="same")
        self.conv_1 = nn.Conv2d(32, 64, 5, padding="same")
        self.dense_0 = nn.Linear(7 * 7 * 64, 512)
        self.dense_1 = nn.Linear(512, 10)

    def forward(self, x):
        h = functional.max_pool2d(torch.relu(self.conv_0(x)), 2)
        h = functional.max_pool2d(torch.relu(self.conv_1(h)), 2)
        h = torch.relu(self.dense_0(h.flatten(1)))
        return self.dense_1(h)


def make(model: str, weights: dict[str, np.ndarray]) -> nn.Module:
    """A model with the task's weights; convolutions keep channels last, which is faster here."""
    network = MLP() if model == "mlp" else CNN()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    load_weights(network, weights)
    return network


def load_weights(network: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Copies the task's weights, ``<layer>/kernel`` and ``<layer>/bias``, in place.

    PyTorch keeps outputs first, and flattens an image with its channels first.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            layer, kind = name.split(".")
            array = weights[f"{layer}/{'kernel' if kind == 'weight' else 'bias'}"]
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            elif array.ndim == 2 and array.shape[0] == 7 * 7 * 64:
                array = array.reshape(7, 7, 64, -1).transpose(2, 0, 1, 3).reshape(array.shape).T
            elif array.ndim == 2:
                array = array.T
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def images(model: str, x: np.ndarray) -> np.ndarray:
    """The task's images [K, N, 28, 28, 1] as a model takes them: flat, or channels first."""
    shape = (784,) if model == "mlp" else (1, 28, 28)
    return x.reshape(*x.shape[:2], *shape)
