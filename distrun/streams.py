"""The stdin, stdout and stderr of ranks, as launcher and agents exchange it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

STDOUT, STDERR = "stdout", "stderr"
BOTH = "both"
"""One pipe for stdout and stderr: it keeps the order of writes."""


@dataclass(frozen=True)
class Streams:
    """The streams of a run's ranks; by default an empty stdin, and one pipe for output."""

    apart: bool = False
    """A pipe for stdout and one for stderr, with no perfect order between them."""
    handed_rank: int = 0
    """The rank that has the launcher's own descriptors, if any."""
    handed_fds: tuple[int | None, ...] = (None, None, None)
    """The descriptors of its stdin, stdout and stderr, open in the process that reads this."""
    fed: bool = False
    """Its stdin comes as commands to its agent, which is on another machine."""

    @property
    def open_fds(self) -> list[int]:
        """The descriptors that are not None."""
        return [fd for fd in self.handed_fds if fd is not None]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Streams:
        """Return the streams from `to_json`'s value."""
        return cls(**{**data, "handed_fds": tuple(data["handed_fds"])})


NOTHING_HANDED = Streams()
