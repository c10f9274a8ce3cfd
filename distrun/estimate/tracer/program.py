"""What the child does with an order: it finds out what kind of script it is, and traces it."""

from __future__ import annotations

import ast
import importlib.util
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch.distributed as dist

from distrun.estimate.depths import Line
from distrun.estimate.exchange import Answer, Fault, Order, Trace
from distrun.estimate.tracer import fakes, parts, recipe
from distrun.estimate.tracer.devices import OnGpu
from distrun.estimate.tracer.faults import fault_of
from distrun.estimate.tracer.growth import grown_peaks
from distrun.estimate.tracer.measure import LEDGERS, traced
from distrun.estimate.work import Peak

PARTS = ("build_model", "parallelize", "batch", "loss", "build_optimizer")
"""The functions of a script of which a trace needs nothing else."""


def answer_to(order: Order) -> Answer | Fault:
    """Trace a script, and tell what one rank does in a step, or why that is not known."""
    script = Path(order.script)
    try:
        _become_rank(order, script)
        source = script.read_text(encoding="utf-8")
        fakes.prepare_libraries(source)
        names = _functions(source)
        shapes = list(order.shapes)
        if "pipelining" in source:
            from distrun.estimate.tracer.pipeline import stage_alone  # takes long to import

            stage_alone(shapes)
        if not names.issuperset(PARTS):
            traces, layers = [traced(_as_main(order))], 0
        elif "parse(Config" in source:
            recipe.prepare()
            traces, layers = recipe.traces(_imported(script), order)
        else:
            sys.argv = words = parts.Words(sys.argv)
            traces, layers = parts.traces(_imported(script), order)
            parts.require_read(words, script)
        return Answer(traces, layers, shapes, _peaks(traces, layers))
    except BaseException as error:  # SystemExit too: whatever the script raised is its answer
        return fault_of(error, script)


def _peaks(traces: list[Trace], layers: int) -> list[Peak]:
    if len(traces) < 2:
        return []
    line = Line(traces[0].layers, traces[1].layers, layers)
    return list(grown_peaks(LEDGERS[-2], LEDGERS[-1], line) or ())


def _become_rank(order: Order, script: Path) -> None:
    """Set what torchrun sets, and put the stand-ins in place."""
    local_rank = order.rank % order.nproc_per_node
    os.environ |= {
        "RANK": str(order.rank),
        "WORLD_SIZE": str(order.world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(min(order.nproc_per_node, order.world_size)),
        "GROUP_RANK": str(order.rank // order.nproc_per_node),
        "GROUP_WORLD_SIZE": str(-(-order.world_size // order.nproc_per_node)),
        "ROLE_RANK": str(order.rank),
        "ROLE_WORLD_SIZE": str(order.world_size),
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_RUN_ID": "trace",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *order.args]
    if not dist.is_initialized():  # a process may trace several scripts, all as the same rank
        fakes.install(order.rank, order.world_size, order.nproc_per_node)


def _functions(source: str) -> set[str]:
    """Return the names of the functions at the top of a script."""
    return {n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}


def _as_main(order: Order) -> Callable[[], object]:
    return lambda: runpy.run_path(order.script, run_name="__main__")


def _imported(script: Path) -> ModuleType:
    """Import a script as a module: what it does as a program is left out."""
    spec = importlib.util.spec_from_file_location("__traced__", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    with OnGpu():
        spec.loader.exec_module(module)
    return module
