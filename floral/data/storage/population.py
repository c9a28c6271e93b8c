"""A synthetic population of any size, of which only the clients that are asked for are made."""

import numpy as np

from floral import check
from floral.data.checks.host_arrays import generator
from floral.data.clients import FederatedDataset
from floral.data.storage.generated import generated
from floral.first_argument import first_by_place
from floral.typing import Seed

__all__ = ["synthetic_population"]


@first_by_place
def synthetic_population(
    *,
    clients: int = 1000,
    clusters: int = 4,
    train: int = 60,
    validation: int = 0,
    test: int = 10,
    classes: int = 10,
    side: int = 28,
    separation: float = 6.0,
    seed: Seed = 0,
) -> FederatedDataset:
    """Noisy images of ``classes`` kinds, which the clusters name differently; made when read.

    Cluster c = k mod C of client k calls class j by the label (j + c) mod ``classes``, as
    ``label_shift`` does. An image is its class's mean plus standard normal noise in every pixel.
    The means are drawn once, such that two lie about ``separation`` apart: with ten classes, the
    best a model can do for a client whose cluster it knows is about 99 % right at 6, 88 % at 4.

    Memory is that of offsets and clusters, some 20 bytes a client, however many examples each has.

    Args:
      clients: the number of clients, N.
      clusters: C; client k belongs to cluster k mod C.
      train: training examples a client.
      validation: validation examples a client.
      test: test examples a client.
      classes: the number of classes, at least C.
      side: pixels of an image's side; x is [side, side, 1].
      separation: the distance of two classes' means, in standard deviations of the noise.
      seed: of the means and the examples, in separate streams.

    Example:
      >>> data = synthetic_population(clients=1_000_000, side=8)
      >>> data.client(999_999)["train"]["x"].shape, int(data.traits["cluster"][-1])
      ((60, 8, 8, 1), 3)
    """
    check.positive_int(clients=clients, clusters=clusters, train=train, classes=classes, side=side)
    check.in_range(1, min(clients, classes), clusters=clusters)
    check.whole(validation=validation, test=test)
    check.non_negative(separation=separation, seed=seed)
    shape = (side, side, 1)
    means = generator(seed, "population means").standard_normal((classes, *shape), np.float32)
    means *= np.float32(separation / (side * np.sqrt(2)))

    def images(rng: np.random.Generator, client: int, size: int) -> dict[str, np.ndarray]:
        kind = rng.integers(classes, size=size)
        x = rng.standard_normal((size, *shape), np.float32)
        x += means[kind]
        return {"x": x, "y": ((kind + client % clusters) % classes).astype(np.int32)}

    settings = {"clusters": clusters, "classes": classes, "side": side, "separation": separation}
    return generated(
        images,
        sizes={"train": train, "validation": validation, "test": test},
        clients=clients,
        seed=seed,
        settings=settings,
        traits={"cluster": np.arange(clients, dtype=np.int32) % np.int32(clusters)},
        num_classes=classes,
    )
