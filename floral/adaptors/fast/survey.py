"""Which leaves of a model may stay factored, decided by watching traces of it.

Which leaf a layer holds is told by the *identity* of the array, never by names: inside a lifted
transform (scan, vmap, remat, jit) a layer holds another array than the model was given, and is not
recognised. A leaf that is not recognised, or not recognised exactly once, is refused.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from floral.adaptors.base import Adaptor, Op, Plan
from floral.adaptors.fast.ops import LEAF_NAMES, read_op
from floral.adaptors.fast.uses import count_uses
from floral.models.base import Model
from floral.tree import paths
from floral.typing import Batch, Key, Params, PyTree

__all__ = ["known_leaf", "ops_met", "refusals"]


def refusals(
    model: Model, plan: Plan, params: Params, stats: PyTree, batch: Batch
) -> dict[str, str]:
    """Why adapted leaves cannot take the fast path, by path; those that can are absent.

    Traces the model once in evaluation and once in training, computing nothing.

    Args:
      model: any model.
      plan: made for its params.
      params: structs of its params.
      stats: structs of its stats.
      batch: structs of one of its batches.
    """

    def refused(train: bool) -> dict[str, str]:
        survey = _survey(model, plan, params, stats, batch, train)
        reasons = {path: _refusal(path, adaptor, survey) for path, adaptor in plan.adaptors.items()}
        return {path: reason for path, reason in reasons.items() if reason is not None}

    evaluation, training = (refused(train) for train in (False, True))
    return {path: f"{why} (in training)" for path, why in training.items()} | evaluation


def ops_met(
    model: Model, plan: Plan, params: Params, stats: PyTree, batch: Batch, *, train: bool
) -> dict[str, Op]:
    """The ops of the adapted leaves that one known layer meets, by path, their inputs as structs.

    Traces the model once, computing nothing; arguments are as ``refusals`` has them.
    """
    meetings = _survey(model, plan, params, stats, batch, train).meetings
    ops = {path: met[0].op for path, met in meetings.items() if len(met) == 1}
    return {
        path: op._replace(inputs=jax.ShapeDtypeStruct(op.inputs.shape, op.inputs.dtype))
        for path, op in ops.items()
        if isinstance(op, Op)
    }


def known_leaf(context: nn.module.InterceptorContext, leaves: dict[int, str]) -> str | None:
    """The path of the leaf that a known layer's ``__call__`` acts with, if it is one of these.

    Args:
      context: of a method that is called while the model runs.
      leaves: the paths of the adapted leaves, by the ``id`` of their arrays in this run.
    """
    layer = context.module
    name = LEAF_NAMES.get(type(layer))
    if name is None or layer.scope is None or context.method_name != "__call__":
        return None
    held = jax.tree.leaves(layer.get_variable("params", name))  # may be boxed, as in nn.Partitioned
    return leaves.get(id(held[0])) if len(held) == 1 else None


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
            known = known_leaf(context, leaves)
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
