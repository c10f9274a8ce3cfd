"""The console blocks of docs/clusters.md, on hosts behind sshd: they print what the page says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts
from tests.unit.docs.pages import ROOT
from tests.unit.docs.told import is_as_told, said_on

CLUSTERS = ROOT / "docs" / "clusters.md"
pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


def prints_what_the_page_says(hosts: Hosts, cwd: Path, line: str, told: str) -> None:
    """Run a line that begins with `distrun launch`, and look for each line that the page has of it.

    Hosts answer in any order.
    """
    done = subprocess.run(
        [sys.executable, "-m", "distrun", *line.split()[1:]],
        cwd=cwd,
        env=hosts.ssh_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    printed = done.stdout.splitlines()
    for words in filter(None, (each.strip("…") for each in told.splitlines())):
        assert any(is_as_told(each, words) for each in printed), f"{words}\n{done.stdout}"


def test_a_recipe_on_two_hosts(hosts: Hosts, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    line = "distrun launch --hosts n01,n02 recipes/ddp.py"
    prints_what_the_page_says(hosts, tmp_path, line, said_on(CLUSTERS, line))


def test_a_host_that_cannot_be_reached(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    told = said_on(CLUSTERS, "Permission denied").replace("ada@n02", "…")
    told = told.replace("n02", "unknown-key")
    line = "distrun launch --hosts n01,unknown-key train.py"
    prints_what_the_page_says(hosts, tmp_path, line, told)


def test_a_project_that_is_sent_again(hosts: Hosts, tmp_path: Path) -> None:
    for number in range(15):
        (tmp_path / f"part{number}.py").write_text("# a part\n")
    (tmp_path / "train.py").write_text("print('trained')\n")
    with (tmp_path / "ckpt.pt").open("wb") as file:
        file.truncate(210_000_000)
    line = "distrun launch --hosts n01,n02 --sync train.py"
    there = line.replace("--sync", "--sync --workdir /home/job")
    prints_what_the_page_says(hosts, tmp_path, there, "")
    (tmp_path / "train.py").write_text("print('again')\n" + "# more\n" * 1200)
    prints_what_the_page_says(hosts, tmp_path, there, said_on(CLUSTERS, line))
    for name in ("n01", "n02"):
        hosts.run(name, ["rm", "-r", "/home/job"])
