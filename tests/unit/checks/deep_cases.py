"""What --deep measured with one thing wrong, and a port that somebody has."""

from __future__ import annotations

from dataclasses import replace

from distrun.probe.snapshot import Measured, MeasuredLink, MeasuredRank, Reach
from tests.unit.checks.cases import FAIL, NODE, NODES, WARN, Case

_RANKS = tuple(MeasuredRank(r, "NVIDIA H100 GPU-0000000", 700e12, 55e9) for r in range(8))
_LINKS = tuple(MeasuredLink(a, b, 300e9) for a in range(8) for b in range(a + 1, 8))
_FINE = Measured("", "nccl", _RANKS, 30e-6, True, _LINKS)
MEASURED = (replace(NODE[0], measured=_FINE),)
_OWN = Reach("node0", "node0", "", 29500, "is in use by another process (python, pid 42)")
_M = "0.measured."

DEEP_CASES = (
    Case("deep.job", _M + "problem", "rank 3 failed first: OSError", FAIL, "rank 3", MEASURED),
    Case("deep.job", _M + "all_reduce_right", False, FAIL, "wrong sum", MEASURED),
    Case("deep.matmul", _M + "ranks.3.matmul_flops", 559e12, WARN, "559 TFLOP/s", MEASURED),
    Case("deep.copy", _M + "ranks.5.copy_bandwidth", 27e9, WARN, "27 GB/s", MEASURED),
    Case("deep.pairs", _M + "slow", ("link 2-5 is slow: 3.1 times the usual time",), WARN,
         "link 2-5 is slow", MEASURED),
    Case("host.port", "0.reaches", (_OWN,), FAIL, "port 29500 is in use by another"),
    Case("host.port", "0.reaches", (_OWN, *NODES[0].reaches), FAIL, "port 29500 is", NODES),
)  # fmt: skip
SILENT_WHEN_MEASURED = (
    ("deep.job", "0.measured", _FINE, NODE),
    ("deep.matmul", _M + "ranks.3.matmul_flops", 561e12, MEASURED),
    ("deep.matmul", _M + "ranks", _RANKS[:1], MEASURED),
    ("deep.copy", _M + "ranks.5.copy_bandwidth", 45e9, MEASURED),
    ("deep.copy", _M + "ranks.5.copy_bandwidth", None, MEASURED),
    ("nodes.reach", "0.reaches", (_OWN, *NODES[0].reaches), NODES),
    ("host.port", "0.reaches", NODES[0].reaches, NODES),
)
