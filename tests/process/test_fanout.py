"""One supervisor over many nodes: the benchmark of it, on a few, and with few descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fanout_runs import Printed, alone, faults, flow, flushed

FEW = Printed(lines_per_s=200, seconds=1.0, lines_a_frame=10)

pytestmark = pytest.mark.timeout(120)


def test_all_lines_of_all_nodes_are_in_the_logs(tmp_path: Path) -> None:
    for found in (flow(tmp_path, 4, FEW), flushed(tmp_path, 4, FEW)):
        lost = [value for name, value in found.items() if name.endswith("lines lost")]
        assert lost == [0]
        assert sum(value > 0 for value in found.values()) == len(found) - 1


def test_a_killed_node_is_named_and_all_are_stopped(tmp_path: Path) -> None:
    assert all(value > 0 for value in faults(tmp_path, 4).values())


def test_the_stubs_print_the_same_to_a_loop_that_only_reads() -> None:
    assert 0 < alone(4, FEW)["stubs alone: lines a second"] <= 4 * 200 * 1.1


FORTY = """
import sys
from pathlib import Path
from benchmarks.fanout_runs import Printed, flow
print(flow(Path(sys.argv[1]), 40, Printed(40, 1.0))["lines lost"])
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
