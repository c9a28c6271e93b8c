"""The fast path: a model with its bank, applied without building the personal weights.

`merge` defines the outputs. Here the leaves of plain flax layers stay as they are, and the layer's
output gains what the mixture of the bank adds to it: one thin pair of products for all C adaptors.

Which leaf a layer holds is told by the *identity* of the array, never by names: inside a lifted
transform (scan, vmap, remat, jit) a layer holds another array than the model was given, and is not
recognised. What is not recognised, or not recognised exactly once, is merged. So what the method
does not understand costs speed and never correctness, and models of other libraries simply merge.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from floral.adaptors.bank import check_bank, merge_leaves, weights_at
from floral.adaptors.base import Adaptor, Bank, Op, Plan, Rule, Weights
from floral.adaptors.ops import LEAF_NAMES, read_op
from floral.adaptors.plan import make_plan
from floral.adaptors.uses import count_uses
from floral.errors import SpecError
from floral.models.base import Model
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
      apply: see ``AdaptedApply``.
      methods: for every adapted leaf ``"fast"`` or ``"merged: <why>"``.
      plan: which leaf has which adaptor.
      params: structs of the model's params.
    """

    apply: AdaptedApply
    methods: dict[str, str]
    plan: Plan
    params: Params


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
      >>> from floral.models.base import from_linen
      >>> batch = {"x": jnp.ones((4, 3))}
      >>> adapt(from_linen(nn.Dense(2)), [Rule(".*/kernel", low_rank(rank=1))], batch).methods
      {'params/kernel': 'fast'}
    """
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
      The adapted model. Its ``apply`` raises SpecError when traced if bank or mixture do not fit
      the plan, or if the model does not meet the leaves that it met here.

    Example:
      >>> from floral.adaptors import Rule, init_bank, low_rank, make_plan
      >>> from floral.models.base import from_linen
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
    evaluation, training = (
        _refusals(_survey(model, plan, structs, stats_structs, batch, train), plan)
        for train in (False, True)
    )
    reasons = {path: f"{why} (in training)" for path, why in training.items()} | evaluation
    methods = {
        path: f"merged: {reasons[path]}" if path in reasons else "fast" for path in plan.adaptors
    }
    fast = {
        path: adaptor.apply
        for path, adaptor in plan.adaptors.items()
        if path not in reasons and adaptor.apply is not None
    }
    slow = {path: plan.adaptors[path] for path in reasons}

    def apply(params, stats, bank, weights, batch, *, key=None, train=False):
        check_bank(bank, weights, plan)
        params = _distinct(merge_leaves(params, bank, weights, slow))
        leaves = {id(leaf): path for path, leaf in paths(params).items() if path in fast}
        met: Counter[str] = Counter()

        def add_delta(layer_call, args, kwargs, context):
            outputs = layer_call(*args, **kwargs)
            path = _known_leaf(context, leaves)
            if path is None:
                return outputs
            met[path] += 1
            op = read_op(context.module, args, kwargs, plan.leaves[path].shape, outputs)
            if isinstance(op, str):
                raise SpecError(f"the layer of {path!r} is called otherwise than planned: {op}")
            mixture = weights_at(weights, path)
            extra = fast[path](op, bank.trained[path], bank.fixed[path], mixture)
            return outputs + extra.astype(outputs.dtype)

        with nn.intercept_methods(add_delta):
            outputs, stats = model.apply(params, stats, batch, key=key, train=train)
        _check_met(met, fast)
        return outputs, stats

    return AdaptedModel(apply=apply, methods=methods, plan=plan, params=structs)


class _Meeting(NamedTuple):
    """A layer that was seen to hold a leaf, the method that was called, and its op: the reason why
    there is none, or None where the method is not a known layer's own."""

    layer: str
    method: str
    op: Op | str | None


class _Survey(NamedTuple):
    """What one trace of the model showed: who met each leaf, how often the program reads it, and
    which leaves a layer holds by name while holding another array."""

    meetings: dict[str, list[_Meeting]]
    uses: dict[str, int]
    lifted: set[str]


def _survey(
    model: Model, plan: Plan, params: Params, stats: PyTree, batch: Batch, train: bool
) -> _Survey:
    """Traces the model, leaving it as it is, and watches its layers."""
    meetings: dict[str, list[_Meeting]] = defaultdict(list)
    lifted: set[str] = set()

    def traced(params: Params, stats: PyTree, batch: Batch, key: Key) -> Any:
        leaves = {id(leaf): path for path, leaf in paths(params).items() if path in plan.adaptors}

        def watch(layer_call, args, kwargs, context):
            outputs = layer_call(*args, **kwargs)
            if context.module.scope is None or context.method_name == "setup":
                return outputs
            known = _known_leaf(context, leaves)
            for name, leaf in _own_leaves(context.module):
                path = leaves.get(id(leaf))
                if path is None:
                    lifted.update(_named(plan, context.module, name))
                    continue
                op = None
                if path == known:
                    op = read_op(context.module, args, kwargs, leaf.shape, outputs)
                layer = type(context.module).__name__
                meetings[path].append(_Meeting(layer, context.method_name, op))
            return outputs

        with nn.intercept_methods(watch):
            return model.apply(params, stats, batch, key=key, train=train)

    program = jax.make_jaxpr(traced)(params, stats, batch, jax.random.key(0))
    # The program's first inputs are the params' leaves; those of stats, batch and key follow.
    uses = dict(zip(paths(params), count_uses(program.jaxpr), strict=False))
    return _Survey(meetings, uses, lifted)


def _refusals(survey: _Survey, plan: Plan) -> dict[str, str]:
    """Why leaves cannot take the fast path, by path; those that can are absent."""
    reasons = {path: _refusal(path, adaptor, survey) for path, adaptor in plan.adaptors.items()}
    return {path: reason for path, reason in reasons.items() if reason is not None}


def _refusal(path: str, adaptor: Adaptor, survey: _Survey) -> str | None:
    if adaptor.apply is None:
        return f"{adaptor.kind} has no fast path"
    met = survey.meetings.get(path, [])
    if not met:
        lifted = "inside a lifted transform (nn.scan, nn.vmap, nn.remat, nn.jit, …)"
        return lifted if path in survey.lifted else "never met"
    strange = next((meeting for meeting in met if meeting.op is None), None)
    if strange is not None:
        return f"met through {strange.layer}.{strange.method}"
    if len(met) > 1:
        return f"met {len(met)} times (a shared layer)"
    op = met[0].op
    if not isinstance(op, Op):
        return op
    if survey.uses[path] != 1:
        return "also read outside its layer"
    return None if adaptor.supports(op) else f"{adaptor.kind} does not serve this layer"


def _known_leaf(context: nn.module.InterceptorContext, leaves: dict[int, str]) -> str | None:
    """The path of the leaf that a known layer's ``__call__`` acts with, if it is one of these."""
    layer = context.module
    name = LEAF_NAMES.get(type(layer))
    if name is None or layer.scope is None or context.method_name != "__call__":
        return None
    held = jax.tree.leaves(layer.get_variable("params", name))  # may be boxed, as in nn.Partitioned
    return leaves.get(id(held[0])) if len(held) == 1 else None


def _own_leaves(module: nn.Module) -> Iterable[tuple[str, Any]]:
    """The parameters that the module itself holds, its submodules' apart."""
    for name, value in module.variables.get("params", {}).items():
        if not isinstance(value, Mapping):
            for leaf in jax.tree.leaves(value):
                yield name, leaf


def _named(plan: Plan, module: nn.Module, name: str) -> list[str]:
    """The adapted paths that end in the module's own: for telling why, never for deciding."""
    ending = "/".join((*module.path, name))
    return [path for path in plan.adaptors if f"/{path}".endswith(f"/{ending}")]


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
