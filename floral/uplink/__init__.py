"""From the clients' updates to the server's one."""

from floral.uplink.base import Fold, Reducer, Uplink
from floral.uplink.factors import factor_mean, product_mean, residual_mean
from floral.uplink.mean import weighted_mean
from floral.uplink.transforms import clip, uplink

__all__ = [
    "Fold",
    "Reducer",
    "Uplink",
    "clip",
    "factor_mean",
    "product_mean",
    "residual_mean",
    "uplink",
    "weighted_mean",
]
