"""Unit tests of the benchmark's ranks; and a report made by hand, for all who read reports."""

from __future__ import annotations

from typing import Any

from distrun.spec.bench import BenchReport, Row, request_of

REQUEST: dict[str, Any] = {
    "ops": ("all_reduce",),
    "sizes": (64, 2048),
    "dtype": "float32",
    "redop": "sum",
    "root": 0,
    "places": ("out", "in"),
    "mode": "latency",
    "iterations": 20,
    "warmup": 5,
    "check": True,
    "budget_s": 30.0,
    "backend": None,
    "timeout_s": 60.0,
}
"""What `request_of` takes, and all of it right."""


def a_row(**changes: Any) -> Row:
    """Return a calm row of 100 µs, with changes."""
    values: dict[str, Any] = {
        "op": "all_reduce",
        "place": "out",
        "nbytes": 64,
        "count": 16,
        "dtype": "float32",
        "redop": "sum",
        "root": None,
        "iterations": 20,
        "min_s": 90e-6,
        "p50_s": 100e-6,
        "p95_s": 103e-6,
        "p99_s": None,
        "max_s": 104e-6,
        "mad_s": 1e-6,
        "cv": 0.02,
        "noisy": False,
        "repeated": False,
        "algbw": 640e3,
        "busbw": 640e3,
        "best_busbw": 711e3,
        "wire": None,
        "wrong": [],
        "overlap": None,
        "host_p50_s": None,
        "times_s": [100e-6] * 20,
    }
    return Row.model_validate({**values, **changes})


def a_report(*rows: Row, mode: str = "latency", **changes: Any) -> BenchReport:
    """Return the report of two ranks on one node, with changes."""
    values: dict[str, Any] = {
        "schema": 1,
        "started_at": 1.5,
        "complete": True,
        "backend": "gloo",
        "world_size": 2,
        "nnodes": 1,
        "ranks": [
            {"rank": rank, "node": 0, "host": "box", "device": "x86_64"} for rank in range(2)
        ],
        "versions": {"torch": "2.11"},
        "environment": {"GLOO_SOCKET_IFNAME": "lo"},
        "definitions": {
            "all_reduce": {"size": "bytes on each rank", "busbw_factor": "2(n-1)/n"},
        },
        "request": request_of(**{**REQUEST, "mode": mode}),
        "rows": rows or [a_row()],
        "models": [],
        "skipped": [],
        "pairs": None,
        "stragglers": None,
    }
    return BenchReport.model_validate({**values, **changes})
