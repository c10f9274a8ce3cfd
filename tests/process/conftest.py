"""Launches to act on, a driver for GPUs that are not there, a Kubernetes server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distrun.api import kubernetes_jobs
from distrun.runs.directory import RunDirectory
from distrun.schedulers.kube_access import Access
from tests.fakes.driver import build_driver
from tests.process.launched import Launched

if TYPE_CHECKING:
    from tests.process.kubernetes_server import ApiServer


@pytest.fixture
def launched(command: list[str], tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Launch in the background, in the test's own directory."""
    runs: list[Launched] = []

    def launch(*words: object) -> Launched:
        runs.append(Launched(command, tmp_path, *words))
        return runs[-1]

    yield launch
    for run in runs:
        run.process.kill()
        run.process.communicate()


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


@pytest.fixture
def machine(driver: Path, tmp_path: Path) -> Callable[..., Mapping[str, str]]:
    """An environment with that driver and a torch that says it was built for CUDA."""
    torch = tmp_path / "site" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise ImportError('only its version may be read')")
    (torch / "version.py").write_text("__version__ = '2.13.0'\ncuda: str = '13.0'\n")

    def environment(**fakes: object) -> Mapping[str, str]:
        environ = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        paths = [str(torch.parent), os.environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        environ["LD_LIBRARY_PATH"] = str(driver)
        return environ | {name: str(value) for name, value in fakes.items()}

    (tmp_path / "train.py").write_text("import torch\n")
    return environment


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[ApiServer]:
    """A Kubernetes API server."""
    from tests.process.kubernetes_server import api_server

    with api_server(tmp_path) as started:
        yield started


@pytest.fixture
def kube_run(kube: ApiServer, tmp_path: Path) -> RunDirectory:
    """A run that was submitted to it."""
    from tests.process.kubernetes_jobs import a_record, objects

    access = Access(kubeconfig=str(kube.kubeconfig()))
    return kubernetes_jobs.submit(objects(), access, tmp_path / "runs", a_record())[0]
