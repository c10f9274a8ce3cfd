"""Sends without a receive, and receives without a send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distrun.diagnose.hang.evidence import Witness

FUNCTIONS = {
    "send": ("send", "dst"),
    "isend": ("send", "dst"),
    "send_object_list": ("send", "dst"),
    "recv": ("recv", "src"),
    "irecv": ("recv", "src"),
    "recv_object_list": ("recv", "src"),
}
"""Function of torch.distributed -> what it does, and its argument for the other rank."""
_OPPOSITE = {"send": "recv", "recv": "send"}


@dataclass(frozen=True)
class Transfer:
    """A send or a receive that a rank is in."""

    rank: int
    op: str
    """`send` or `recv`."""
    peer: int
    tag: int = 0

    @property
    def words(self) -> str:
        """Return `recv from rank 0`."""
        return f"{self.op} {'to' if self.op == 'send' else 'from'} rank {self.peer}"

    def is_met_by(self, other: Transfer | None) -> bool:
        """Return whether the peer is in the opposite of it."""
        return other is not None and (other.op, other.peer, other.tag) == (
            _OPPOSITE[self.op],
            self.rank,
            self.tag,
        )


def transfers_of(witnesses: Mapping[int, Witness]) -> dict[int, Transfer]:
    """Return the send or receive of each rank that waits in one that its peer does not meet."""
    found = {rank: each for rank, w in witnesses.items() if (each := _transfer(rank, w))}
    return {rank: each for rank, each in found.items() if not each.is_met_by(found.get(each.peer))}


def _transfer(rank: int, witness: Witness) -> Transfer | None:
    record = witness.record
    if record is None or witness.exit_code is not None:
        return None
    if record.call and record.call.function in FUNCTIONS:
        op, argument = FUNCTIONS[record.call.function]
        peer, tag = record.call.arguments.get(argument), record.call.arguments.get("tag", 0)
        if isinstance(peer, int) and peer >= 0:
            return Transfer(rank, op, peer, tag if isinstance(tag, int) else 0)
    for call in record.collectives:  # of NCCL
        if call.is_p2p and not call.done and call.peer >= 0 and call.op in _OPPOSITE:
            return Transfer(rank, call.op, call.peer)
    return None
