"""Starts the recorder of a rank when its first process group is made, unseen by the script.

Until then there is no thread, no descriptor and no further module. torch notes every new group
with one function of C++; until its first call a function of ours stands in its place.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import PathFinder
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from distrun.env import RECORD_SIZES, RECORDS

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

# They stand here and not in distrun.torch_private, which imports torch.
_BINDINGS = "torch._C._distributed_c10d"
_C10D = "torch.distributed.distributed_c10d"
"""It imports the function from the bindings."""
_REGISTER = "_register_process_group"

_stop: Callable[[], None] | None = None
_tell: Callable[[], dict[str, Any]] | None = None


def watch(environ: Mapping[str, str]) -> None:
    """Have this process, a rank, start its recorder with its first process group.

    Args:
        environ: The rank's environment. Without the agent's socket there is no recorder, nor
            where the user has switched torch's own off, or set it to what torch cannot read.
    """
    sizes = [environ[name] for name in RECORD_SIZES if name in environ]
    if not (name := environ.get(RECORDS)) or not sizes:
        return
    if not all(size.isascii() and size.isdigit() and int(size) for size in sizes):
        return
    pid = os.getpid()

    def begin() -> None:
        if os.getpid() == pid and _has_threads():
            _start(name)

    if _C10D in sys.modules:
        _before_first_call(begin)
    else:
        _before_import(_C10D, lambda: _before_first_call(begin))


def stop() -> None:
    """End the recorder, if there is one: a thread must not meet the end of the interpreter."""
    if _stop is not None:
        _stop()


def last_calls() -> dict[str, Any]:
    """Return the last collectives of this rank as its recorder answers, {} without a recorder."""
    try:
        return _tell() if _tell is not None else {}
    except Exception:  # torch may change
        return {}


def _start(name: str) -> None:
    global _stop, _tell
    try:
        from distrun.agent.recorder import Recorder, last_calls

        recorder = Recorder(name)
        recorder.start()
        _stop, _tell = recorder.stop, last_calls
    except Exception:  # optional: whatever fails, the script must not notice
        pass


def _has_threads() -> bool:
    """Return whether this process has more than one thread already.

    A backend without threads of its own (`fake`) carries nothing out; and Python 3.12 warns a
    script that forks if there is one.
    """
    try:
        return len(os.listdir("/proc/self/task")) > 1  # noqa: PTH208 - see boot/sitecustomize.py
    except OSError:
        return False


def _before_first_call(act: Callable[[], None]) -> None:
    """Have `act` called when torch notes its first process group, before it does."""
    modules = [sys.modules[name] for name in (_BINDINGS, _C10D) if name in sys.modules]
    if not modules or (original := vars(modules[0]).get(_REGISTER)) is None:
        return

    def register(*args: Any, **kwargs: Any) -> Any:
        for name in (_BINDINGS, _C10D):
            if name in sys.modules and vars(sys.modules[name]).get(_REGISTER) is register:
                vars(sys.modules[name])[_REGISTER] = original
        act()
        return original(*args, **kwargs)

    for module in modules:
        if vars(module).get(_REGISTER) is original:
            vars(module)[_REGISTER] = register


def _before_import(module: str, act: Callable[[], None]) -> None:
    """Have `act` called when a module is looked for; its import itself stays as it is.

    A finder in sys.meta_path would be seen by a script that prints it.
    """
    original = vars(PathFinder)["find_spec"]

    def find_spec(
        cls: type[PathFinder],
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname == module:
            PathFinder.find_spec = original  # type: ignore[method-assign]
            act()
        found: ModuleSpec | None = original.__func__(cls, fullname, path, target)
        return found

    PathFinder.find_spec = classmethod(find_spec)  # type: ignore[method-assign,assignment]
