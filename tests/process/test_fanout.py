"""One supervisor over many nodes: the benchmark of it, on a few, and with few descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fanout import faults, flow

pytestmark = pytest.mark.timeout(120)


def test_all_lines_of_all_nodes_are_in_the_logs(tmp_path: Path) -> None:
    joined_s, rss_mib, _, _, lost = flow(tmp_path, 4, 200, 1.0)
    assert lost == 0
    assert joined_s > 0
    assert rss_mib > 1


def test_a_killed_node_is_named_and_all_are_stopped(tmp_path: Path) -> None:
    named_s, stopped_s = faults(tmp_path, 4)
    assert named_s >= 0
    assert stopped_s >= 0


def test_forty_nodes_need_no_more_descriptors_than_a_shell_gives(tmp_path: Path) -> None:
    line = f"ulimit -Sn 64 && exec {sys.executable} -m benchmarks.fanout --agents 40"
    done = subprocess.run(
        ["sh", "-c", f"{line} --lines 40 --seconds 1"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
