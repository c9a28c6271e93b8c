"""Models: two pure functions over any params tree, and a small zoo."""

from floral.models.base import Model, from_equinox, from_function, from_linen, from_nnx

__all__ = ["Model", "from_equinox", "from_function", "from_linen", "from_nnx"]
