"""What travels between server and clients in a round, and the rule for a part no one spoke for."""

from typing import NamedTuple

import jax.numpy as jnp

from floral.typing import Array, Key, PyTree

__all__ = ["Context", "Download", "Reduced", "Upload", "evidence"]

_LEAST_SHARE = 1e-6


class Context(NamedTuple):
    """What a round knows and an algorithm may need; arrays only.

    Attributes:
      round: int32, counted from 0.
      public_key: the same for every client of the round; a public rank is drawn from it.
      num_examples: float32, the client's training examples; for the server those of the cohort.
      cohort_size: float32; under a privacy mechanism the published rate times N.
      traits: the client's own data about itself (cluster, rank, tier, …), never about execution.
    """

    round: Array
    public_key: Key
    num_examples: Array
    cohort_size: Array
    traits: PyTree


class Download(NamedTuple):
    """What one client receives.

    Attributes:
      fresh: what changes from round to round and is sent each time.
      cached: what never changes during training (a frozen base); sent once to each client.
    """

    fresh: PyTree
    cached: PyTree


class Upload(NamedTuple):
    """What one client sends.

    Attributes:
      update: old minus new, as a gradient's sign; e.g. ``{"base": ..., "bank": ...}``.
      weight: a *prefix* of the update: a scalar for a subtree, or [C] for leaves with one entry
        per adaptor.
      sums: further arrays that are summed over clients as they are, never weighted, transformed or
        taken for a change of the model: statistics of clients' data, say. () for none.
    """

    update: PyTree
    weight: PyTree
    sums: PyTree = ()


class Reduced(NamedTuple):
    """What comes out of the reducer.

    Attributes:
      update: the clients' updates made one; zero where there is no evidence.
      weight: Σ_k weight_k, the same prefix: who moved, and by how much evidence.
      sums: Σ_k sums_k of the clients that took part, in float32 at least; a round adds them up,
        not the reducer.
      diagnostics: ``{name: number}``, what the reducer reports of the reduction itself; None for
        nothing.
    """

    update: PyTree
    weight: PyTree
    sums: PyTree = ()
    diagnostics: dict[str, Array] | None = None


def evidence(weight: Array) -> Array:
    """Which entries of a summed weight ([] or [C]) carry enough of it to be trusted, bool.

    An entry counts where it holds more than a millionth of the leaf's whole weight. Elsewhere the
    average would divide rounding noise by nearly nothing, so the value and its server-optimizer
    moments are kept as they are.

    Example:
      >>> evidence(jnp.array([10.0, 0.0, 1e-6])).tolist()
      [True, False, False]
    """
    return weight > _LEAST_SHARE * jnp.sum(weight)
