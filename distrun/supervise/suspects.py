"""Has a node that was suspected checked, beside the next attempt, in a process of its own."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrun.plan.model import LaunchPlan, NodePlan

_PROGRAM = str(Path(__file__).parents[1] / "api" / "suspect.py")
_MOST_NBYTES = 1 << 20


@dataclass
class _Check:
    node: NodePlan
    child: subprocess.Popen[bytes]
    heard: bytes = b""


class Suspects:
    """The checks of one run. What is not done when an attempt ends is ended with it.

    Args:
        selector: That of the loop.
        environ: The environment of the checks.
        found: Called with a node and what its check has found.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        environ: Mapping[str, str],
        found: Callable[[NodePlan, Mapping[str, Any]], None],
    ) -> None:
        self._selector, self._environ, self._found = selector, environ, found

    def check(self, node: NodePlan, plan: LaunchPlan) -> None:
        """Begin to check a node."""
        order = {
            "name": node.host,
            "probe": [*node.probe],
            "bootstrap": plan.bootstrap,
            "nproc_per_node": plan.nproc_per_node,
        }
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", _PROGRAM, json.dumps(order)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**self._environ},
                cwd="/",
            )
        except OSError:
            return  # it stays a suspect
        assert child.stdout  # it is a pipe
        check = _Check(node, child)
        self._selector.register(child.stdout, selectors.EVENT_READ, lambda: self._on_answer(check))

    def _on_answer(self, check: _Check) -> None:
        assert check.child.stdout  # it is a pipe
        if data := check.child.stdout.read1():  # type: ignore[attr-defined]  # io.BufferedReader
            check.heard = (check.heard + data)[:_MOST_NBYTES]
            return
        self._selector.unregister(check.child.stdout)
        check.child.stdout.close()
        check.child.returncode = 0  # whoever reaps children has its code
        try:
            self._found(check.node, json.loads(check.heard))
        except ValueError:
            pass  # it was ended before it had an answer
