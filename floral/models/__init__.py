"""Models: two pure functions over any params tree, and a small zoo."""

from floral.models._cnn import cnn
from floral.models._mlp import linear, mlp
from floral.models._resnet import resnet
from floral.models._vgg import vgg
from floral.models._vit import vit
from floral.models.base import Model, augmented, from_function
from floral.models.frameworks.equinox import from_equinox
from floral.models.frameworks.linen import from_linen
from floral.models.frameworks.nnx import from_nnx

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
