"""A bank of C adaptors, and what it means: the weights of a personal model.

A client is a mixture w on the simplex over the bank; its model has the leaves
``base + Σ_c w_c · delta_c``. `merge` is that definition and works for every params tree; `adapted`
computes the same outputs without building the deltas.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from floral import check
from floral.adaptors.base import Adaptor, Bank, Plan, Weights
from floral.errors import SpecError
from floral.random import check_key, stream
from floral.tree import map_with_path, num_parameters, paths
from floral.typing import Array, Key, Params, PyTree

__all__ = [
    "add_adaptors",
    "bank_parameters",
    "check_bank",
    "concatenate",
    "init_bank",
    "merge",
    "merge_leaves",
    "permute",
    "remove_adaptors",
    "select",
    "truncate",
    "weighted_deltas",
    "weights_at",
]


def init_bank(key: Key, plan: Plan, num_adaptors: int) -> Bank:
    """C adaptors whose deltas are zero, each with random factors of its own.

    The draws of adaptor c depend on the key, the path and c alone: a larger bank begins with the
    smaller one. Frozen factors are drawn once for all.

    Args:
      key: the randomness of the factors.
      plan: which leaves are adapted, and how.
      num_adaptors: C.

    Example:
      >>> from floral.adaptors import Rule, low_rank, make_plan
      >>> plan = make_plan([Rule(".*", low_rank(rank=2))], {"kernel": jnp.ones((8, 4))})
      >>> jax.tree.map(jnp.shape, init_bank(jax.random.key(0), plan, 3).trained)
      {'kernel': {'a': (3, 2, 8), 'b': (3, 2, 4)}}
    """
    _check_plan(plan)
    check.positive_int(num_adaptors=num_adaptors)
    check_key(key)

    def trained(key: Key, path: str, adaptor: Adaptor) -> dict[str, Array]:
        def draw(index: Array) -> dict[str, Array]:
            return adaptor.init(stream(key, path, index), plan.leaves[path])[0]

        return jax.vmap(draw)(jnp.arange(num_adaptors))

    @jax.jit  # one program for all leaves compiles in about half the time of one a leaf
    def draw_all(key: Key) -> Bank:
        return Bank(
            trained={path: trained(key, path, adaptor) for path, adaptor in plan.adaptors.items()},
            fixed={
                path: adaptor.init(stream(key, f"{path} fixed"), plan.leaves[path])[1]
                for path, adaptor in plan.adaptors.items()
            },
        )

    return draw_all(key)


def merge(
    base: Params, bank: Bank, weights: Weights, plan: Plan, *, rank: int | Array | None = None
) -> Params:
    """The personal model's params: ``base + Σ_c w_c · delta_c`` at every adapted leaf.

    Args:
      base: the params that the plan was made for; leaves keep their dtype.
      bank: the C adaptors.
      weights: the mixture ``[C]``, or one per layer as ``{path prefix: [C]}``.
      plan: which leaves are adapted, and how.
      rank: if given, only the first ``rank`` directions of each adaptor count.

    Raises:
      SpecError: when traced, if bank, weights or base do not fit the plan.

    Example:
      >>> from floral.adaptors import Rule, additive, make_plan
      >>> base = {"bias": jnp.zeros(2)}
      >>> plan = make_plan([Rule(".*", additive())], base)
      >>> bank = Bank({"bias": {"offset": jnp.array([[1.0, 2.0], [3.0, 4.0]])}}, {"bias": ()})
      >>> merge(base, bank, jnp.array([0.5, 0.5]), plan)["bias"]
      Array([2., 3.], dtype=float32)

    Source: the FLoRAL paper (arXiv 2410.03497), section 3.2.
    """
    check_bank(bank, weights, plan)
    delta = partial(weighted_deltas, rank=rank)
    return merge_leaves(base, bank, weights, plan.adaptors, delta)


def merge_leaves(
    base: Params,
    bank: Bank,
    weights: Weights,
    adaptors: Mapping[str, Adaptor],
    delta: Callable[[Adaptor, dict[str, Array], PyTree, Array], Array],
) -> Params:
    """`merge` at the leaves named by ``adaptors`` only; the others are left as they are. ``delta``
    is ``weighted_deltas`` or equals it."""
    for path in sorted(adaptors.keys() - paths(base).keys()):
        raise SpecError(f"the base lacks {path!r}{check.did_you_mean(path, paths(base))}")

    def adapt(path: str, leaf: Any) -> Any:
        if path not in adaptors:
            return leaf
        factors = (bank.trained[path], bank.fixed[path], weights_at(weights, path))
        return (leaf + delta(adaptors[path], *factors)).astype(leaf.dtype)

    return map_with_path(adapt, base)


def weighted_deltas(
    adaptor: Adaptor,
    trained: dict[str, Array],
    fixed: PyTree,
    weights: Array,
    *,
    rank: int | Array | None = None,
) -> Array:
    """``Σ_c w_c · delta_c`` of one leaf, from factors ``[C, ...]`` and weights ``[C]``."""
    deltas = jax.vmap(lambda one: adaptor.delta(one, fixed, rank))(trained)  # [C, *leaf]
    return jnp.tensordot(weights, deltas, axes=1)


def weights_at(weights: Weights, path: str) -> Array:
    """The mixture of the layer that a path belongs to: that of the longest prefix of the path.

    Args:
      weights: ``[C]``, or ``{path prefix: [C]}``; the prefix ``""`` covers everything.
      path: a leaf's path string.

    Raises:
      SpecError: if no prefix covers the path.

    Example:
      >>> weights_at({"": "all", "params/Dense_1": "mine"}, "params/Dense_1/kernel")
      'mine'
    """
    if not isinstance(weights, Mapping):
        return weights
    covering = [prefix for prefix in weights if _covers(prefix, path)]
    if not covering:
        raise SpecError(
            f"no mixture covers {path!r}; prefixes: {', '.join(map(repr, weights))} "
            "(the prefix '' covers everything)"
        )
    return weights[max(covering, key=len)]


def select(bank: Bank, index: int | Array) -> dict[str, dict[str, Array]]:
    """The factors of one adaptor, without the leading axis; the index may be traced."""
    return jax.tree.map(lambda factor: factor[index], bank.trained)


def permute(bank: Bank, order: Sequence[int] | Array) -> Bank:
    """The bank whose adaptor c is the given one's ``order[c]``; the order may leave some out."""
    indices = jnp.asarray(order)
    return bank._replace(trained=jax.tree.map(lambda factor: factor[indices], bank.trained))


def concatenate(first: Bank, *others: Bank) -> Bank:
    """One bank of all the adaptors in turn. Frozen factors are the first bank's: the others must
    have been trained with the same ones."""

    def join(*factors: Array) -> Array:
        return jnp.concatenate(factors)

    trained = (other.trained for other in others)
    return first._replace(trained=jax.tree.map(join, first.trained, *trained))


def add_adaptors(bank: Bank, key: Key, plan: Plan, count: int) -> Bank:
    """The bank with ``count`` new adaptors at its end, their deltas zero."""
    return concatenate(bank, init_bank(key, plan, count))


def remove_adaptors(bank: Bank, indices: Sequence[int]) -> Bank:
    """The bank without the adaptors at the given (static) indices."""
    size = _num_adaptors(bank)
    for index in indices:
        check.in_range(0, size - 1, index=index)
    return permute(bank, [index for index in range(size) if index not in set(indices)])


def truncate(bank: Bank, plan: Plan, rank: int | Array) -> Bank:
    """The bank as a client of a smaller rank holds it: all directions but the first ``rank``
    (possibly traced) are zero, shapes are kept, adaptors without a rank too.

    ``merge(base, truncate(bank, plan, r), w, plan) = merge(base, bank, w, plan, rank=r)``.
    """

    def cut(path: str, factors: dict[str, Array]) -> dict[str, Array]:
        adaptor_truncate: Callable[..., dict[str, Array]] | None = plan.adaptors[path].truncate
        if adaptor_truncate is None:
            return factors
        return jax.vmap(lambda one: adaptor_truncate(one, rank))(factors)

    return bank._replace(trained={path: cut(path, bank.trained[path]) for path in bank.trained})


def bank_parameters(plan: Plan) -> int:
    """How many numbers one adaptor trains over all the leaves of the plan."""
    _check_plan(plan)
    return num_parameters(
        {
            path: jax.eval_shape(adaptor.init, jax.random.key(0), plan.leaves[path])[0]
            for path, adaptor in plan.adaptors.items()
        }
    )


def _check_plan(plan: Any) -> None:
    check.instance_of(Plan, "fl.adaptors.make_plan(rules, params)", plan=plan)


def check_bank(bank: Bank, weights: Weights, plan: Plan) -> None:
    """Raises SpecError unless the bank has the plan's paths, one C throughout, and every path a
    mixture ``[C]``."""
    expected, given = plan.adaptors.keys(), bank.trained.keys()
    for path in sorted(expected - given):
        raise SpecError(f"the bank lacks {path!r}{check.did_you_mean(path, given)}")
    for path in sorted(given - expected):
        raise SpecError(f"the bank has {path!r}, which the plan leaves alone")
    for path, factors in bank.trained.items():
        shape = jnp.shape(weights_at(weights, path))
        for name, factor in factors.items():
            if shape != jnp.shape(factor)[:1]:
                raise SpecError(
                    f"the mixture of {path!r} has shape {shape}, its factor {name!r} of the bank "
                    f"{jnp.shape(factor)}: expected [C] and [C, ...]"
                )


def _covers(prefix: str, path: str) -> bool:
    return prefix in ("", path) or path.startswith(prefix.rstrip("/") + "/")


def _num_adaptors(bank: Bank) -> int:
    return jax.tree.leaves(bank.trained)[0].shape[0]
