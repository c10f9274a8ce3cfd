"""Bugs in what decides how a run goes on, and in what is known before it starts."""

from __future__ import annotations

from tests.mutants.patch import Patch

RECOVERY = (
    Patch(
        "supervise/recovery.py",
        "            self._used += not progressed",
        "            self._used += progressed",
        "inverted condition",
        "A job that makes progress is given up, and one that makes none is restarted for ever.",
        ("unit/supervise/test_recovery.py",),
    ),
    Patch(
        "supervise/recovery.py",
        "        return plan.min_nodes <= left < plan.nnodes",
        "        return plan.min_nodes < left < plan.nnodes",
        "off by one",
        "A run of 2:4 nodes ends when it is down to two.",
        ("unit/supervise/test_recovery.py",),
    ),
    Patch(
        "supervise/steps.py",
        "        return self.begun if self.saved is None else self.saved",
        "        return self.begun if self.saved is None else self.begun",
        "dropped part",
        "All steps since the beginning count as lost.",
        ("unit/supervise/test_steps.py",),
    ),
    Patch(
        "diagnose/failures.py",
        "before[-1].suspect == failure.suspect",
        "before[-1].suspect != failure.suspect",
        "inverted condition",
        "A node is bad because another one has failed before it.",
        ("unit/diagnose/test_failures.py",),
    ),
    Patch(
        "estimate/units.py",
        "        padded += -(-rows // n) * n * rest",
        "        padded += rows * rest",
        "dropped part",
        "The padding of uneven shards is not told: 8B on 4,096 ranks sends 17 % more.",
        ("unit/estimate/test_traffic.py",),
    ),
    Patch(
        "estimate/allocator.py",
        "        self.end += -(-(start + size - self.end) // page) * page",
        "        self.end += (start + size - self.end) // page * page",
        "off by one",
        "The last page of a pool is not counted as reserved.",
        ("unit/estimate/test_allocator.py",),
    ),
)
