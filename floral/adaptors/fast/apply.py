"""The fast path: a model with its bank, applied without building the personal weights.

`merge` defines the outputs. Here the leaves of plain flax layers stay as they are, and the layer's
output gains what the mixture of the bank adds to it: one thin pair of products for all C adaptors.

A leaf that `survey` does not see in a plain layer, and exactly once, is merged. So what the method
does not understand costs speed and never correctness, and models of other libraries simply merge.
While the base is trained too, leaves that then cost less merged are merged as well: see `choice`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from floral import check
from floral.adaptors.bank import check_bank, merge_leaves, weighted_deltas, weights_at
from floral.adaptors.base import Bank, Plan, Rule, Weights
from floral.adaptors.fast.choice import cheaper_merged, mixed_delta
from floral.adaptors.fast.ops import read_op
from floral.adaptors.fast.survey import known_leaf, refusals
from floral.adaptors.plan import make_plan
from floral.errors import SpecError
from floral.models.base import Model
from floral.models.frameworks.given import check_model
from floral.tree import map_with_path, paths
from floral.typing import Batch, Key, Params, PyTree

__all__ = ["AdaptedApply", "AdaptedModel", "adapt", "adapted"]


class AdaptedApply(Protocol):
    """``(params, stats, bank, weights, batch, *, key=None, train=False) -> (outputs, stats)``."""

    def __call__(
        self,
        params: Params,
        stats: PyTree,
        bank: Bank,
        weights: Weights,
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Any, PyTree]: ...


class AdaptedModel(NamedTuple):
    """A model as a function of base, bank and mixture.

    Attributes:
      apply: see ``AdaptedApply``; the fast path, wherever there is one.
      apply_training: ``(paths) -> AdaptedApply``, the same function for training that moves these
        params too: of them it merges those that then cost less merged.
      methods: for every adapted leaf how ``apply`` treats it, ``"fast"`` or ``"merged: <why>"``.
      plan: which leaf has which adaptor.
      params: structs of the model's params.
      batch: structs of the batch that it was made with.
      stats: structs of the model's statistics; ``()`` if there are none.
    """

    apply: AdaptedApply
    apply_training: Callable[[Collection[str]], AdaptedApply]
    methods: dict[str, str]
    plan: Plan
    params: Params
    batch: Batch
    stats: PyTree = ()


def adapt(model: Model, rules: Sequence[Rule], batch: Batch) -> AdaptedModel:
    """The model with the adaptors that the rules give its leaves: `make_plan`, then `adapted`.

    Args:
      model: any model.
      rules: which leaves are adapted and how; the first match decides.
      batch: an example of its batches, arrays or ShapeDtypeStructs.

    Raises:
      SpecError: for a rule that decides nothing, or an adaptor that does not fit a leaf.

    Example:
      >>> from floral.adaptors import Rule, low_rank
      >>> from floral.models.frameworks.linen import from_linen
      >>> batch = {"x": jnp.ones((4, 3))}
      >>> adapt(from_linen(nn.Dense(2)), [Rule(".*/kernel", low_rank(rank=1))], batch).methods
      {'params/kernel': 'fast'}
    """
    check_model(model)
    if not isinstance(batch, Mapping) or "x" not in batch:
        raise SpecError(
            "batch must be a mapping with 'x', as fl.simulate.sample_batch(dataset) makes, got "
            f"{check.described(batch)}"
        )
    structs = jax.tree.map(_struct, dict(batch))
    params, stats = jax.eval_shape(model.init, jax.random.key(0), structs)
    return adapted(model, make_plan(rules, params), structs, params=params, stats=stats)


def adapted(
    model: Model,
    plan: Plan,
    batch: Batch,
    *,
    params: Params | None = None,
    stats: PyTree = None,
) -> AdaptedModel:
    """The model with the plan's adaptors: ``model.apply(merge(base, bank, w, plan), …)``, faster.

    Traces the model once in training and once in evaluation, computing nothing, to decide for
    every leaf whether it stays factored.

    Args:
      model: any model; those of ``flax.linen`` have a fast path.
      plan: made for the model's params.
      batch: an example of its batches, arrays or ShapeDtypeStructs.
      params: arrays or structs of the model's params; by default as ``model.init`` makes them.
      stats: the same of its stats.

    Returns:
      The adapted model. Its functions raise SpecError when traced if bank or mixture do not fit
      the plan, or if the model does not meet the leaves that it met here.

    Example:
      >>> from floral.adaptors import Rule, init_bank, low_rank, make_plan
      >>> from floral.models.frameworks.linen import from_linen
      >>> model, batch = from_linen(nn.Dense(2)), {"x": jnp.ones((4, 3))}
      >>> params, stats = model.init(jax.random.key(0), batch)
      >>> plan = make_plan([Rule(".*/kernel", low_rank(rank=1))], params)
      >>> fast = adapted(model, plan, batch)
      >>> fast.methods
      {'params/kernel': 'fast'}
      >>> bank = init_bank(jax.random.key(1), plan, num_adaptors=3)
      >>> outputs, _ = fast.apply(params, stats, bank, jnp.ones(3) / 3, batch)
      >>> outputs.shape
      (4, 2)
    """
    batch = jax.tree.map(_struct, dict(batch))
    if params is None or stats is None:
        made = jax.eval_shape(model.init, jax.random.key(0), batch)
        params = made[0] if params is None else params
        stats = made[1] if stats is None else stats
    structs, stats_structs = jax.tree.map(_struct, (params, stats))
    reasons = refusals(model, plan, structs, stats_structs, batch)
    methods = {
        path: f"merged: {reasons[path]}" if path in reasons else "fast" for path in plan.adaptors
    }
    fast = {
        path: adaptor.apply
        for path, adaptor in plan.adaptors.items()
        if path not in reasons and adaptor.apply is not None
    }

    def apply_training(trained: Collection[str]) -> AdaptedApply:
        own = [path for path in fast if path in trained]

        def apply(params, stats, bank, weights, batch, *, key=None, train=False):
            check_bank(bank, weights, plan)
            given = (params, stats, bank, weights, batch)
            merged = reasons.keys() | cheaper_merged(model, plan, own, *given, train=train)
            for delta, chosen in (
                (mixed_delta, merged.intersection(trained)),
                (weighted_deltas, merged.difference(trained)),
            ):
                adaptors = {path: plan.adaptors[path] for path in chosen}
                params = merge_leaves(params, bank, weights, adaptors, delta)
            params = _distinct(params)
            beside = {path: extra for path, extra in fast.items() if path not in merged}
            leaves = {id(leaf): path for path, leaf in paths(params).items() if path in beside}
            met: Counter[str] = Counter()

            def add_delta(layer_call, args, kwargs, context):
                outputs = layer_call(*args, **kwargs)
                path = known_leaf(context, leaves)
                if path is None:
                    return outputs
                met[path] += 1
                op = read_op(context.module, args, kwargs, plan.leaves[path].shape, outputs)
                if isinstance(op, str):
                    raise SpecError(f"the layer of {path!r} is called otherwise than planned: {op}")
                mixture = weights_at(weights, path)
                extra = beside[path](op, bank.trained[path], bank.fixed[path], mixture)
                return outputs + extra.astype(outputs.dtype)

            with nn.intercept_methods(add_delta):
                outputs, stats = model.apply(params, stats, batch, key=key, train=train)
            _check_met(met, beside)
            return outputs, stats

        return apply

    return AdaptedModel(
        apply=apply_training(()),
        apply_training=apply_training,
        methods=methods,
        plan=plan,
        params=structs,
        batch=batch,
        stats=stats_structs,
    )


def _distinct(params: Params) -> Params:
    """The same params with an object of its own at every path: an array that stands at two paths
    is copied, since a leaf is known by its identity."""
    seen: set[int] = set()

    def own(path: str, leaf: Any) -> Any:
        if id(leaf) in seen:
            return jnp.array(leaf, copy=True)
        seen.add(id(leaf))
        return leaf

    return map_with_path(own, params)


def _check_met(met: Counter[str], fast: Iterable[str]) -> None:
    for path in fast:
        if met[path] != 1:
            raise SpecError(
                f"the layer of {path!r} ran {met[path]} times here and once when the model was "
                "adapted: it branches on something; adapt it with such a batch and such params"
            )


def _struct(value: Any) -> jax.ShapeDtypeStruct:
    dtype = value.dtype if hasattr(value, "dtype") else jnp.result_type(value)
    return jax.ShapeDtypeStruct(jnp.shape(value), dtype)
