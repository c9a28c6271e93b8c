"""The cases that all of conformance is asked of: ``named`` is ``(algorithm, its settings)``."""

import inspect

import optax
import pytest

from floral import algorithms

CASES = {
    "fedavg": ("fedavg", {}),
    "floral": ("floral", {}),
    "floral, stateless": ("floral", {"stateful": False, "server_optimizer": None}),
    "local_adaptor": ("local_adaptor", {}),
    "ensemble": ("ensemble", {}),
    "ensemble, stateless": ("ensemble", {"stateful": False, "server_optimizer": None}),
    "partial": ("partial", {"private": ("params/Dense_0/bias",)}),
    "fedper": ("fedper", {"head": ("params/Dense_0/bias",)}),
    "fedbn": ("fedbn", {"norms": ("params/Dense_0/bias",)}),
    "local_only": ("local_only", {}),
    "fedrep": ("fedrep", {"private": ("params/Dense_0/bias",), "head_passes": 2}),
    "fedbabu": ("fedbabu", {"head": ("params/Dense_0/bias",)}),
    "fedavg_finetuned": ("fedavg_finetuned", {}),
    "fedprox": ("fedprox", {}),
    "ditto": ("ditto", {}),
    "scaffold": ("scaffold", {}),
    "apfl": ("apfl", {}),
    "pfedme": ("pfedme", {"pull": 2.0}),
    "fedsa_lora": ("fedsa_lora", {}),
    "dual_adaptor": ("dual_adaptor", {}),
    "ffa_lora": ("ffa_lora", {}),
    "fedem": ("fedem", {"num_models": 2}),
    "ifca": ("ifca", {"num_models": 2}),
    "knn_per": ("knn_per", {"of_classes": True}),
}
SERVER = {"server_optimizer": optax.adam(0.01)}  # it remembers, and moves by what it remembers


def pytest_generate_tests(metafunc):
    if "named" in metafunc.fixturenames:
        named = [(name, _server(name) | settings) for name, settings in CASES.values()]
        ids = [name.replace(", ", "-") for name in CASES]
        metafunc.parametrize("named", named, ids=ids, scope="module")


def _server(name):
    """The server optimizer's setting, for an algorithm that has one."""
    takes = inspect.signature(getattr(algorithms, name)).parameters
    return SERVER if "server_optimizer" in takes else {}


@pytest.fixture(scope="session")
def cases():
    return CASES
