"""What ranks have as stdin, stdout and stderr: the words for it of launcher and agents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

STDOUT, STDERR = "stdout", "stderr"
BOTH = "both"
"""One pipe for stdout and stderr: what comes from it is in the order in which it was written."""


@dataclass(frozen=True)
class Streams:
    """What the ranks of a run have; by default nothing to read, and one pipe to write to."""

    apart: bool = False
    """A pipe for stdout and one for stderr, with no perfect order between them."""
    handed_rank: int = 0
    """The rank that has the launcher's own descriptors, as far as there are any."""
    handed_fds: tuple[int | None, ...] = (None, None, None)
    """For its stdin, stdout and stderr; they are open in the process that reads this."""

    @property
    def open_fds(self) -> list[int]:
        """The descriptors that are there."""
        return [fd for fd in self.handed_fds if fd is not None]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Streams:
        """Rebuild it from `to_json`'s value."""
        return cls(**{**data, "handed_fds": tuple(data["handed_fds"])})


NOTHING_HANDED = Streams()
