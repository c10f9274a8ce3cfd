"""What every test of the recipes needs: their imports, and a cache that is not the user's."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from tests.recipes.launching import RECIPES


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The recipes keep the text of the standard library in a cache; here all workers share one."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp().parent / "cache")
    yield
    del os.environ["XDG_CACHE_HOME"]
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a recipe as its siblings do."""
    monkeypatch.syspath_prepend(str(RECIPES))

    def load(name: str) -> ModuleType:
        with warnings.catch_warnings():
            # torch's own: its package of distributed optimizers makes TorchScript when imported
            warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
            return importlib.import_module(name)

    return load
