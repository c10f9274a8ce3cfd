"""The paths of one run's record."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunDirectory:
    """`runs/<date>-<time>-<recipe>-<4 hex>/`; holds all that a later command needs."""

    path: Path

    @property
    def run_id(self) -> str:
        """The run's name is its directory's."""
        return self.path.name

    @property
    def record(self) -> Path:
        """What was run, on what, and how it ended."""
        return self.path / "run.json"

    @property
    def events(self) -> Path:
        """Everything that happened, a line each."""
        return self.path / "events.jsonl"

    @property
    def metrics(self) -> Path:
        """The numbers the recipe logged, a line a step."""
        return self.path / "metrics.jsonl"

    @property
    def verdict(self) -> Path:
        """What broke first."""
        return self.path / "verdict.json"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor itself had to complain about; usually not there."""
        return self.path / "supervisor.log"

    def log(self, node: int, rank: int) -> Path:
        """Everything one rank printed."""
        return self.path / "logs" / f"node{node}" / f"rank{rank}.log"

    def agent_log(self, node: int) -> Path:
        """What torch's agent on one node printed."""
        return self.path / "logs" / f"node{node}" / "agent.log"

    def error(self, rank: int) -> Path:
        """The exception that ended one rank."""
        return self.path / "errors" / f"rank{rank}.json"

    def stacks(self, rank: int) -> Path:
        """Where one rank was when it crashed or was stopped by the time limit."""
        return self.path / "stacks" / f"rank{rank}.txt"

    def rank_logs(self) -> Iterator[tuple[int, int, Path]]:
        """Yield (node, rank, path) of every rank log there is, in rank order."""
        found = []
        for path in self.path.glob("logs/node*/rank*.log"):
            node, rank = path.parent.name[4:], path.stem[4:]
            if node.isdigit() and rank.isdigit():
                found.append((int(rank), int(node), path))
        for rank_number, node_number, path in sorted(found):
            yield node_number, rank_number, path


def new_stamp() -> tuple[str, str]:
    """Return the `<date>-<time>` and the `<4 hex>` of a run that starts now."""
    return time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2)


def create(runs_dir: Path, run_id: str) -> RunDirectory:
    """Make the directory of a new run, readable by this user alone.

    Raises:
        OSError: It cannot be made.
    """
    path = runs_dir / run_id
    runs_dir.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700)
    for name in ("logs", "errors", "stacks"):
        (path / name).mkdir()
    return RunDirectory(path.resolve())
