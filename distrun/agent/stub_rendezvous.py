"""The rendezvous of many nodes, each a thread of this process: torch's store, without agents.

    python stub_rendezvous.py NNODES NPROC_PER_NODE

The threads meet as agents do, at a store on the loopback interface. Then they exchange what torch's
agents do to number their ranks (`SimpleElasticAgent`): each sets how many it has, the head reads
all of that and sets the first rank of each. It prints the seconds, as JSON. `distrun simulate` runs
it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from itertools import accumulate
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig

from distrun.agent.rendezvous import BoundRendezvous
from distrun.listen import free_port
from distrun.processes import raise_descriptor_limit

_HOST = "127.0.0.1"
_TIMEOUT_S = 300


class Node(threading.Thread):
    """One node of `nnodes`."""

    def __init__(self, node_rank: int, nnodes: int, nproc_per_node: int, port: int) -> None:
        super().__init__(daemon=True)
        self._rank, self._nnodes, self._nproc = node_rank, nnodes, nproc_per_node
        self._config = LaunchConfig(
            min_nodes=nnodes,
            max_nodes=nnodes,
            nproc_per_node=nproc_per_node,
            run_id="simulated",
            rdzv_backend="static",
            rdzv_endpoint=f"{_HOST}:{port}",
            rdzv_configs={"rank": node_rank, "timeout": _TIMEOUT_S},
            logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # else each makes a directory
        )
        self.first_rank: int | None = None
        """The number of its first rank; None: it does not know it."""

    def run(self) -> None:
        """Meet the others, and learn the number."""
        # kept by the node: the others may read from the head's when its thread has ended
        store = self._store = BoundRendezvous(self._config).next_rendezvous().store
        store.set(f"role/{self._rank}", str(self._nproc))
        if self._rank == 0:
            counts = store.multi_get([f"role/{node}" for node in range(self._nnodes)])
            firsts = accumulate(map(int, counts[:-1]), initial=0)
            store.multi_set(  # type: ignore[attr-defined]  # public all the same
                [f"ranks/{node}" for node in range(self._nnodes)],
                [str(first) for first in firsts],
            )
        self.first_rank = int(store.get(f"ranks/{self._rank}"))


def main() -> None:
    """Run the nodes that the command line names, and print how long they took."""
    nnodes, nproc_per_node = map(int, sys.argv[1:])
    raise_descriptor_limit()
    port = free_port(_HOST)
    nodes = [Node(rank, nnodes, nproc_per_node, port) for rank in range(nnodes)]
    began = time.monotonic()
    for node in nodes:
        node.start()
    for node in nodes:
        node.join()
    met_s = time.monotonic() - began
    if [node.first_rank for node in nodes] != [rank * nproc_per_node for rank in range(nnodes)]:
        sys.exit("the nodes have not met")
    print(json.dumps(met_s))


if __name__ == "__main__":
    main()
