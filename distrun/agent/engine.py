"""Torch's elastic engine, with the node's forkserver as its way to start ranks.

`SimpleElasticAgent` is torch's extension point: it does the rendezvous and assigns the
ranks. This subclass has the node start the ranks and report how they ended
(https://docs.pytorch.org/docs/stable/elastic/agent.html).
The settings are the printed torchrun line's own, read by torchrun's own parser.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch.distributed import run as torchrun
from torch.distributed.elastic.agent.server.api import (
    RunResult,
    SimpleElasticAgent,
    WorkerGroup,
    WorkerSpec,
    WorkerState,
)
from torch.distributed.elastic.events.api import Event, EventSource
from torch.distributed.elastic.utils.api import macros

from distrun.agent.peers import LOOK_S, Peers
from distrun.agent.rendezvous import BoundRendezvous
from distrun.agent_start import own_path

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig


class Ranks(Protocol):
    """What the engine needs from the node; called from the engine's thread."""

    def start(self, environs: dict[int, dict[str, str]], commands: dict[int, list[str]]) -> None:
        """Start one rank for each local rank."""

    def wait(self) -> bool:
        """Wait until all ranks ended; True if all of them ended with 0."""

    def ended_within(self, limit_s: float) -> bool:
        """Wait for so long at most; True if all ranks have ended."""

    def wait_for_release(self) -> None:
        """Wait until the launcher says that every node is done."""


def parse(arguments: list[str]) -> tuple[LaunchConfig, list[str]]:
    """Read a torchrun command line (without `torchrun`) with torchrun's own parser.

    Returns:
        The launch settings, and the command that each rank runs.
    """
    parsed = torchrun.parse_args(arguments)
    config, command, command_args = torchrun.config_from_args(parsed)
    return config, [str(command), *command_args]


def arguments_of(order: Mapping[str, Any]) -> list[str]:
    """Return torchrun's arguments; a program of distrun's is the one of this machine."""
    arguments = list[str](order["arguments"])
    if own := order.get("own_program"):
        arguments[arguments.index("--") + 1] = own_path(own)
    return arguments


def run_engine(
    arguments: list[str],
    ranks: Ranks,
    restarts: int,
    max_restarts: int,
    *,
    by_itself: bool = False,
) -> None:
    """Run one node's part of the job to its end.

    Args:
        arguments: torchrun's command line, without `torchrun`.
        ranks: Starts and watches the ranks.
        restarts: How often the launcher has restarted this world. Torch's own restarts
            are off, so torch does not count them.
        max_restarts: How often it may.
        by_itself: No launcher sees the other nodes.

    Raises:
        OSError: The head's agent cannot listen at its address.
        torch.distributed.DistError: The rendezvous failed.
    """
    config, command = parse(arguments)
    _drop_unused_log_dir(config)
    rendezvous = BoundRendezvous(config, anywhere=by_itself)
    spec = WorkerSpec(
        role=config.role,
        local_world_size=config.nproc_per_node,
        entrypoint=command[0],
        args=tuple(command[1:]),
        rdzv_handler=rendezvous,
        max_restarts=config.max_restarts,
        monitor_interval=0.001,  # _monitor_workers waits by itself
        master_addr=rendezvous.address,
        master_port=rendezvous.port,
        local_addr=config.local_addr,
    )
    counts = {
        "TORCHELASTIC_RESTART_COUNT": str(restarts),
        "TORCHELASTIC_MAX_RESTARTS": str(max_restarts),
    }
    _WarmAgent(spec, ranks, counts, by_itself=by_itself).run()


def _drop_unused_log_dir(config: LaunchConfig) -> None:
    """Remove the directory in the temp dir that torchrun's parser makes for its own logs."""
    if config.logs_specs is not None and config.logs_specs.root_log_dir:
        try:
            Path(config.logs_specs.root_log_dir).rmdir()
        except OSError:
            pass  # not empty or missing: then it is not the one that the parser made


class _WarmAgent(SimpleElasticAgent):
    def __init__(
        self, spec: WorkerSpec, ranks: Ranks, counts: dict[str, str], *, by_itself: bool
    ) -> None:
        super().__init__(spec)
        self._ranks = ranks
        self._by_itself = by_itself
        self._counts = counts

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        spec = worker_group.spec
        environs = {}
        for worker in worker_group.workers:
            environs[worker.local_rank] = {
                "LOCAL_RANK": str(worker.local_rank),
                "RANK": str(worker.global_rank),
                "GROUP_RANK": str(worker_group.group_rank),
                "ROLE_RANK": str(worker.role_rank),
                "ROLE_NAME": spec.role,
                "LOCAL_WORLD_SIZE": str(spec.local_world_size),
                "WORLD_SIZE": str(worker.world_size),
                "GROUP_WORLD_SIZE": str(worker_group.group_world_size),
                "ROLE_WORLD_SIZE": str(worker.role_world_size),
                "MASTER_ADDR": worker_group.master_addr or "",
                "MASTER_PORT": str(worker_group.master_port),
                "TORCHELASTIC_RUN_ID": spec.rdzv_handler.get_run_id(),
                "TORCHELASTIC_USE_AGENT_STORE": str(spec.rdzv_handler.use_agent_store),
                "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.getenv(
                    "TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"
                ),
            } | self._counts
        commands = {
            local_rank: [str(spec.entrypoint), *macros.substitute(list(spec.args), str(local_rank))]
            for local_rank in environs
        }
        self._ranks.start(environs, commands)
        return dict.fromkeys(environs, 0)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        peers = None
        if self._by_itself:
            assert self._store is not None and worker_group.group_rank is not None
            peers = Peers(self._store, worker_group.group_rank)
        while peers and not self._ranks.ended_within(LOOK_S):
            peers.hold()
        if self._ranks.wait():
            values = dict.fromkeys((w.global_rank for w in worker_group.workers), None)
            return RunResult(state=WorkerState.SUCCEEDED, return_values=values)
        if peers:
            peers.tell_failed()
        return RunResult(state=WorkerState.FAILED)

    def _exit_barrier(self) -> None:
        # The launcher sees every node: no need to wait 300 s in the store without reacting
        # to SIGTERM. Until the launcher says so, this process keeps the store of node 0 open.
        if self._by_itself:
            # Nobody else knows when the ranks of the others have ended.
            super()._exit_barrier()  # type: ignore[no-untyped-call] # of torch
        self._ranks.wait_for_release()

    def _stop_workers(self, worker_group: WorkerGroup, *_: Any, **__: Any) -> None:
        """Do nothing: the node has stopped them already."""

    def _shutdown(self, *_: Any, **__: Any) -> None:
        """Do nothing: the node stops what is left."""

    def _construct_event(self, state: str, source: EventSource, *_: Any, **__: Any) -> Event:
        # torch's own resolves this host's full name, which without a DNS server takes
        # 10 to 20 s, for an event that goes nowhere.
        return Event(f"torchelastic.worker.status.{state}", source=source, metadata={})
