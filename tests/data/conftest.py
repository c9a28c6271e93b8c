"""What every test of the data shares."""

import jax
import numpy as np
import pytest

from floral.data import FederatedDataset, federated

jax.config.update("jax_numpy_rank_promotion", "raise")

SIZES = (4, 1, 7, 3, 5)


@pytest.fixture(scope="session")
def ragged() -> FederatedDataset:
    """Five clients of sizes 4, 1, 7, 3 and 5; example i has features (i + 1, -i - 1)."""
    rows = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    x = np.stack([np.arange(1.0, 21.0), -np.arange(1.0, 21.0)], axis=1)
    return federated({"x": x, "y": np.arange(1, 21)}, {"train": rows}, num_classes=21)
