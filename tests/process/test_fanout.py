"""One supervisor over many nodes: the benchmark of it, on a few, and with few descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fanout_runs import alone, faults, flow

pytestmark = pytest.mark.timeout(120)


def test_all_lines_of_all_nodes_are_in_the_logs(tmp_path: Path) -> None:
    found = flow(tmp_path, 4, 200, 1.0)
    assert found["lines lost"] == 0
    assert all(value > 0 for name, value in found.items() if name != "lines lost")


def test_a_killed_node_is_named_and_all_are_stopped(tmp_path: Path) -> None:
    assert all(value > 0 for value in faults(tmp_path, 4).values())


def test_the_stubs_print_the_same_to_a_loop_that_only_reads() -> None:
    assert alone(4, 200, 1.0)["stubs alone: lines a second"] <= 4 * 200 * 1.1


FORTY = """
import sys
from pathlib import Path
from benchmarks.fanout_runs import flow
print(flow(Path(sys.argv[1]), 40, 40, 1.0)["lines lost"])
"""


def test_forty_nodes_need_no_more_descriptors_than_a_shell_gives(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'ulimit -Sn 64 && exec "$@"', "sh", sys.executable, "-c", FORTY, tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "0\n", done.stderr
