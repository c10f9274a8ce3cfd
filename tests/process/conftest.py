"""A driver of our own, for whoever tests with GPUs that are not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fakes.driver import build_driver


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a libnvidia-ml.so.1 of our own, for LD_LIBRARY_PATH."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc builds the stand-in")
    return build_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, without the symbols that came with driver 535."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc builds the stand-in")
    return build_driver(tmp_path_factory.mktemp("old_driver"), "-DOLD_DRIVER")
