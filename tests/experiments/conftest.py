"""The experiments' scripts, imported as modules."""

import importlib
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def imported(monkeypatch):
    """``(name, folder="floral") -> module``: a script of a folder of ``experiments``."""

    def of(name, folder="floral"):
        monkeypatch.syspath_prepend(EXPERIMENTS / folder)
        return importlib.import_module(name)

    return of
