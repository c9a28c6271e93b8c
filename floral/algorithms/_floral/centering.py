"""A server that moves the mean of the adaptors to the base after every round."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from floral import tree
from floral.adaptors import Bank, Plan, center, check_centers
from floral.algorithms.toolbox.parts import Parts
from floral.errors import SpecError

__all__ = ["then_centered"]


def then_centered(aggregate: Callable[..., Any], plan: Plan, parts: Parts) -> Callable[..., Any]:
    """The aggregation, and adaptors of mean zero after it; a round of no one changes nothing.

    Args:
      aggregate: ``(server, reduced, context) -> server``, a server with base, bank and active.
      plan: which leaf has which adaptor.
      parts: which of them clients train together.

    Raises:
      SpecError: for adaptors that cannot be centered, or that not all clients share.
    """
    check_centers(plan)
    for part in ("base", "bank"):
        for path, shared in tree.paths(parts.shared[part]).items():
            if not shared and (part == "bank" or path in plan.adaptors):
                raise SpecError(
                    f"center_adaptors moves {part}/{path}, which clients do not train together: "
                    "train base and bank, and keep neither private"
                )

    def aggregate_and_center(server, reduced, context):
        moved = aggregate(server, reduced, context)
        base, bank = center(moved.base, Bank(moved.bank, moved.fixed), plan, moved.active)
        anyone = jnp.any(reduced.weight["base"] > 0)
        base, trained = tree.select(anyone, (base, bank.trained), (moved.base, moved.bank))
        return moved._replace(base=base, bank=trained)

    return aggregate_and_center
