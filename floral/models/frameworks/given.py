"""Whether what was given as a model is one, and if not, what would make it one."""

from typing import Any

from floral.check import described
from floral.errors import SpecError
from floral.models.base import Model

__all__ = ["check_model"]

_WRAPPERS = {
    "flax.linen": "fl.models.from_linen(module)",
    "flax.nnx": "fl.models.from_nnx(lambda rngs: Module(..., rngs=rngs))",
    "equinox": "fl.models.from_equinox(lambda key: Module(..., key=key))",
}


def check_model(model: Any) -> None:
    """Raises SpecError unless it is a ``Model``; names the wrapper that makes one of a module."""
    if isinstance(model, Model):
        return
    kinds = model.__mro__ if isinstance(model, type) else type(model).__mro__
    for kind in kinds:
        for library, wrapper in _WRAPPERS.items():
            if kind.__module__.startswith(library):
                raise SpecError(
                    f"model: {described(model)} is a module of {library}, and no Model yet; wrap "
                    f"it: {wrapper}"
                )
    if hasattr(model, "plan") and hasattr(model, "apply_training"):
        raise SpecError(
            f"model: expected a Model, got {type(model).__name__}; pass the model that was adapted"
        )
    hint = "; call it, as fl.models.mlp(outputs)" if callable(model) else ""
    raise SpecError(
        "model must be a Model, as fl.models.mlp(outputs) or fl.models.from_function(init, apply) "
        f"makes, got {described(model)}{hint}"
    )
