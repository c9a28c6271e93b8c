"""Leaves that are trained themselves: which of them cost less merged, and how they are merged.

Beside its layer, the mixture of a bank takes thin products over every position that the layer acts
at: examples, times pixels or tokens. Merged, it takes products of the kernel's own size, however
many the positions, and then the whole gradient of the kernel. Where the kernel is trained that
gradient is there anyway, and what is left decides: a convolution over large images costs less
merged, a dense layer on a few examples does not. Either way a gradient costs about twice what its
function does, so that functions are compared.

Where the kernel is frozen, nothing else asks for its gradient, and clients side by side share its
products as long as it is not merged: the fast path stays.

Merging sums no C deltas, which would be C kernels to keep for the gradient: the mixture of a bank
is itself one adaptor, of C times the rank.
"""

from collections.abc import Collection
from typing import Any

import jax

from floral.adaptors.bank import weighted_deltas, weights_at
from floral.adaptors.base import Adaptor, Bank, Op, Plan, Weights
from floral.adaptors.fast.survey import ops_met
from floral.models.base import Model
from floral.operations import work_of
from floral.typing import Array, Batch, Params, PyTree

__all__ = ["cheaper_merged", "mixed_delta"]


def cheaper_merged(
    model: Model,
    plan: Plan,
    own: Collection[str],
    params: Params,
    stats: PyTree,
    bank: Bank,
    weights: Weights,
    batch: Batch,
    *,
    train: bool,
) -> set[str]:
    """Those of the leaves that cost less merged with this batch.

    Traces the model once, computing nothing, for what its layers are called with. A leaf that no
    layer is then seen to meet is not among them.

    Args:
      model: any model.
      plan: made for its params.
      own: paths of leaves that are trained themselves and have a fast path.
      params, stats, bank, weights, batch: what the model is applied to; their shapes alone count.
      train: whether it is applied in training.
    """
    if not own:
        return set()
    structs = jax.eval_shape(lambda *values: values, params, stats, dict(batch))
    ops = ops_met(model, plan, *structs, train=train)

    def cheaper(path: str) -> bool:
        factors = (bank.trained[path], bank.fixed[path], weights_at(weights, path))
        return path in ops and _merging_costs_less(plan.adaptors[path], ops[path], *factors)

    return {path for path in own if cheaper(path)}


def mixed_delta(
    adaptor: Adaptor, trained: dict[str, Array], fixed: PyTree, weights: Array
) -> Array:
    """As `weighted_deltas`: the delta of the one adaptor that the mixture is, if there is one."""
    if adaptor.mix is None:
        return weighted_deltas(adaptor, trained, fixed, weights)
    return adaptor.delta(adaptor.mix(trained, weights), fixed)


def _merging_costs_less(
    adaptor: Adaptor, op: Op, trained: dict[str, Array], fixed: PyTree, weights: Array
) -> bool:
    apply = adaptor.apply
    assert apply is not None  # optional in Adaptor alone; leaves with a fast path have one

    def beside(inputs: Array, *factors: Any) -> Array:
        return apply(op._replace(inputs=inputs), *factors)

    def merged(*factors: Any) -> Array:
        return mixed_delta(adaptor, *factors)

    factors = (trained, fixed, weights)
    return work_of(merged, *factors).operations < work_of(beside, op.inputs, *factors).operations
