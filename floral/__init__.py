"""Personalized federated learning with mixtures of low-rank adaptors.

Public names are resolved when they are first used, so that ``import floral`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floral import (
        adaptors,
        algorithms,
        data,
        losses,
        metrics,
        mixtures,
        models,
        simulate,
        uplink,
    )
    from floral.records.tree_file import load, save
    from floral.reports.comparison import compare
    from floral.runs.run import load_run, resume, run

__all__ = [
    "adaptors",
    "algorithms",
    "compare",
    "data",
    "load",
    "load_run",
    "losses",
    "metrics",
    "mixtures",
    "models",
    "resume",
    "run",
    "save",
    "simulate",
    "uplink",
]

_RUNS = {
    "compare": "floral.reports.comparison",
    "load": "floral.records.tree_file",
    "load_run": "floral.runs.run",
    "resume": "floral.runs.run",
    "run": "floral.runs.run",
    "save": "floral.records.tree_file",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("floral")
    if name not in __all__:
        raise AttributeError(f"module 'floral' has no attribute {name!r}")
    if name in _RUNS:
        return getattr(import_module(_RUNS[name]), name)
    return import_module(f"floral.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
