"""What must hold of params and optimizers before anything is compiled, or one sentence says why."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from floral import tree
from floral.algorithms.base import FederatedAlgorithm
from floral.algorithms.toolbox.steps import check_steps
from floral.data import Batching, FederatedDataset
from floral.errors import SpecError
from floral.messages import Context, Reduced, Upload
from floral.typing import PyTree

__all__ = ["check_aggregate", "check_local_steps", "check_params", "check_stats"]

_KEEP = (
    "keep what is not trained in the model's statistics, init's second result, or outside of both"
)


def check_params(params: PyTree) -> None:
    """Refuses params that cannot be trained, averaged and saved.

    Args:
      params: as a model's ``init`` gives them, arrays or structs.

    Raises:
      SpecError: for a leaf that is no array of real floats, or one without elements; it names the
        leaf by its path.
    """
    for path, leaf in tree.paths(params).items():
        kind = _kind(leaf)
        if kind is None or not jnp.issubdtype(kind, jnp.floating):
            got = type(leaf).__name__ if kind is None else _named(kind, leaf)
            raise SpecError(f"params: {path!r} is {got}, and only floats can be trained: {_KEEP}")
        if np.dtype(kind).itemsize < 2:
            raise SpecError(
                f"params: {path!r} is {_named(kind, leaf)}, of which no mean can be taken: keep it "
                "in bfloat16 or wider and cast it in the model"
            )
        _check_size("params", path, leaf)


def check_stats(stats: PyTree) -> None:
    """Raises SpecError for a statistic that is no array, or one without elements."""
    for path, leaf in tree.paths(stats).items():
        if _kind(leaf) is None:
            raise SpecError(f"statistics: {path!r} is no array but {type(leaf).__name__}")
        _check_size("statistics", path, leaf)


def check_local_steps(
    algorithm: FederatedAlgorithm, dataset: FederatedDataset, batching: Batching
) -> None:
    """Raises SpecError where clients take too few local steps for their optimizer to move."""
    if algorithm.local_optimizer is None:
        return
    sizes = dataset.splits["train"].sizes[dataset.seen]
    fewest = batching.steps
    if fewest is None:
        least = int(np.min(sizes[sizes > 0], initial=np.iinfo(np.int64).max))
        fewest = batching.epochs * -(-least // batching.batch_size)
    check_steps(algorithm.local_optimizer, fewest)


def check_aggregate(
    algorithm: FederatedAlgorithm, server: PyTree, upload: Upload, context: Context
) -> None:
    """Traces the server's step; nothing is computed.

    Args:
      algorithm: whose server.
      server, upload, context: structs of the server's state, of what one client sends, and of what
        a round knows.

    Raises:
      SpecError: if the state that comes out has leaves, shapes or dtypes other than the one that
        went in; or for a server optimizer that needs more than an update.
    """
    after = jax.eval_shape(algorithm.aggregate, server, Reduced(*upload), context)
    before = {path: (leaf.shape, leaf.dtype) for path, leaf in tree.paths(server).items()}
    found = {path: (leaf.shape, leaf.dtype) for path, leaf in tree.paths(after).items()}
    for path in [*before, *(found.keys() - before.keys())]:
        if before.get(path) != found.get(path):
            raise SpecError(
                f"aggregate: the server's {path!r} goes in as {_told(before.get(path))} and comes "
                f"out as {_told(found.get(path))}: a round must keep the shape and dtype of all "
                "that it carries on"
            )


def _check_size(what: str, path: str, leaf: Any) -> None:
    if 0 in np.shape(leaf):
        raise SpecError(
            f"{what}: {path!r} has no elements, its shape is {tuple(np.shape(leaf))}: leave it out"
        )


def _kind(leaf: Any) -> Any:
    """The dtype of an array, a struct or a number; None for any other object."""
    if isinstance(leaf, (bool, int, float, complex)):
        return np.result_type(leaf)
    dtype = getattr(leaf, "dtype", None)
    return None if dtype is None or dtype == np.dtype(object) else dtype


def _named(dtype: Any, leaf: Any) -> str:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return "a random key"
    return f"{dtype}{list(np.shape(leaf))}"


def _told(struct: tuple[Any, Any] | None) -> str:
    return "nothing" if struct is None else f"{struct[1]}{list(struct[0])}"
