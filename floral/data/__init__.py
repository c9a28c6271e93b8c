"""Data: where examples come from, how they are dealt to clients, how a cohort is batched."""

from floral.data.augment import Augment, flip_crop
from floral.data.batches import (
    Batching,
    batching,
    gather,
    locate,
    num_steps,
    schedule,
)
from floral.data.build import federate
from floral.data.clients import FederatedDataset, Split, federated, from_clients
from floral.data.lookup import Batches, as_batches, distinct_examples, show
from floral.data.ownership import Partition, load_partition, save_partition, split_clients
from floral.data.partition import (
    Partitioner,
    blocks,
    dirichlet,
    iid,
    label_clusters,
    natural,
    quantity_skew,
    saved,
    shards,
)
from floral.data.shift import Shift, label_shift, noise, none, permute, rotate
from floral.data.sources.cifar import cifar
from floral.data.sources.hubs import huggingface, tfds
from floral.data.sources.idx_files import digits, idx, mnist
from floral.data.sources.in_memory import Source, arrays, from_npz, npz
from floral.data.sources.tables import from_dataset
from floral.data.storage.flat import from_flat
from floral.data.storage.generated import generated
from floral.data.storage.lazy import LazyArray
from floral.data.storage.mapped import mapped, save_mapped
from floral.data.storage.population import synthetic_population
from floral.data.synthetic import SyntheticTask, synthetic_linear, synthetic_mlp

__all__ = [
    "Augment",
    "Batches",
    "Batching",
    "FederatedDataset",
    "LazyArray",
    "Partition",
    "Partitioner",
    "Shift",
    "Source",
    "Split",
    "SyntheticTask",
    "arrays",
    "as_batches",
    "batching",
    "blocks",
    "cifar",
    "digits",
    "dirichlet",
    "distinct_examples",
    "federate",
    "federated",
    "flip_crop",
    "from_clients",
    "from_dataset",
    "from_flat",
    "from_npz",
    "gather",
    "generated",
    "huggingface",
    "idx",
    "iid",
    "label_clusters",
    "label_shift",
    "load_partition",
    "locate",
    "mapped",
    "mnist",
    "natural",
    "noise",
    "none",
    "npz",
    "num_steps",
    "permute",
    "quantity_skew",
    "rotate",
    "save_mapped",
    "save_partition",
    "saved",
    "schedule",
    "shards",
    "show",
    "split_clients",
    "synthetic_linear",
    "synthetic_mlp",
    "synthetic_population",
    "tfds",
]
