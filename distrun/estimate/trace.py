"""Runs a script's own parts without its devices and ranks, and asks what one rank did.

A child process does it: it imports torch, which may abort in C. What ends the child is told in one
sentence.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from distrun.errors import DistrunError, UsageError
from distrun.estimate.depths import whole
from distrun.estimate.exchange import Answer, Fault, Order, heard
from distrun.estimate.work import Work

TIMEOUT_S = 600.0
_FRAME = re.compile(r'File "(.+)", line (\d+) in ')
"""A line of Python's faulthandler, innermost first."""


def trace(
    script: Path,
    args: Sequence[str] = (),
    *,
    world_size: int,
    nproc_per_node: int,
    exact: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Work:
    """Return what the rank with most memory does in one step of a script.

    It is rank 0; of a pipeline the first or the last stage.

    Args:
        script: A recipe, a script with the five functions, or any other script.
        args: Its command line.
        world_size: Ranks of the job.
        nproc_per_node: Ranks of a node.
        exact: Trace all layers, and not two small numbers of them.
        timeout_s: How long a child may take.

    Raises:
        UsageError: The script fails, as it would on the cluster, or cannot be traced.
        DistrunError: The child was killed, or is not heard.
    """
    if not script.is_file():
        raise UsageError(f"{script}: there is no such file")
    order = Order(str(script.resolve()), list(args), world_size, nproc_per_node, exact=exact)
    first = _ask(order, timeout_s)
    if not first.shapes:
        return whole(first)
    last = replace(order, rank=world_size - 1, shapes=first.shapes)
    return _worse_stage(whole(first), whole(_ask(last, timeout_s)))


def _worse_stage(first: Work, last: Work) -> Work:
    """Return the work of the stage that needs more memory; the last one sees no tokens."""
    worse, name = (first, "first") if first.allocated >= last.allocated else (last, "last")
    note = (
        f"of the pipeline's stages this is the {name}, which needs more memory than the other end"
    )
    return replace(worse, tokens=first.tokens, samples=first.samples, notes=(*worse.notes, note))


def _ask(order: Order, timeout_s: float) -> Answer:
    """Let a child trace, and return what it has found."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "distrun.estimate.tracer"],
            input=json.dumps(asdict(order)),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"{order.script}: two steps were not traced within {timeout_s:g} s",
            "a smaller model, or the formula: leave out --trace",
        ) from None
    try:
        answer = heard(child.stdout)
    except (ValueError, KeyError, TypeError):
        raise _ended(order.script, child.returncode, child.stderr) from None
    if isinstance(answer, Fault):
        raise UsageError(f"{_place(answer.file, answer.line)}{answer.message}", answer.hint)
    return answer


def _ended(script: str, code: int, words: str) -> DistrunError:
    """Return the error of a child that ended without an answer."""
    folder = str(Path(script).parent)
    frames = [(file, int(line)) for file, line in _FRAME.findall(words)]
    inside = next((frame for frame in frames if str(Path(frame[0]).parent) == folder), ("", 0))
    if code < 0:
        name = signal.Signals(-code).name
        return UsageError(
            f"{_place(*inside) or script + ': '}torch ended the trace with {name}{_reason(words)}",
            "the formula needs no trace: leave out --trace",
        )
    last = next(iter(words.strip().splitlines()[-1:]), "no word")
    return DistrunError(f"{script}: the trace ended with exit code {code}: {last}")


def _reason(words: str) -> str:
    """Return what C++ said of an exception that nobody caught."""
    found = re.search(r"what\(\):\s*(.+)", words)
    return f": {found[1].strip()}" if found else ""


def _place(file: str, line: int) -> str:
    """Return `file:line: ` with the shortest name of the file, "" without a file."""
    if not file:
        return ""
    path = os.path.relpath(file)
    return f"{path if len(path) < len(file) else file}:{line}: "
