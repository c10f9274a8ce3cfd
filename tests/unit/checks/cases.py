"""What a case is: a healthy base, the one field of it that is changed, and what is found."""

from __future__ import annotations

from typing import Any, NamedTuple

from distrun.checks.rule import Severity
from distrun.probe.snapshot import Node
from tests.unit.checks import bases

FAIL, WARN, INFO = Severity.FAIL, Severity.WARN, Severity.INFO
NODE, NODES, LAPTOP = (bases.server(),), bases.cluster(), (bases.laptop(),)


class Case(NamedTuple):
    """One field of a healthy base that makes a rule speak."""

    rule: str
    path: str
    value: Any
    severity: Severity
    says: str
    """Part of what is observed."""
    base: tuple[Node, ...] = NODE
    job: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it
    """Fields of the job that differ."""

    def __str__(self) -> str:
        """Return the name of the test."""
        return f"{self.rule}: {self.path} {self.severity.name}"


class Unread(NamedTuple):
    """One field of a healthy base that could not be read, so that a rule cannot judge."""

    rule: str
    path: str
    base: tuple[Node, ...] = NODE

    def __str__(self) -> str:
        """Return the name of the test."""
        return f"{self.rule}: {self.path}"
