"""The Compose file of a run: its nodes as services on one private network.

https://github.com/compose-spec/compose-spec/blob/main/spec.md; no more of it is used than
podman-compose understands too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import distrun
from distrun.env import DIAL_KEY, RECORDED_ELSEWHERE
from distrun.schedulers.yaml_text import Path, comment_lines, document

PROJECT_DIR = "/workspace"
"""Where the project is mounted: the image's working directory."""
RUNS_DIR = "/runs"
"""The head's own record, and checkpoints: a volume of all nodes, that goes with the containers."""
_STOP_LATER_S = 5
"""A launcher ends this long after its ranks' grace at the latest."""
_MAKE_KEY = "openssl rand -hex 32"


@dataclass(frozen=True)
class Composed:
    """A run as a project of Compose."""

    name: str
    """Of the project, and of its network."""
    image: str
    command: tuple[str, ...]
    """The launch; the same on every node."""
    nodes: str
    """Number of nodes, or MIN:MAX."""
    count: int
    """Number of containers: the most nodes."""
    project_dir: str
    """The directory on this machine that has the script."""
    workdir: str
    """In the container."""
    user: str
    """UID:GID of the processes: who may read the project, with group 0 as the image has it."""
    grace_s: float = 30.0
    secrets: tuple[str, ...] = ()
    """Variables whose values come from the environment of Compose."""
    made_by: tuple[str, ...] = ()
    """The command line that is named in the text; secrets are masked by the caller."""

    @property
    def containers(self) -> list[str]:
        """The names of the containers, the head's first."""
        return [f"{self.name}-node{rank}" for rank in range(self.count)]


def render(job: Composed) -> str:
    """Return the Compose file.

    Raises:
        UsageError: A text is not Unicode.
    """
    made_by = f": {' '.join(job.made_by)}" if job.made_by else ""
    several = job.count > 1
    key = f'{DIAL_KEY}="$({_MAKE_KEY})" ' if several else ""
    head = [
        f"Written by distrun {distrun.__version__}{made_by}",
        "By hand (without --json, the output is plain):",
        f"  {key}docker compose -f FILE up --exit-code-from node0",
    ]
    text = document(_file(job), lambda path: _COMMENTS.get(_place(path), ""))
    return "\n".join(line for each in head for line in comment_lines(each)) + "\n" + text


def _file(job: Composed) -> dict[str, Any]:
    return {
        "name": job.name,
        "services": {f"node{rank}": _service(job, rank) for rank in range(job.count)},
        "networks": {"nodes": {}},
        "volumes": {"runs": {}},
    }


def _service(job: Composed, rank: int) -> dict[str, Any]:
    environ: dict[str, Any] = {RECORDED_ELSEWHERE: "1"}
    if job.count > 1:
        environ |= {
            "DISTRUN_NNODES": job.nodes,
            "DISTRUN_NODE_RANK": str(rank),
            "DISTRUN_HEAD": "node0",
            DIAL_KEY: f"${{{DIAL_KEY}:?{_MAKE_KEY} makes one}}",
        }
    return {
        "image": _literal(job.image),
        "container_name": job.containers[rank],
        "hostname": f"node{rank}",
        "user": job.user,
        "command": [_literal(word) for word in job.command],
        "working_dir": _literal(job.workdir),
        "environment": {**environ, **{name: f"${{{name}}}" for name in job.secrets}},
        "networks": ["nodes"],
        "volumes": [
            {
                "type": "bind",
                "source": _literal(job.project_dir),
                "target": PROJECT_DIR,
                "read_only": True,
            },
            {"type": "volume", "source": "runs", "target": RUNS_DIR},
        ],
        "shm_size": "1g",
        "read_only": True,
        "tmpfs": ["/tmp:exec"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "stop_grace_period": f"{math.ceil(job.grace_s) + _STOP_LATER_S}s",
    }


def _literal(text: str) -> str:
    """Return a text in which Compose finds no variable."""
    return text.replace("$", "$$")


def _place(path: Path) -> str:
    return ".".join(map(str, path))


_COMMENTS: Mapping[str, str] = {
    "services.node0": "The head: it prints and supervises all, and its exit code is the run's.",
    f"services.node0.environment.{DIAL_KEY}": "With it the other nodes dial in to the head.",
    "services.node0.user": "Who owns the project; group 0 may write to the volume.",
    "services.node0.volumes": "The project; and what all nodes write to, such as checkpoints.",
    "services.node0.shm_size": "DataLoader workers share memory there; the default is 64 MiB.",
    "services.node0.tmpfs": "HOME, and so all caches; torch loads compiled code there.",
    "services.node0.stop_grace_period": "The ranks' grace, and some seconds for the launcher.",
}
