"""Federated algorithms: tuples of pure functions over pytrees."""

from floral.algorithms.base import Context, Download, FederatedAlgorithm, Reduced, Upload
from floral.algorithms.clustered import ensemble
from floral.algorithms.fedavg import fedavg
from floral.algorithms.floral import floral
from floral.algorithms.local import LocalSolver, as_local, local_solver, solve
from floral.algorithms.local_adaptor import local_adaptor

__all__ = [
    "Context",
    "Download",
    "FederatedAlgorithm",
    "LocalSolver",
    "Reduced",
    "Upload",
    "as_local",
    "ensemble",
    "fedavg",
    "floral",
    "local_adaptor",
    "local_solver",
    "solve",
]
