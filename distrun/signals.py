"""How the processes of the launcher handle each signal."""

from __future__ import annotations

import signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""They end a run and are forwarded to the ranks: those that torchrun handles by default."""
FORWARDED = (signal.SIGUSR1, signal.SIGUSR2)
"""They are forwarded, and the run continues."""
HEARD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""An agent tells the supervisor of them: whoever takes its node away may signal it alone."""
STACKS = getattr(signal, "SIGRTMAX", 0) and signal.SIGRTMAX - 3
"""`distrun stacks` sends it to the supervisor, and an agent to a rank, which writes the stacks of
its threads. Scripts do not use it; 0 where there are no real-time signals."""
SAVE = STACKS and STACKS - 1
"""`distrun save` sends it to the supervisor, and an agent to ranks that handle it."""
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGXCPU", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR")
    if hasattr(signal, name)
)
"""They would end the launcher without a message: the run ends as on SIGTERM."""

_SAME_WITHIN_S = 0.5


def repeats(first: int, signum: int, after_s: float) -> bool:
    """Return whether a signal only repeats the first one that was to end a run.

    Schedulers and timeout(1) signal a job and its processes, a terminal that is closed signals
    its session: one decision arrives twice. Ctrl-C is pressed by a person, who means it each
    time. SIGXCPU comes again with each second of CPU time (setrlimit(2)).

    Args:
        first: The first signal.
        signum: The one that came after it.
        after_s: How long after it.
    """
    if signum in ENDING and signum == first:
        return True
    return signum != signal.SIGINT and after_s <= _SAME_WITHIN_S


def passed_on(signum: int) -> int:
    """Return the signal that the ranks get when the launcher ends because of `signum`."""
    return signum if signum in STOPPING else signal.SIGTERM


def code_of(signum: int) -> int:
    """Return the exit code of a run that a signal has ended, as shells define it."""
    return 128 + signum
