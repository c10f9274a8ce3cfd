"""Where the agents of the nodes meet: a store that listens at the head's chosen address alone.

torch's own static rendezvous does the same, but its store listens at every address of the
machine. Then anyone who reaches one of them can join as a node.
"""

from __future__ import annotations

import errno
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

from distrun.listen import listen_at

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

_CONNECT_LIMIT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.5


class BoundRendezvous(RendezvousHandler):
    """torch's static rendezvous for one world, with the store at `address` alone.

    Args:
        config: torchrun's settings: --master-addr, --node-rank, --nnodes and the rest.
        anywhere: If the address is none of this machine, listen at all of its addresses: a
            platform may name a virtual address, such as that of a Kubernetes service.
    """

    def __init__(self, config: LaunchConfig, *, anywhere: bool = False) -> None:
        self._anywhere = anywhere
        host, _, port = config.rdzv_endpoint.rpartition(":")
        self.address, self.port = host.strip("[]"), int(port)
        self._node_rank = int(config.rdzv_configs["rank"])
        self._nnodes = config.max_nodes
        self._timeout = timedelta(seconds=int(config.rdzv_configs["timeout"]))
        self._run_id = config.run_id

    def next_rendezvous(self) -> RendezvousInfo:
        """Meet the other nodes.

        Raises:
            OSError: The head's agent cannot listen at the address.
            torch.distributed.DistError: Another agent cannot reach it, or not all have come.
        """
        store = PrefixStore(self._run_id, self._store())
        info = RendezvousStoreInfo(self.address, self.port)
        return RendezvousInfo(store, self._node_rank, self._nnodes, info)

    def _store(self) -> Store:
        is_head = self._node_rank == 0
        if not is_head:
            self._wait_for_head()
        return dist.TCPStore(  # type: ignore[attr-defined] # public all the same
            self.address,
            self.port,
            self._nnodes,
            is_head,
            self._timeout,
            master_listen_fd=self._listen() if is_head else None,
        )

    def _wait_for_head(self) -> None:
        """Wait until the head listens: a store that is refused once pauses for up to 0.75 s."""
        deadline = time.monotonic() + self._timeout.total_seconds()
        pause_s = _FIRST_PAUSE_S
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((self.address, self.port), _CONNECT_LIMIT_S) as found:
                    if found.getsockname() != found.getpeername():  # a free port can meet itself
                        return
            except ConnectionRefusedError:
                pass
            except OSError:
                return  # torch tries it longer, and says why it failed
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _listen(self) -> int:
        """Return a listening descriptor, which the store then owns."""
        try:
            return listen_at(self.address, self.port).detach()
        except OSError as error:
            if self._anywhere and error.errno == errno.EADDRNOTAVAIL:
                return listen_at("::" if ":" in self.address else "0.0.0.0", self.port).detach()
            name = errno.errorcode.get(error.errno or 0, "an error")
            reason = f"{name}: cannot listen at {self.address} port {self.port}: {error.strerror}"
            raise OSError(error.errno, reason) from None

    @property
    def use_agent_store(self) -> bool:
        """Return true: the ranks connect to this store, and make none of their own."""
        return True

    def get_backend(self) -> str:
        """Name the kind."""
        return "static"

    def get_run_id(self) -> str:
        """Name the world."""
        return self._run_id

    def num_nodes_waiting(self) -> int:
        """Return 0: no node joins later."""
        return 0

    def is_closed(self) -> bool:
        """Return false: it is never closed."""
        return False

    def set_closed(self) -> None:
        """It is never closed."""

    def shutdown(self) -> bool:
        """Do nothing: the store ends with the agent."""
        return True
