"""Bugs on the way to nodes on other machines."""

from __future__ import annotations

from tests.mutants.patch import Patch

NODES = (
    Patch(
        "wire.py",
        "self._raw_left -= end - at",
        "self._raw_left = 0",
        "dropped part",
        "The rest of a long output is taken for messages.",
        ("unit/vestibule/test_wire.py",),
    ),
    Patch(
        "wire.py",
        "if self._waits or (message",
        "if (message",
        "dropped part",
        "JSON that a login shell prints is taken for an answer.",
        ("unit/vestibule/test_wire.py",),
    ),
    Patch(
        "agent/rendezvous.py",
        "if not is_head:",
        "if is_head:",
        "inverted condition",
        "Every launch on two nodes waits half a second for nothing.",
        ("unit/agent/test_rendezvous.py",),
    ),
    Patch(
        "nodes/handed.py",
        """if start_time(self.pid) == self.start:
            send(""",
        """if self.start:
            send(""",
        "inverted condition",
        "A process that has the pid of an ended ssh is killed.",
        ("unit/nodes/test_handed.py",),
    ),
    Patch(
        "nodes/probes.py",
        "len(self._starting) < conversation.LOG_INS_AT_ONCE",
        "len(self._starting) < 10**6",
        "dropped part",
        "256 hosts behind one are asked at once, and most connections are dropped.",
        ("unit/nodes/test_probes.py",),
    ),
    Patch(
        "schedulers/site.py",
        "address or reach.source_address",
        "address or reach.target_address",
        "wrong unit",
        "Every node is told that its own address is the head's.",
        ("unit/schedulers/test_site.py",),
    ),
    Patch(
        "schedulers/slurm.py",
        'tasks != "1"',
        'tasks == "0"',
        "inverted condition",
        "srun distrun launch starts the whole job once in every task.",
        ("unit/schedulers/test_registry.py",),
    ),
    Patch(
        "supervise/feed.py",
        "self._window_nbytes -= len(data)",
        "pass",
        "dropped part",
        "A large file on stdin fills the supervisor's memory.",
        ("unit/supervise/test_feed.py",),
    ),
    Patch(
        "agent/stdin.py",
        "return before - len(self._left)",
        "return before",
        "wrong unit",
        "What a rank has not read yet counts as read.",
        ("unit/agent/test_stdin.py",),
    ),
    Patch(
        "agent/remote.py",
        "if agent.returncode:",
        "if not agent.returncode:",
        "inverted condition",
        "A killed agent on another machine is told as a lost connection.",
        ("process/test_launch_hosts.py",),
    ),
)
