"""Where one rank is and what it does there, from its stacks, its record and its process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.words import located, numbered, shortened
from distrun.diagnose.places import (
    WRAPPERS,
    Frame,
    Place,
    called_at,
    callee_at,
    callees_at,
    frames_of,
)
from distrun.diagnose.verdict import signal_name
from distrun.frames import is_library

Kind = Literal[
    "ended",
    "unreachable",
    "stopped",
    "debugger",
    "disk",
    "gil",
    "input",
    "child",
    "lock",
    "loop",
    "c_call",
    "python",
    "distributed",
    "unknown",
]
_ANSWERS_WITHIN_S = 2.0
"""A rank answers within a millisecond even if its main thread is stuck, unless the GIL is held."""
_DATA = ("/torch/utils/data/",)
_CHILDREN = (
    *("/subprocess.py", "/multiprocessing/popen_", "/multiprocessing/process.py"),
    "/torch/multiprocessing/spawn.py",
)
_QUEUES = ("/multiprocessing/connection.py", "/multiprocessing/queues.py", "/queue.py")
_LOCKS = ("/threading.py", "/multiprocessing/synchronize.py", "/concurrent/futures/")
_COLLECTIVE = ("/torch/distributed/", "/torch/nn/parallel/distributed.py", "/distrun/comm/")
_AUTOGRAD = ("/torch/autograd/",)
_CHILD_CALLS = {"waitpid", "wait3", "wait4", "waitid"}
_WAITING_CALLS = {
    *("wait", "synchronize", "item", "tolist", "cpu", "numpy", "backward", "result", "to", "step"),
}
"""Calls into C that end only when a collective has ended, or when a GPU has."""


@dataclass(frozen=True)
class Standing:
    """Where a rank's main thread is."""

    kind: Kind
    words: str
    """What it does, after its name: `is in time.sleep`."""
    place: Place | None = None
    """The innermost line of the user's code, with the function that contains it."""
    calls: Place | None = None
    """The same line, with the function that it calls."""
    function: str = ""
    """The function of torch.distributed that it is in."""
    may_wait: bool = False
    """Whether it may wait for a collective there."""


def standing(witness: Witness, *, nodes_are_asked: bool) -> Standing:
    """Return where a rank is.

    Args:
        witness: What is known of it.
        nodes_are_asked: Whether the process of any rank is known: None is a silent node then.
    """
    inner, user = _split(frames_of_main(witness))
    callee = callee_at(user.file, user.line) if user else ""
    kind, words = _of_process(witness, nodes_are_asked) or _of_frames(witness, inner, user, callee)
    waiting = _waiting_call(user) if kind == "c_call" and not inner else ""
    called = waiting or _called(inner, user)
    call = witness.record.call if witness.record else None
    return Standing(
        kind,
        words,
        place=Place(user.file, user.line, user.function) if user else None,
        calls=Place(user.file, user.line, called) if user else None,
        function=call.function if call else _function(inner),
        may_wait=kind == "distributed"
        or bool(waiting)
        or (kind == "c_call" and _is_in(inner, _AUTOGRAD))
        or (kind == "unknown" and witness.record is not None),
    )


def frames_of_main(witness: Witness) -> tuple[Frame, ...]:
    """Return the frames of its main thread, the innermost first: its stacks are the freshest."""
    found = tuple(frames_of(witness.stacks)) if witness.stacks else ()
    return found or (witness.record.frames if witness.record else ())


def user_place(frames: Sequence[Frame]) -> Place | None:
    """Return the innermost line of the user's code, with the function that it calls."""
    inner, user = _split(frames)
    if user is None:
        return None
    return Place(user.file, user.line, _called(inner, user))


def _waiting_call(user: Frame | None) -> str:
    """Return the call on the user's line that may wait for a collective, "" for none.

    Of `all_reduce(x, async_op=True).wait()` only the last is a call into C.
    """
    names = callees_at(user.file, user.line) if user else frozenset()
    found = sorted({name.rpartition(".")[2] for name in names} & _WAITING_CALLS)
    return found[0] if found else ""


def _called(inner: Sequence[Frame], user: Frame | None) -> str:
    """Return the function that the user's line calls: by the source, else by the stack."""
    named = (f.function for f in reversed(inner) if f.function not in WRAPPERS)
    return (called_at(user.file, user.line) if user else "") or next(named, "")


def _split(frames: Sequence[Frame]) -> tuple[Sequence[Frame], Frame | None]:
    """Return the frames in libraries, the innermost first, and the user's frame that called."""
    for number, frame in enumerate(frames):
        if not is_library(frame.file):
            return frames[:number], frame
    return frames, None


def _of_process(witness: Witness, nodes_are_asked: bool) -> tuple[Kind, str] | None:
    """Return what the process alone tells; None if that is nothing."""
    code, process = witness.exit_code, witness.process
    if code is not None:
        if code < 0:
            return "ended", f"was killed by {signal_name(-code)}"
        return "ended", f"has ended with exit code {code}"
    if process is None:
        return ("unreachable", "is on a node that does not answer") if nodes_are_asked else None
    if process.state in ("Z", "X"):
        return "ended", "has ended"
    if process.state == "t" or process.is_traced:
        return "debugger", "is held by a debugger"
    if process.state == "T":
        return "stopped", "is stopped (SIGSTOP or Ctrl-Z)"
    if process.state == "D":
        return "disk", "waits for a disk or a network file system (state D)"
    if witness.age_s >= _ANSWERS_WITHIN_S:
        return "gil", "is in an extension that holds the GIL"
    return None


def _of_frames(
    witness: Witness, inner: Sequence[Frame], user: Frame | None, callee: str
) -> tuple[Kind, str]:
    """Return what its main thread does, by the files on its stack."""
    last = callee.rpartition(".")[2]
    if not inner and not user:
        return "unknown", _last_call(witness)
    if _is_in(inner, _DATA):
        return "input", "waits for the DataLoader"
    if _is_in(inner, _COLLECTIVE):
        return "distributed", f"is in {shortened(_function(inner) or inner[-1].function)}"
    if _is_in(inner, _CHILDREN) or (not inner and last in _CHILD_CALLS):
        return "child", "waits for a child process"
    if _is_in(inner, _QUEUES):
        return "input", "waits for data from a queue"
    if any(f.function == "_shutdown" and f.file.endswith("/threading.py") for f in inner):
        return "lock", "has ended its script, and waits for a thread that is no daemon"
    if _is_in(inner, _LOCKS) or (not inner and last == "acquire"):
        return "lock", "waits for a lock or a thread"
    opcode = witness.record.opcode if witness.record else ""
    if not inner and opcode == "BEFORE_WITH":
        return "lock", "waits for a lock (with)"
    if witness.is_busy:
        return "loop", "runs on the same lines all the time"
    if inner:
        called = callee or _called(inner, user)
        kind: Kind = "c_call" if _is_in(inner, _AUTOGRAD) else "python"
        return kind, f"is in {shortened(called)}"
    if opcode and not opcode.startswith(("CALL", "PRECALL")):
        return "python", "is"
    return "c_call", f"is in {shortened(callee)}" if callee else "is"


def _last_call(witness: Witness) -> str:
    """Return what its record tells if its stacks are not known."""
    if not witness.record or not witness.record.collectives:
        return "left no stacks"
    call = witness.record.collectives[-1]
    return f"called {numbered(call.op, call.seq)} last{located(user_place(call.frames))}"


def _function(inner: Sequence[Frame]) -> str:
    """Return the function of torch.distributed, or distrun.comm, that the user has called."""
    for frame in reversed(inner):
        if _is_in([frame], _COLLECTIVE) and frame.function not in WRAPPERS:
            return frame.function
    return ""


def _is_in(frames: Sequence[Frame], files: Sequence[str]) -> bool:
    return any(part in frame.file for frame in frames for part in files)
