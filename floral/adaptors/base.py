"""How one leaf of the params may change: the `Adaptor`, the rule that assigns it, and the plan.

An adaptor has a slow definition, ``delta``, and may have a fast path, ``apply``. The definition
is what is tested; the fast path must equal it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax

from floral.typing import Array, Key, PyTree

__all__ = ["Adaptor", "Bank", "Factored", "Op", "Plan", "Product", "Rule", "Weights"]

Weights: TypeAlias = Array | Mapping[str, Array]
"""A mixture ``[C]`` for the whole network, or ``{path prefix: [C]}`` for one per layer."""


class Op(NamedTuple):
    """One use of a leaf by the network: what the fast path needs to know of it.

    Attributes:
      kind: ``"dense"`` (contract the last axes of the input with the kernel's first),
        ``"conv"`` or ``"embed"`` (look rows up).
      inputs: what the layer was called with.
      shape: the leaf's shape.
      settings: static facts of the layer: for dense ``axes`` (of the input, contracted), for conv
        ``strides``, ``padding`` (explicit pairs), ``kernel_dilation``.
      dtype: the dtype that the layer computes in.
      precision: the layer's matrix-product precision.
    """

    kind: str
    inputs: Array
    shape: tuple[int, ...]
    settings: Mapping[str, Any]
    dtype: Any = None
    precision: Any = None


class Product(NamedTuple):
    """How a pair of factors is a product of two matrices, ``scale · leftᵀ right``.

    Attributes:
      matrices: ``(trained) -> (left [R, rows], right [R, columns])`` of one adaptor.
      pair: ``(left, right, like) -> trained`` with these matrices; ``like`` has the shapes and
        dtypes of one adaptor's factors.
      leaf: ``(matrix [rows, columns], like) -> array`` of the leaf's shape, times the scale:
        ``leaf(leftᵀ right, trained) = delta(trained)``.
      scale: of the delta.
    """

    matrices: Callable[[dict[str, Array]], tuple[Array, Array]]
    pair: Callable[[Array, Array, PyTree], dict[str, Array]]
    leaf: Callable[[Array, PyTree], Array]
    scale: float


class Adaptor(NamedTuple):
    """How one leaf may change.

    Attributes:
      init: ``(key, leaf: ShapeDtypeStruct) -> (trained, fixed)``. ``trained`` is a dict of arrays
        whose delta is exactly zero at the start, unless the factory was told otherwise; ``fixed``
        holds frozen factors, shared by the whole bank, kept by the server and never uploaded;
        ``()`` if there are none.
      delta: ``(trained, fixed, rank=None) -> array`` of the leaf's shape: the meaning. With a
        rank (an integer, possibly traced) only the first ``rank`` directions count.
      apply: ``(op, trained [C, ...], fixed, weights [C]) -> array``, what the mixture of the
        whole bank adds to the op's output; None where there is no faster way than ``delta``.
      supports: ``(op) -> bool``: whether ``apply`` serves this op.
      precondition: ``(gradients, trained, epsilon) -> gradients`` of one adaptor's factors,
        rescaled by the other factor's Gram matrix; None where nothing is factored.
      kind: the factory's name, for tables.
      rank: ``(leaf) -> int``, the rank the adaptor takes on that leaf; None if it has none.
      truncate: ``(trained, rank) -> trained`` of one adaptor, all directions but the first
        ``rank`` (possibly traced) set to zero, the shapes kept; None where there is no rank.
      mix: ``(trained [C, ...], weights [C]) -> trained`` of the one adaptor whose delta is
        ``Σ_c w_c · delta_c``, such as a pair of C·R directions; None where there is none.
      product: how the factors are a product of two matrices; None where they are not a pair.
    """

    init: Callable[[Key, jax.ShapeDtypeStruct], tuple[dict[str, Array], PyTree]]
    delta: Callable[..., Array]
    apply: Callable[[Op, dict[str, Array], PyTree, Array], Array] | None = None
    supports: Callable[[Op], bool] = lambda op: False
    precondition: Callable[[dict[str, Array], dict[str, Array], float], dict[str, Array]] | None = (
        None
    )
    kind: str = "adaptor"
    rank: Callable[[jax.ShapeDtypeStruct], int] | None = None
    truncate: Callable[[dict[str, Array], Any], dict[str, Array]] | None = None
    mix: Callable[[dict[str, Array], Array], dict[str, Array]] | None = None
    product: Product | None = None


class Rule(NamedTuple):
    """The first rule whose regular expression matches a leaf's whole path decides.

    Attributes:
      match: a regular expression for the whole path string, as ``.*/kernel``.
      adaptor: the adaptor of the matching leaves; None leaves them alone on purpose.
    """

    match: str
    adaptor: Adaptor | None


class Plan(NamedTuple):
    """Which leaf has which adaptor.

    Attributes:
      adaptors: by path string, in the params' order; leaves without an adaptor are absent.
      leaves: shape and dtype of every leaf of the params, adapted or not, by path string.
    """

    adaptors: dict[str, Adaptor]
    leaves: dict[str, jax.ShapeDtypeStruct]

    def __repr__(self) -> str:
        kinds = [adaptor.kind for adaptor in self.adaptors.values()]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        return f"Plan({len(kinds)} of {len(self.leaves)} leaves adapted: {counts or 'none'})"


class Bank(NamedTuple):
    """C adaptors for every leaf of a plan.

    Attributes:
      trained: ``{path: {factor: [C, ...]}}``.
      fixed: ``{path: frozen factors}``, one set shared by the C adaptors.
    """

    trained: dict[str, dict[str, Array]]
    fixed: dict[str, PyTree]


class Factored(NamedTuple):
    """The factor pairs that a server averages over clients, as who averages them must know them.

    Attributes:
      pairs: the adaptors whose factors all reach the server, more than one of each, by path.
      base: the paths of the base that reach the server.
      values: ``(server) -> {"bank": {path: {factor: [C, ...]}}, ...}``, what updates are changes
        of.
      plain: whether the server takes averages as they are; False under a server optimizer.
    """

    pairs: dict[str, Adaptor]
    base: frozenset[str]
    values: Callable[[Any], dict[str, Any]]
    plain: bool
