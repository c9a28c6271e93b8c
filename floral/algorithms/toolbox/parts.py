"""Which parts of a model are trained, and which of those a client keeps to itself.

FLoRAL's values are ``{"base": params, "bank": {path: factors}, "mixture": logits}``. Every leaf
has one role: *frozen* (no one trains it), *shared* (trained and averaged) or *private* (it lives
in the client's row and never leaves). Roles are given by path globs, so that training the mixture
alone, one factor of each pair, or sharing A and keeping B are the same algorithm.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import optax

from floral import check, tree
from floral.errors import SpecError
from floral.typing import PyTree

__all__ = ["Parts", "by_part", "roles", "true_paths"]


class Parts(NamedTuple):
    """Masks of Python booleans over the values.

    Attributes:
      trained: leaves that local training moves.
      private: leaves that live in the client's row, trained or not.
      shared: leaves that are trained and uploaded.
      beside: of the parts beside the values, the leaves that live in the client's row.
    """

    trained: PyTree
    private: PyTree
    shared: PyTree
    beside: dict[str, PyTree]

    @property
    def any_shared(self) -> bool:
        """Whether anything is; else nothing that the server holds may move."""
        return any(jax.tree.leaves(self.shared))


def roles(
    values: dict[str, PyTree],
    train: Sequence[str],
    private: Sequence[str],
    *,
    beside: Mapping[str, PyTree] | None = None,
) -> Parts:
    """The role of every leaf.

    Args:
      values: arrays or structs under the names of the parts.
      train: globs of what is trained, such as ``base`` or ``bank/**/b``.
      private: globs of what stays with the client.
      beside: further parts that may stay with the client, but are never trained: statistics.

    Raises:
      SpecError: for a glob that matches nothing; names the nearest path.
    """
    check.globs(train=train, private=private)
    beside = dict(beside or {})
    for name, globs, parts in (("train", train, values), ("private", private, values | beside)):
        known = [*parts, *tree.paths(parts)]
        for glob in globs:
            if not any(jax.tree.leaves(tree.matching(parts, [glob]))):
                raise SpecError(
                    f"{name}: {glob!r} matches none of the parts {', '.join(parts)} nor a path "
                    f"below them{tree.glob_hint(glob, known)}"
                )
    trained = tree.matching(values, train)
    kept = tree.matching(values, private)
    shared = jax.tree.map(lambda moves, stays: moves and not stays, trained, kept)
    return Parts(trained, kept, shared, tree.matching(beside, private))


def true_paths(mask: PyTree) -> list[str]:
    """The paths where a mask is True."""
    return [path for path, marked in tree.paths(mask).items() if marked]


def by_part(
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    preconditioner: optax.GradientTransformation | None = None,
    frozen: Mapping[str, PyTree] | None = None,
) -> optax.GradientTransformation:
    """One optimizer a part, and the bank's gradients preconditioned first.

    Args:
      optimizers: by part name.
      preconditioner: of the bank; sees both factors of a pair, also where one is frozen.
      frozen: the values that are not trained, None elsewhere.
    """

    def init(params):
        return {part: optimizers[part].init(values) for part, values in params.items()}

    def update(updates, state, params=None):
        assert params is not None  # optional in optax's signature alone; local training gives them
        if preconditioner is not None and frozen is not None:
            factors = tree.combine(params["bank"], frozen["bank"])
            bank, _ = preconditioner.update(updates["bank"], optax.EmptyState(), factors)
            updates = {**updates, "bank": bank}
        steps, states = {}, {}
        for part, values in updates.items():
            steps[part], states[part] = optimizers[part].update(values, state[part], params[part])
        return steps, states

    return optax.GradientTransformation(init, update)
