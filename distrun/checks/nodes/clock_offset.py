"""The clocks of all nodes should agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    if len(nodes) < 2:
        return
    unmeasured = [node for node in nodes if node.host.clock_offset_s is None]
    for node in nodes:
        offset_s, error_s = node.host.clock_offset_s, node.host.clock_offset_error_s or 0.0
        if offset_s is None:
            # The machine that runs the check has no offset; there is only one such machine.
            unasked = "not measured" if len(unmeasured) > 1 else ""
            if reason := node.host.missing.get("clock_offset_s", unasked):
                yield Observation(Severity.SKIP, reason, "", node.name)
        elif abs(offset_s) - error_s > limits.clock_offset_s:  # only the certain part counts
            word = "ahead" if offset_s > 0 else "behind"
            yield Observation(
                Severity.WARN,
                f"{_shown(abs(offset_s))} {word} (± {_shown(error_s)})",
                f"within {_shown(limits.clock_offset_s)} of the machine that runs the check",
                node.name,
            )


def _shown(time_s: float) -> str:
    return f"{time_s:.1f} s" if time_s >= 1 else f"{time_s * 1000:.0f} ms"


RULE = Rule(
    id="nodes.clock",
    title="Clock offset, over nodes",
    why="The order of events of different nodes is then wrong, so the first failure cannot be"
    " found in logs; tokens and certificates may be refused.",
    fix="`systemctl enable --now chronyd` on every node, with the same servers; `chronyc"
    " makestep` sets the clock immediately.",
    source="distrun's own rule",
    judge=_judge,
)
