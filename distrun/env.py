"""The environment variables between launcher, agents and ranks, as typed objects.

Torchrun's own are documented at
https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

STRATEGY = "DISTRUN_STRATEGY"
"""The parallel strategy the recipe should use (`ddp`, `fsdp`, …)."""
TRACK = "DISTRUN_TRACK"
"""The tracker that `distrun.train.metrics` opens: tensorboard, wandb, mlflow or trackio."""
RUN_DIR = "DISTRUN_RUN_DIR"
"""The directory of this run's record."""
TAG = "DISTRUN_TAG"
"""`<run id>/<node rank>`: set in every process of a run, grandchildren included."""
RUN = "DISTRUN_RUN"
"""The run directory, made where the job was submitted, that a launch in the job goes on with."""
REPORT = "DISTRUN_REPORT"
"""`<fd>:<inode>` of the pipe on which a rank reports to its agent."""
RECORDS = "DISTRUN_RECORDS"
"""Name of the agent's abstract socket (unix(7)) on which it asks a rank what it is in."""
RECORD_SIZES = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
"""How many collectives torch's flight recorder keeps, and the older name of it; 0 for none."""
RECORDED_ELSEWHERE = "DISTRUN_RECORDED_ELSEWHERE"
"""Set to 1, `launch --json` prints the ranks' stacks and records, too: its own disk goes away."""
DIAL_KEY, DIAL_KEY_FILE = "DISTRUN_DIAL_KEY", "DISTRUN_DIAL_KEY_FILE"
"""The key with which the nodes of a run dial in to its head, or the file that holds it."""
DIAL_PORT = "DISTRUN_DIAL_PORT"
"""Where the head listens for them."""
COMM_CHECK = "DISTRUN_COMM_CHECK"
"""Set to 1, `distrun.comm` compares every call over the ranks before anything is sent."""

BOOT = "DISTRUN_BOOT"
"""What `agent/boot/sitecustomize.py` must do; it removes the variable again."""

_BOOT_DIR = str(Path(__file__).parent / "agent" / "boot")
_SCRUBBED_PREFIXES = ("PET_", "TORCHELASTIC_")
_SCRUBBED = {
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"),
    *(STRATEGY, TRACK, RUN_DIR, TAG, RUN, REPORT, RECORDS, DIAL_KEY, DIAL_KEY_FILE),
}
# The short ones only at the end of a word: not TOKENIZERS, nor AUTHOR.
_SECRET = re.compile(
    r"SECRET|PASSW|PASSPHRASE|PASSCODE|CREDENTIAL|AUTHORIZATION"
    r"|(TOKEN|AUTH|PWD|(?<!MON)KEY|(?<!BY)(?<!COM)PASS|(?<!SA)CRED)S?\d*(?![A-Z\d])"
)
_WORKING_DIRECTORIES = ("PWD", "OLDPWD")


@dataclass(frozen=True)
class TorchrunEnv:
    """The variables that torchrun sets for a worker."""

    rank: int
    local_rank: int
    node_rank: int
    world_size: int
    local_world_size: int
    nnodes: int
    master_addr: str
    master_port: int

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> TorchrunEnv:
        """Read the variables; without a launcher, a world of one."""
        env = os.environ if environ is None else environ
        return cls(
            rank=int(env.get("RANK", "0")),
            local_rank=int(env.get("LOCAL_RANK", "0")),
            node_rank=int(env.get("GROUP_RANK", "0")),
            world_size=int(env.get("WORLD_SIZE", "1")),
            local_world_size=int(env.get("LOCAL_WORLD_SIZE", "1")),
            nnodes=int(env.get("GROUP_WORLD_SIZE", "1")),
            master_addr=env.get("MASTER_ADDR", "127.0.0.1"),
            master_port=int(env.get("MASTER_PORT", "29500")),
        )

    def renumbered(self, ranks: Sequence[int]) -> TorchrunEnv:
        """Return this rank's values in a world of some of the ranks, renumbered in order."""
        return replace(self, rank=sorted(ranks).index(self.rank), world_size=len(ranks))


def is_inherited_from_a_launcher(name: str) -> bool:
    """Return whether a variable of an outer launcher would mislead the agents of this one."""
    return name in _SCRUBBED or name.startswith(_SCRUBBED_PREFIXES)


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without the variables of an outer launcher."""
    return {k: v for k, v in environ.items() if not is_inherited_from_a_launcher(k)}


def is_secret(name: str) -> bool:
    """Return whether a variable's value must never be printed or saved."""
    words = re.sub(r"(?<=[a-z\d])(?=[A-Z])", "_", name).upper()  # apiKeyFile is three words
    return name not in _WORKING_DIRECTORIES and bool(_SECRET.search(words))


def report_fd(environ: Mapping[str, str] | None = None) -> int | None:
    """Return the open report pipe of this rank, or None outside of distrun.

    A child after exec inherits the variable but not the descriptor, and may have another file at
    that number: the inode is compared.
    """
    value = (os.environ if environ is None else environ).get(REPORT, "")
    fd, _, inode = value.partition(":")
    try:
        if fd and os.fstat(int(fd)).st_ino == int(inode):
            return int(fd)
    except (OSError, ValueError, OverflowError):
        pass
    return None


def booted(environ: Mapping[str, str], **order: Any) -> dict[str, str]:
    """Return an environment in which Python runs `agent/boot/sitecustomize.py` first.

    Args:
        environ: The environment that the script will have.
        **order: Keyword arguments of the boot, as plain JSON.
    """
    before = environ.get("PYTHONPATH")
    # An empty one is none; behind a colon it would name the current directory.
    path = _BOOT_DIR + os.pathsep + before if before else _BOOT_DIR
    boot = json.dumps({**order, "pythonpath": before})
    return {**environ, "PYTHONPATH": path, BOOT: boot}
