"""Models: two pure functions over any params tree, and a small zoo."""

from floral.models.base import Model, augmented, from_function
from floral.models.cnn import cnn
from floral.models.frameworks.equinox import from_equinox
from floral.models.frameworks.linen import from_linen
from floral.models.frameworks.nnx import from_nnx
from floral.models.mlp import linear, mlp
from floral.models.resnet import resnet
from floral.models.vgg import vgg
from floral.models.vit import vit

__all__ = [
    "Model",
    "augmented",
    "cnn",
    "from_equinox",
    "from_function",
    "from_linen",
    "from_nnx",
    "linear",
    "mlp",
    "resnet",
    "vgg",
    "vit",
]
