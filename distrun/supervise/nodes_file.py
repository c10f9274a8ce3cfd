"""`nodes.json`: the nodes that were lost or suspected, why, and when."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from distrun.diagnose.failures import Failure
from distrun.plan.model import NodePlan
from distrun.runs.directory import RunDirectory
from distrun.supervise.world import World


class NodesFile:
    """Writes what is known of the nodes of a run.

    Args:
        run: The run.
        complain: Called with a message if the file cannot be written.
    """

    def __init__(self, run: RunDirectory, complain: Callable[[str], None]) -> None:
        self._run, self._complain = run, complain
        self._nodes: list[dict[str, Any]] = []
        self._told_out: set[int] = set()

    def add(self, world: World, failure: Failure | None, out: Collection[int]) -> list[NodePlan]:
        """Note the nodes that an attempt has lost or put out.

        Args:
            world: The attempt.
            failure: What has ended it.
            out: All nodes that get no ranks any more.

        Returns:
            Those of them that were not known before.
        """
        lost = {agent.index for agent in world.lost}
        newly_out = set(out) - self._told_out
        self._told_out |= newly_out
        if failure is None or not (found := lost | newly_out):
            return []
        self._nodes += [
            {
                "node": number,
                "host": world.known[number].host,
                "kind": failure.kind,
                "why": failure.why,
                "out": number in newly_out,
                "time": round(time.time(), 3),
            }
            for number in sorted(found & world.known.keys())
        ]
        self._write()
        return [world.known[number] for number in sorted(newly_out & world.known.keys())]

    def checked(self, number: int, check: Mapping[str, Any]) -> None:
        """Note what the check of a node has found."""
        for known in self._nodes:
            if known["node"] == number:
                known["check"] = {**check}
        self._write()

    def _write(self) -> None:
        try:
            self._run.nodes.replace_text(json.dumps(self._nodes, indent=1) + "\n")
        except OSError as error:
            self._complain(f"nodes.json cannot be written: {error.strerror}")
