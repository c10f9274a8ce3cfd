"""The verdict on a job that may hang, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from distrun.diagnose.hang.standing import Kind as Standing

Kind = Literal[
    Standing,
    "late",
    "mismatch",
    "order",
    "p2p",
    "cycle",
    "init",
    "no_group",
    "all_input",
    "idle",
    "unclear",
    "none",
]
"""Where the culprit is (`lock`, `ended`, …), or what is wrong between the ranks:

- late: it is at work, and the others wait;
- mismatch, order: the ranks' calls differ, or two of them are swapped;
- p2p: a send without a receive, or a receive without a send;
- cycle: ranks wait for one another;
- init, no_group: it has not called init_process_group, or has not made a group;
- all_input: all ranks wait for data;
- idle: no rank waits for another, and none makes progress;
- unclear: all ranks have called the collective, and it does not end;
- none: nothing wrong was found.
"""

_NO_HANG = {"late", "debugger", "all_input", "idle", "unclear", "none"}


@dataclass(frozen=True)
class HangVerdict:
    """Which ranks the others wait for."""

    kind: Kind
    sentence: str
    """One paragraph without line breaks, of about 400 characters at most."""
    culprits: tuple[int, ...] = ()
    """Ranks that the others wait for; if it cannot be told which is wrong, all that may be."""
    is_certain: bool = True
    """False: the ranks disagree without a majority, and each of the culprits may be right."""
    file: str = ""
    """The user's file in which the first culprit is; "" if it is not known."""
    line: int = 0
    group: str = ""
    """The group's desc or name."""
    op: str = ""
    seq: int = 0
    """The number of the collective in its group; 0 if there is none."""
    waiting: tuple[int, ...] = ()
    """The ranks that wait."""
    waited_s: float | None = None
    """For how long they wait, as far as it is known."""
    cycle: tuple[int, ...] = ()
    """Each waits for the next, and the last for the first."""
    note: str = ""
    """What else was seen."""

    @property
    def is_hang(self) -> bool:
        """Whether a rank waits for one that does not come, or for a call that cannot end."""
        return self.kind not in _NO_HANG

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)
