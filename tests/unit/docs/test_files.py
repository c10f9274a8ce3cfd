"""The files that the pages show as examples are accepted by what reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.spec import read
from distrun.spec.patch import read_patches
from tests.unit.docs.pages import ORIGINALS, Block, blocks_of


def blocks(language: str, word: str) -> list[Block]:
    found = [b for page in ORIGINALS for b in blocks_of(page) if b.language == language]
    return [block for block in found if word in block.text]


@pytest.mark.parametrize("block", blocks("toml", "[tool.distrun"), ids=str)
def test_a_config_file_of_a_page_is_read(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pull-secret.yaml").write_text("spec: {}\n")  # what one of them names
    (tmp_path / "config.toml").write_text(block.text)
    assert read.settings({}, Path("config.toml")) != read.settings({})


@pytest.mark.parametrize("block", blocks("python", "# /// script"), ids=str)
def test_a_header_of_a_page_is_read(block: Block, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(block.text)
    header = read.recipe_header(tmp_path / "train.py")
    assert (header.strategy, header.nproc_per_node) == ("ddp", 2)
    assert header.constraints.world_size.multiple_of == 2


@pytest.mark.parametrize("block", blocks("yaml", "spec:"), ids=str)
def test_a_patch_of_a_page_is_read(block: Block, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "patch.yaml").write_text(block.text)
    assert read_patches(tmp_path / "patch.yaml")
