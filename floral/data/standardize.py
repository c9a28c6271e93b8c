"""Standardization by what clients train on: held-out examples have no part in the statistics."""

import numpy as np

from floral.data.clients import FederatedDataset, Split
from floral.data.storage.aligned import aligned_zeros
from floral.data.storage.lazy import is_plain
from floral.errors import DataError

__all__ = ["standardized"]

_ROWS = 4096  # read at a time, as float64


def standardized(dataset: FederatedDataset) -> FederatedDataset:
    """The population with features of mean 0 and standard deviation 1, a channel at a time.

    A channel is an index of the last axis: a column of a table ``[M, d]``, a colour of images
    ``[M, H, W, C]``. Its mean and deviation are those of all training examples of the clients that
    train: validation examples, test examples, examples that were not kept, and unseen clients are
    not read. They are then applied to every example of every split. A server can take both from
    the clients' sums of x and x².

    Args:
      dataset: the population, in memory; the result has arrays of its own, float32.

    Raises:
      DataError: if a channel is constant over those examples, or the examples are not in memory.

    Example:
      >>> from floral.data.clients import from_clients
      >>> one = {"train": {"x": [[0.0], [2.0]], "y": [0, 1]}, "test": {"x": [[5.0]], "y": [0]}}
      >>> standardized(from_clients([one])).client(0)["test"]["x"].tolist()
      [[4.0]]
    """
    for split in dataset.splits.values():
        if not is_plain(split.examples["x"]):
            raise DataError(
                "standardize changes every example, but this population's are read only when they "
                "are needed; standardize them before they are saved, or where they are made"
            )
    train = dataset.splits["train"]
    x = train.examples["x"]
    rows = np.flatnonzero(~dataset.unseen[train.owners])
    mean, deviation = _moments(x.reshape(len(x), -1, _channels(x)), rows)
    constant = np.flatnonzero(deviation == 0)
    if len(constant):
        raise DataError(
            f"standardize: channel {constant[0]} of x {list(x.shape[1:])} has the same value in "
            "all training examples, so it has no deviation to divide by"
        )
    splits = {
        name: Split(
            {**split.examples, "x": _applied(split.examples["x"], mean, deviation)}, split.offsets
        )
        for name, split in dataset.splits.items()
    }
    return dataset._replace(splits=splits)


def _channels(x: np.ndarray) -> int:
    return x.shape[-1] if x.ndim > 1 else 1


def _moments(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of x [M, places, channels] over these rows: float64 [channels].

    Deviations are taken from the mean, so large features of small spread lose nothing.
    """
    pieces = [rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS)]
    count = len(rows) * x.shape[1]
    mean = sum(x[piece].sum(axis=(0, 1), dtype=np.float64) for piece in pieces) / count
    squares = sum(np.square(x[piece] - mean).sum(axis=(0, 1)) for piece in pieces)
    # Rounding may leave a spread where there is none: constant channels are told by their range.
    first = x[rows[0], 0]
    varies = np.any([(x[piece] != first).any(axis=(0, 1)) for piece in pieces], axis=0)
    return mean, np.where(varies, np.sqrt(squares / count), 0.0)


def _applied(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    changed = aligned_zeros(x.shape, np.float32)
    if x.ndim == 1:
        mean, deviation = mean[0], deviation[0]
    for first in range(0, len(x), _ROWS):
        changed[first : first + _ROWS] = (x[first : first + _ROWS] - mean) / deviation
    return changed
