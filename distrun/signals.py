"""What the launcher does on which signal; all of its processes agree on it."""

from __future__ import annotations

import signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""They end a run, and are passed on to the ranks: those that torchrun handles by default."""
FORWARDED = (signal.SIGUSR1, signal.SIGUSR2)
"""They are passed on, and the run goes on."""
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGXCPU", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR")
    if hasattr(signal, name)
)
"""They would end the launcher without a word: the run ends as on SIGTERM."""


def passed_on(signum: int) -> int:
    """Return the signal that the ranks get when the launcher is to end because of `signum`."""
    return signum if signum in STOPPING else signal.SIGTERM


def code_of(signum: int) -> int:
    """Return the exit code of a run that a signal has ended, as a shell would."""
    return 128 + signum
