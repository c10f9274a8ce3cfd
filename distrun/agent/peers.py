"""How the other nodes of a world fare, if no launcher sees them: told in the store of node 0."""

from __future__ import annotations

from torch.distributed.distributed_c10d import Store

_FAILED = "distrun/failed"
LOOK_S = 1.0
"""How often a node looks: a rank in a collective sees a lost peer by itself, others do not."""


class PeerLost(Exception):
    """Another node has failed, or is gone."""


class Peers:
    """The other nodes.

    Args:
        store: The store of this world.
        node_rank: This node.
    """

    def __init__(self, store: Store, node_rank: int) -> None:
        self._store = store
        self._node_rank = node_rank

    def tell_failed(self) -> None:
        """Tell the others that this node has failed."""
        try:
            self._store.set(_FAILED, str(self._node_rank))
        except RuntimeError:
            pass  # node 0 is gone, so the others know

    def hold(self) -> None:
        """Raise if another node has failed.

        Raises:
            PeerLost: It has.
        """
        try:
            failed = self._store.check([_FAILED])
            name = self._store.get(_FAILED).decode() if failed else ""
        except RuntimeError:
            raise PeerLost("node0 has ended, or cannot be reached any more") from None
        if failed:
            raise PeerLost(f"node{name} has failed")
