"""The places of a config, and the factories that may stand there.

A keyword annotated with one of the types below is read as the area of that type. Nothing is
imported before an area is used.
"""

from importlib import import_module

from floral.config.schema.arguments import Area, Schema, Section
from floral.config.schema.forms import Named, Place

__all__ = [
    "ADAPTOR",
    "ALGORITHM",
    "AREAS",
    "CHECKPOINT",
    "COHORT",
    "DATA",
    "EVALUATE",
    "EXECUTION",
    "EXPERIMENT",
    "LOCAL",
    "LOSS",
    "METRIC",
    "MIXING",
    "MODEL",
    "RESTARTS",
    "SCHEMA",
    "STOP",
    "TOP_LEVEL",
    "UPLINK",
]


def _from(module: str, *names: str):
    """A loader of the named factories of a module, under their own names."""
    return lambda: {name: getattr(import_module(module), name) for name in names}


def _one(module: str, name: str):
    return lambda: getattr(import_module(module), name)


def _local():
    module = import_module("floral.algorithms.toolbox.optimizers")
    as_local = import_module("floral.algorithms.toolbox.local").as_local
    return {name: as_local(getattr(module, name)) for name in module.__all__}


def _adaptors():
    module = import_module("floral.adaptors")
    names = ("low_rank", "conv", "embedding", "additive")
    wiring = import_module("floral.config.sections")
    return {**{name: getattr(module, name) for name in names}, "none": wiring.no_adaptor}


SOURCE = Area(
    "source",
    _from(
        "floral.data",
        "digits",
        "npz",
        "from_npz",
        "idx",
        "mnist",
        "cifar",
        "huggingface",
        "tfds",
        "synthetic_linear",
        "synthetic_mlp",
        "synthetic_population",
        "mapped",
    ),
)
PARTITION = Area(
    "partition",
    _from(
        "floral.data",
        "iid",
        "blocks",
        "dirichlet",
        "shards",
        "quantity_skew",
        "natural",
        "label_clusters",
        "saved",
    ),
)
SHIFT = Area("shift", _from("floral.data", "none", "rotate", "label_shift", "permute", "noise"))
DATA = Section("data", _one("floral.config.sections", "population"))
MODEL = Area("model", _from("floral.models", "mlp", "linear", "cnn", "vgg", "resnet", "vit"))
ADAPTOR = Area("adaptor", _adaptors, extra=lambda: (import_module("floral.config.sections").rule,))
MIXING = Area(
    "mixing",
    _from(
        "floral.mixtures",
        "softmax",
        "top_k",
        "exponential_weights",
        "responsibilities",
        "discriminants",
        "known",
    ),
)


def _algorithms():
    named = _from(
        "floral.algorithms",
        "floral",
        "fedavg",
        "local_adaptor",
        "ensemble",
        "partial",
        "fedper",
        "fedbn",
        "fedrep",
        "fedbabu",
        "fedavg_finetuned",
        "fedprox",
        "ditto",
        "scaffold",
        "apfl",
        "pfedme",
        "fedsa_lora",
        "ffa_lora",
        "dual_adaptor",
        "ifca",
        "fedem",
        "knn_per",
    )
    return {**named(), "local": import_module("floral.algorithms").local_only}


ALGORITHM = Area("algorithm", _algorithms)
OPTIMIZER = Area(
    "optimizer",
    _from("floral.algorithms.toolbox.optimizers", "sgd", "adam", "adamw", "yogi", "adagrad"),
)
SCHEDULE = Area(
    "schedule",
    _from("floral.algorithms.toolbox.schedules", "cosine", "linear", "step", "linear_warm_up"),
)
AUGMENT = Area("augment", _from("floral.data", "flip_crop"))
LOCAL = Area(
    "local", _local, extra=lambda: (import_module("floral.config.sections").local_training,)
)


def _losses():
    module, wiring = (import_module(f"floral.{name}") for name in ("losses", "config.sections"))
    named = {name: getattr(module, name) for name in ("cross_entropy", "squared_error")}
    return {"auto": wiring.auto_loss, **named}


LOSS = Named("loss", _losses)
METRIC = Area(
    "metric",
    _from(
        "floral.metrics",
        "accuracy",
        "auc",
        "balanced_accuracy",
        "macro_f1",
        "mae",
        "rmse",
        "top_k_accuracy",
    ),
    ready=lambda: (import_module("floral.metrics").Metric,),
)
TRANSFORM = Area("transform", _from("floral.uplink", "clip"))
REDUCER = Area(
    "reducer",
    _from("floral.uplink", "weighted_mean", "factor_mean", "product_mean", "residual_mean"),
)
UPLINK = Section("uplink", _one("floral.uplink", "uplink"))
COHORT = Area("cohort", _from("floral.simulate", "fixed", "full"))
EXECUTION = Section("execution", _one("floral.simulate", "execution"))
EVALUATE = Section("evaluate", _one("floral.config.sections", "evaluation"))
CHECKPOINT = Section("checkpoint", _one("floral.config.sections", "checkpointing"))
RESTARTS = Section("restarts", _one("floral.config.sections", "restarts"))
STOP = Section("stop", _one("floral.config.sections", "stop"))
EXPERIMENT = Section("experiment", _one("floral.config.sections", "experiment"))

_BY_TYPE: dict[str, Place] = {
    "Source": SOURCE,
    "Partitioner": PARTITION,
    "Shift": SHIFT,
    "FederatedDataset": DATA,
    "Model": MODEL,
    "Rule": ADAPTOR,
    "Mixing": MIXING,
    "FederatedAlgorithm": ALGORITHM,
    "GradientTransformation": OPTIMIZER,
    "Schedule": SCHEDULE,
    "Augment": AUGMENT,
    "LocalTraining": LOCAL,
    "LossName": LOSS,
    "Metric": METRIC,
    "GradientTransformationExtraArgs": TRANSFORM,
    "Reducer": REDUCER,
    "Uplink": UPLINK,
    "Sampler": COHORT,
    "Execution": EXECUTION,
    "Evaluation": EVALUATE,
    "Checkpointing": CHECKPOINT,
    "Restarts": RESTARTS,
    "Stopping": STOP,
}

AREAS = tuple(_BY_TYPE.values())

SCHEMA = Schema(_BY_TYPE)

TOP_LEVEL = (
    "seed",
    "rounds",
    "data",
    "model",
    "loss",
    "metrics",
    "adaptors",
    "mixing",
    "algorithm",
    "local",
    "uplink",
    "cohort",
    "evaluate",
    "checkpoint",
    "execution",
    "start_from",
    "restarts",
    "stop",
    "compare",
    "only",
)
