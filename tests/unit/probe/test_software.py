"""The version of NCCL, from the names of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun import __version__
from distrun.probe.reading import Unread
from distrun.probe.software import nccl_version, read_software
from tests.unit.probe.tree import grow

WHEEL = "site/nvidia_nccl_cu12-2.27.5.dist-info/METADATA"


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ((WHEEL,), "2.27.5"),
        (
            ("site/nvidia_nccl_cu13-2.28.9.dist-info/METADATA", "usr/lib64/libnccl.so.2.1.1"),
            "2.28.9",
        ),
        (("site/torch/lib/libnccl.so.2.21.5",), "2.21.5"),
        (("usr/lib/x86_64-linux-gnu/libnccl.so.2.19.3",), "2.19.3"),
    ],
)
def test_it_is_the_one_that_torch_loads(
    files: tuple[str, ...], version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    root = grow(tmp_path, dict.fromkeys(files, ""))
    assert nccl_version(root, root / "site/torch") == version


def test_a_link_is_followed_to_the_name_with_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = grow(tmp_path, {"opt/libnccl.so.2.18.1": ""}) / "opt/libnccl.so.2"
    library.symlink_to("libnccl.so.2.18.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", f":/no such;folder:{library.parent}")
    assert nccl_version(tmp_path, None) == "2.18.1"


@pytest.mark.parametrize(
    "files", [(), ("site/torch/lib/libnccl.so.2",), ("site/nvidia_nccl_cu12-x.dist-info/METADATA",)]
)
def test_a_name_without_a_version_tells_none(
    files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    root = grow(tmp_path, dict.fromkeys(files, ""))
    with pytest.raises(Unread, match="no file name contains its version"):
        nccl_version(root, root / "site/torch")


def test_this_environment_is_told() -> None:
    found = read_software()
    assert found.distrun == __version__
    assert found.torch.startswith("2.")
    assert found.nccl or found.missing["nccl"]
