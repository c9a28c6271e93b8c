"""The promise: every public name of the package, written down so that a change of it shows."""

import importlib
import inspect

import pytest

import floral

PUBLIC = {
    "floral": """
        adaptors algorithms compare data load load_run losses metrics mixtures models resume run
        save simulate uplink
    """,
    "floral.adaptors": """
        AdaptedModel Adaptor Bank Factored Op Plan PlanRow Product Rule Weights adapt adapted
        add_adaptors additive bank_parameters best_pair best_pair_of_sum center check_centers
        concatenate conv cosines embedding factor_pairs format_table init_bank likeness low_rank
        make_plan merge permute plan_table precondition remove_adaptors select truncate weights_at
    """,
    "floral.algorithms": """
        Context Diagnostics Download FederatedAlgorithm LocalSolver Reduced Upload apfl as_local
        ditto dual_adaptor ensemble fedavg fedavg_finetuned fedbabu fedbn fedem fedper fedprox
        fedrep fedsa_lora ffa_lora floral ifca knn_per local_adaptor local_only local_solver partial
        pfedme scaffold solve
    """,
    "floral.data": """
        Augment Batches Batching FederatedDataset LazyArray Partition Partitioner Shift Source Split
        SyntheticTask arrays as_batches batching blocks cifar digits dirichlet distinct_examples
        federate federated flip_crop from_clients from_dataset from_flat from_npz gather generated
        huggingface idx iid label_clusters label_shift load_partition locate mapped mnist
        natural noise none npz num_steps permute quantity_skew rotate save_mapped save_partition
        saved schedule shards show split_clients synthetic_linear synthetic_mlp synthetic_population
        tfds
    """,
    "floral.errors": "ConfigError DataError FloralError PrivacyError SpecError",
    "floral.losses": "cross_entropy squared_error",
    "floral.metrics": """
        Difference Estimate Metric accuracy auc balanced_accuracy between_clients between_seeds
        confusion from_per_example gini jain macro_f1 mae over_clients over_seeds rmse
        top_k_accuracy welch worst_share
    """,
    "floral.mixtures": """
        Clustering DiscriminantsState Mixing Refresh aggregation_mismatch aggregation_weights
        agreement cluster_scores discriminants effective_adaptors effective_clients entropy
        exponential_weights known matching per_layer responsibilities shares_of sharpness softmax
        top_k traits_check
    """,
    "floral.models": "Model augmented cnn from_equinox from_function from_linen from_nnx linear "
    "mlp resnet vgg vit",
    "floral.simulate": """
        Costs Execution Personalization Sampler SimulationState Simulator Variances best_start
        execution fixed full grow make_simulator personalization sample_batch scheduled start_key
    """,
    "floral.uplink": "Fold Reducer Uplink clip factor_mean product_mean residual_mean uplink "
    "weighted_mean",
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names.split()]


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_those_written_here(module):
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module].split())


def test_every_public_folder_is_listed():
    folders = {
        f"floral.{name}" for name in floral.__all__ if inspect.ismodule(getattr(floral, name))
    }
    assert folders | {"floral", "floral.errors"} == set(PUBLIC)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[".".join(name) for name in NAMES])
def test_every_public_name_resolves_and_is_documented(module, name):
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
        said = value.__doc__ or ""
        # What a NamedTuple says by itself is its signature.
        assert said.strip()
        assert not said.startswith(f"{name}(")


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[".".join(name) for name in NAMES])
def test_the_arguments_of_public_functions_are_documented(module, name):
    """Keyword-only arguments, that is: they are what a config sets."""
    value = getattr(importlib.import_module(module), name)
    if not inspect.isfunction(value):
        return
    settings = [
        given.name
        for given in inspect.signature(value).parameters.values()
        if given.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    missing = [setting for setting in settings if f"{setting}:" not in (value.__doc__ or "")]
    assert not missing


def test_names_that_are_not_public_do_not_resolve():
    with pytest.raises(AttributeError, match="module 'floral' has no attribute 'session'"):
        floral.session  # noqa: B018
    assert set(floral.__all__) <= set(dir(floral))
