"""What `agent/engine.py` needs of torch's elastic agent, its point of extension.

The hooks are underscored, and documented: https://docs.pytorch.org/docs/stable/elastic/agent.html
"""

from __future__ import annotations

import inspect
import socket

import pytest
from torch.distributed.elastic.agent.server.api import SimpleElasticAgent

from distrun.agent import engine
from distrun.listen import free_port

HOOKS = {
    "_start_workers": ["worker_group"],
    "_monitor_workers": ["worker_group"],
    "_stop_workers": ["worker_group"],
    "_shutdown": [],
    "_exit_barrier": [],
    "_construct_event": ["state", "source"],
}
"""Hook -> the arguments that torch gives it and we read."""


def test_the_engine_overrides_these_hooks_and_no_others() -> None:
    own = {name for name, value in vars(engine._WarmAgent).items() if callable(value)}
    assert own - {"__init__"} == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_torch_has_the_hook_with_the_arguments_that_are_read(name: str) -> None:
    _, *parameters = inspect.signature(getattr(SimpleElasticAgent, name)).parameters
    assert parameters[: len(HOOKS[name])] == HOOKS[name]


class OneRank:
    """A node whose rank ends at once; it notes what the engine asks."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.environ: dict[str, str] = {}
        self.command: list[str] = []
        self.listening: list[str] = []

    def start(self, environs: dict[int, dict[str, str]], commands: dict[int, list[str]]) -> None:
        self.asked.append("start")
        self.environ, self.command = environs[0], commands[0]

    def wait(self) -> bool:
        self.asked.append("wait")
        return True

    def wait_for_release(self) -> None:
        self.asked.append("wait_for_release")
        where = self.environ["MASTER_ADDR"], int(self.environ["MASTER_PORT"])
        socket.create_connection(where, 5).close()  # the store is there until the release


@pytest.fixture
def arguments() -> list[str]:
    return [
        "--nnodes=1",
        "--nproc-per-node=1",
        "--node-rank=0",
        "--master-addr=127.0.0.1",
        f"--master-port={free_port()}",
        "--rdzv-id=a run's",
        "--rdzv-conf=timeout=10",
        "--max-restarts=0",
        "train.py",
        "--lr",
        "1",
    ]


def test_torch_runs_a_world_through_the_hooks(arguments: list[str]) -> None:
    node = OneRank()
    engine.run_engine(arguments, node, restarts=2, max_restarts=3)
    assert node.asked == ["start", "wait", "wait_for_release"]
    assert node.environ["RANK"] == node.environ["GROUP_RANK"] == "0"
    assert node.environ["TORCHELASTIC_RUN_ID"] == "a run's"
    assert node.environ["TORCHELASTIC_RESTART_COUNT"] == "2"
    assert node.environ["TORCHELASTIC_USE_AGENT_STORE"] == "True"
    assert node.command[-3:] == ["train.py", "--lr", "1"]


def test_a_rank_that_fails_ends_the_world_and_is_not_started_again(arguments: list[str]) -> None:
    class Failing(OneRank):
        def wait(self) -> bool:
            super().wait()
            return False

    node = Failing()
    engine.run_engine(arguments, node, restarts=0, max_restarts=0)
    assert node.asked == ["start", "wait"]


def test_a_port_that_was_lost_is_told_from_other_errors(arguments: list[str]) -> None:
    port = int(arguments[4].partition("=")[2])
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="EADDRINUSE"):
        engine.run_engine(arguments, OneRank(), restarts=0, max_restarts=0)
