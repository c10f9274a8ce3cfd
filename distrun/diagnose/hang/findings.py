"""The verdict on a job that may hang, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

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

NO_MAJORITY = "; no majority: cannot tell which is wrong"
"""The end of a sentence about ranks that disagree, and each may be right."""
_KINDS = get_args(Kind)
_NO_HANG = {"late", "debugger", "unreachable", "all_input", "idle", "unclear", "none"}
"""A node that does not answer may come back: the silence of its agent ends the run, not this."""


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


def verdict_of(told: object) -> HangVerdict | None:
    """Return a verdict from its JSON; None if that is something else."""
    if not isinstance(told, dict):
        return None
    found: dict[str, Any] = {f.name: told.get(f.name) for f in fields(HangVerdict)}
    ranks = {name: _ranks(found[name]) for name in ("culprits", "waiting", "cycle")}
    texts = [found[name] for name in ("sentence", "file", "group", "op", "note")]
    numbers = [found[name] for name in ("line", "seq")]
    is_right = (
        found["kind"] in _KINDS
        and all(type(text) is str for text in texts)
        and all(type(number) is int for number in numbers)
        and type(found["is_certain"]) is bool
        and (found["waited_s"] is None or type(found["waited_s"]) in (int, float))
    )
    return HangVerdict(**(found | ranks)) if is_right else None


def _ranks(told: object) -> tuple[int, ...]:
    return tuple(r for r in told if type(r) is int) if isinstance(told, list) else ()
