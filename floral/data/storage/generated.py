"""Populations whose examples are made when they are read.

A client's rows are a pure function of the seed, the split and its id, so nothing is kept of them:
a population of a million clients takes the memory of its offsets and traits.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from floral import check
from floral.data.checks.door import as_examples
from floral.data.checks.host_arrays import fingerprint, generator, row_numbers
from floral.data.clients import FederatedDataset
from floral.data.storage.aligned import joined
from floral.data.storage.flat import from_flat
from floral.data.storage.lazy import LazyArray
from floral.errors import DataError
from floral.typing import Seed

__all__ = ["generated"]

Examples = Callable[[np.random.Generator, int, int], Mapping[str, Any]]


def generated(
    function: Examples,
    *,
    sizes: Mapping[str, Any],
    clients: int | None = None,
    seed: Seed = 0,
    settings: Mapping[str, Any] | None = None,
    traits: Mapping[str, Any] | None = None,
    unseen: Any = None,
    num_classes: int | None = None,
) -> FederatedDataset:
    """A population whose clients' examples are made by a function each time they are read.

    Args:
      function: ``(rng, client, size) -> {"x": [size, ...], "y": [size, ...]}``, pure NumPy, with
        rows of one shape and type whoever asks. The generator is of the seed, the split and the
        client. Threads may call it at the same time.
      sizes: by split how many examples a client has: a number, or one for each client ``[N]``;
        ``"train"`` is needed.
      clients: the number of clients, N; needed unless a split gives each its own size.
      seed: of all examples.
      settings: what the function depends on beside its arguments, of which, with the seed, the
        sizes and the first and last client's examples, the fingerprint is made.
      traits: what is known about the clients, each ``[N, ...]``.
      unseen: ``[N]`` bool, clients that never train; none by default.
      num_classes: the number of classes, or None.

    Raises:
      DataError: if what the function makes of the first client cannot be trained on; while
        training, if another client's cannot, or are of another shape or type.

    Example:
      >>> def ramps(rng, client, size):
      ...     x = rng.standard_normal((size, 1))
      ...     return {"x": x, "y": client * x}
      >>> data = generated(ramps, sizes={"train": 3}, clients=1_000_000)
      >>> third = data.client(999_999)["train"]
      >>> third["x"].shape, bool(np.allclose(third["y"], 999_999 * third["x"]))
      ((3, 1), True)
    """
    if not (callable(function) and check.takes(3, function)):
        raise DataError(
            "function must make a client's examples of (rng, client, size), got "
            f"{check.described(function)}"
        )
    check.seed(seed=seed)
    check.mapping("{'train': 7}", sizes=sizes)
    if clients is not None:
        check.positive_int(clients=clients)
    if settings is not None:
        check.mapping("{'noise': 0.1}", settings=settings)
    counted = {split: _sizes(split, size, clients) for split, size in sizes.items()}
    counted = {split: size for split, size in counted.items() if split == "train" or size.any()}
    if not counted.get("train", np.zeros(0)).any():
        raise DataError("no client has a training example: sizes['train'] is missing or zero")
    name = (
        f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
    )
    says = fingerprint({"function": name, "seed": seed, **(settings or {})})
    offsets = {split: np.concatenate([[0], np.cumsum(size)]) for split, size in counted.items()}
    structs = _structs(function, offsets["train"], seed, num_classes)
    examples = {}
    for split, starts in offsets.items():
        made = _Made(function, split, starts, seed, structs, num_classes)
        examples[split] = {field: _Field(made, field, says) for field in structs}
    return from_flat(examples, offsets, traits=traits, unseen=unseen, num_classes=num_classes)


def _sizes(split: str, size: Any, clients: int | None) -> np.ndarray:
    if np.ndim(size) == 0:
        check.whole(**{f"sizes[{split!r}]": size})
        if clients is None:
            raise DataError("clients must say how many there are, where no split gives N sizes")
        return np.full(clients, size, np.int64)
    each = row_numbers(size, f"sizes[{split!r}]")
    if len(each) != (clients or len(each)) or (each < 0).any():
        raise DataError(f"sizes[{split!r}] must be one number of examples for each client")
    return each


def _structs(
    function: Examples, offsets: np.ndarray, seed: int, num_classes: int | None
) -> dict[str, np.ndarray]:
    """An empty array for each field, as the rows of the first client are."""
    client = int(np.flatnonzero(np.diff(offsets))[0])
    size = int(offsets[client + 1] - offsets[client])
    try:
        made = function(generator(seed, "train", client), client, size)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"function is called with (rng, client, size) and raised {type(error).__name__}: "
            f"{error}"
        ) from error
    arrays, targets = as_examples(made, f"generated client {client}", num_classes=num_classes)
    if targets.class_names is not None:
        raise DataError("generated labels must be numbers: one client cannot number all words")
    if num_classes is not None and np.asarray(made["y"]).dtype.kind not in "biu":
        raise DataError("generated labels of classes must be whole numbers, not floats")
    return {field: array[:0] for field, array in arrays.items()}


class _Made:
    """One split's clients; a thread keeps the last it made, whose fields are read in turn."""

    def __init__(
        self,
        function: Examples,
        split: str,
        offsets: np.ndarray,
        seed: int,
        structs: Mapping[str, np.ndarray],
        num_classes: int | None,
    ):
        self.offsets = offsets
        self.structs = structs
        self._function = function
        self._split = split
        self._seed = seed
        self._num_classes = num_classes
        self._last = threading.local()

    def client(self, k: int) -> dict[str, np.ndarray]:
        if getattr(self._last, "client", None) != k:
            self._last.examples = self._make(k)
            self._last.client = k
        return self._last.examples

    def _make(self, k: int) -> dict[str, np.ndarray]:
        size = int(self.offsets[k + 1] - self.offsets[k])
        made = self._function(generator(self._seed, self._split, k), k, size)
        where = f"generated client {k}, split {self._split!r}"
        if made.keys() != self.structs.keys():
            raise DataError(f"{where} has {', '.join(made)}, expected {', '.join(self.structs)}")
        made, _ = as_examples(made, where, num_classes=self._num_classes)
        examples = {}
        for field, struct in self.structs.items():
            values = made[field].view()
            if values.shape != (size, *struct.shape[1:]) or values.dtype != struct.dtype:
                raise DataError(
                    f"{where}: {field!r} is {values.dtype}{list(values.shape)}, expected "
                    f"{struct.dtype}{[size, *struct.shape[1:]]}"
                )
            values.flags.writeable = False
            examples[field] = values
        return examples


class _Field(LazyArray):
    """One field of a split."""

    def __init__(self, made: _Made, field: str, says: str):
        struct = made.structs[field]
        super().__init__((int(made.offsets[-1]), *struct.shape[1:]), struct.dtype)
        self._made = made
        self._field = field
        self._says = says

    def rows(self, first: int, last: int) -> np.ndarray:
        offsets = self._made.offsets
        parts = [self._made.structs[self._field]]
        k = int(np.searchsorted(offsets, first, side="right")) - 1
        while first < last:
            stop = min(last, int(offsets[k + 1]))
            if stop > first:
                own = self._made.client(k)[self._field]
                parts.append(own[first - int(offsets[k]) : stop - int(offsets[k])])
            first, k = stop, k + 1
        return parts[1] if len(parts) == 2 else joined(parts)

    @property
    def digest(self) -> str:
        ends = {"first": self[:1], "last": self[len(self) - 1 :]}
        return fingerprint({"says": self._says, "field": self._field, **ends})
