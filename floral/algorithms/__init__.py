"""Federated algorithms: tuples of pure functions over pytrees."""

from floral.algorithms._apfl import apfl
from floral.algorithms._ditto import ditto
from floral.algorithms._dual_adaptor import dual_adaptor
from floral.algorithms._fedavg import fedavg, fedprox
from floral.algorithms._fedbabu import fedavg_finetuned, fedbabu
from floral.algorithms._fedem import fedem
from floral.algorithms._floral.factory import floral
from floral.algorithms._ifca import ifca
from floral.algorithms._knn_per import knn_per
from floral.algorithms._local_adaptor import local_adaptor
from floral.algorithms._partial import fedbn, fedper, fedrep, local_only, partial
from floral.algorithms._pfedme import pfedme
from floral.algorithms._scaffold import scaffold
from floral.algorithms.base import (
    Context,
    Diagnostics,
    Download,
    FederatedAlgorithm,
    Reduced,
    Upload,
)
from floral.algorithms.clustered import ensemble
from floral.algorithms.lora import fedsa_lora, ffa_lora
from floral.algorithms.toolbox.local import LocalSolver, as_local, local_solver, solve

__all__ = [
    "Context",
    "Diagnostics",
    "Download",
    "FederatedAlgorithm",
    "LocalSolver",
    "Reduced",
    "Upload",
    "apfl",
    "as_local",
    "ditto",
    "dual_adaptor",
    "ensemble",
    "fedavg",
    "fedavg_finetuned",
    "fedbabu",
    "fedbn",
    "fedem",
    "fedper",
    "fedprox",
    "fedrep",
    "fedsa_lora",
    "ffa_lora",
    "floral",
    "ifca",
    "knn_per",
    "local_adaptor",
    "local_only",
    "local_solver",
    "partial",
    "pfedme",
    "scaffold",
    "solve",
]
