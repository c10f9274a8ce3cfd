"""What of an estimate was measured: kinds of GPUs, curves of bench-comm, the step of a run."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from distrun.errors import UsageError
from distrun.estimate.kinds import GB, GIB, Kind, cpu, kind_of
from distrun.estimate.network import Curve
from distrun.probe.host_limits import usable_cores
from distrun.probe.host_memory import meminfo_nbytes
from distrun.probe.reading import Unread
from distrun.spec.bench import BenchReport, read_report
from distrun.spec.estimate import OwnKind, own_kinds

_WARM_UP = 3
"""Steps at the start of a run that no anchor counts."""


def the_kind(name: str | None, file: Path | None, nproc_per_node: int) -> Kind | None:
    """Return the kind of GPU that is named; `cpu` is this machine.

    Raises:
        UsageError: There is none of this name, or the file cannot be read.
    """
    own = {} if file is None else own_kinds(file)
    if name is None:
        return None
    if name != "cpu":
        return kind_of(name, {each: _own(each, table) for each, table in own.items()})
    try:
        memory = meminfo_nbytes(Path("/"), "MemTotal")
    except (OSError, Unread):
        memory = 16 * GIB  # a Mac has no /proc
    return cpu(usable_cores(), memory, nproc_per_node)


def _own(name: str, table: OwnKind) -> Kind:
    return Kind(
        name=name,
        memory_nbytes=int(table.memory_gib * GIB),
        memory_bytes_per_s=table.memory_gb_per_s * GB,
        tflops=(table.tflops, table.tflops_float32 or table.tflops / 16, table.tflops / 32),
        matmul=table.matmul,
        half_dim=table.half_dim,
        attention=table.attention,
        link_bytes_per_s=table.link_gb_per_s * GB,
        nics=table.nics,
        nic_bytes_per_s=table.nic_gbit_per_s / 8 * GB,
        host_bytes_per_s=table.host_gb_per_s * GB,
        source="a table of your own",
    )


def curves(path: Path, kind: Kind | None) -> tuple[tuple[Curve, ...], str]:
    """Return the curves of a report of bench-comm, and a sentence about it.

    Raises:
        UsageError: It cannot be read, or was measured on other hardware.
    """
    report = read_report(path)
    if kind is not None and (report.backend == "nccl") == (kind.name == "cpu"):
        devices = ", ".join(sorted({rank.device for rank in report.ranks}))
        raise UsageError(
            f"--calibrate {path} was measured with {report.backend} on {devices}, not on"
            f" {kind.name}",
            "distrun bench-comm --op all -o FILE.json on such GPUs",
        )
    found = _curves(report)
    if not found:
        raise UsageError(
            f"--calibrate {path} has no row between ranks",
            "distrun bench-comm --op all -o FILE.json",
        )
    ops = ", ".join(curve.op for curve in found)
    noisy = sum(row.noisy for row in report.rows)
    doubt = f"; {noisy} of {len(report.rows)} rows are noisy" if noisy else ""
    return found, f"{path.name}: {ops} of {report.world_size} ranks on {report.nnodes} nodes{doubt}"


def _curves(report: BenchReport) -> tuple[Curve, ...]:
    """Return for each op the time of each size, of the faster place.

    A noisy row counts where a size has no other: a median of few is nearer than another size.
    """
    best: dict[str, dict[int, tuple[bool, float]]] = {}
    for row in report.rows:
        if row.nbytes > 0:
            times = best.setdefault(row.op, {})
            told = row.noisy, row.p50_s
            times[row.nbytes] = min(told, times.get(row.nbytes, told))
    return tuple(
        Curve(
            op,
            report.world_size,
            report.nnodes,
            tuple((nbytes, time_s) for nbytes, (_, time_s) in sorted(times.items())),
        )
        for op, times in best.items()
        if report.world_size > 1
    )


@dataclass(frozen=True)
class Ran:
    """A run that an estimate may be anchored to.

    Attributes:
        words: Its script, and the script's flags.
        nnodes: Its nodes.
        nproc_per_node: Ranks of a node.
        step_s: Median time of its steps.
    """

    words: tuple[str, ...]
    nnodes: int
    nproc_per_node: int
    step_s: float


def ran(run: Path) -> Ran:
    """Return what a run was, and how long its steps took.

    Raises:
        UsageError: It is no run's directory, or has too few steps.
    """
    try:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        program = record["plan"]["program"]
        words = (str(program["script"]), *map(str, program["args"]))
        nnodes, nproc = int(record["nnodes"]), int(record["nproc_per_node"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"--anchor {run} is not the directory of a run", "`distrun ps` lists the runs"
        ) from None
    times = _step_times(run)
    if len(times) <= _WARM_UP:
        raise UsageError(
            f"--anchor {run} has {len(times)} steps with tokens_per_s, fewer than {_WARM_UP + 1}",
            "distrun.train.metrics.log(step, tokens=…, tokens_per_s=…) on rank 0",
        )
    return Ran(words, nnodes, nproc, statistics.median(times[_WARM_UP:]))


def _step_times(run: Path) -> list[float]:
    times = []
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        for each in map(json.loads, lines):
            if each.get("tokens_per_s") and each.get("tokens"):
                times.append(float(each["tokens"]) / float(each["tokens_per_s"]))
    except (OSError, ValueError, TypeError, AttributeError):
        return []  # there is none, or it is not what a recipe logs
    return times
