"""Data: where examples come from, how they are dealt to clients, how a cohort is batched."""

from floral.data.clients import (
    Batching,
    FederatedDataset,
    Split,
    batching,
    federated,
    from_clients,
    gather,
    num_steps,
)

__all__ = [
    "Batching",
    "FederatedDataset",
    "Split",
    "batching",
    "federated",
    "from_clients",
    "gather",
    "num_steps",
]
