"""The function of torch.distributed that a rank is in, with its arguments, from its stack.

Only frames of torch are read: a script may see that the locals of its own were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import CodeType
from typing import Any, NamedTuple

from distrun import torch_private
from distrun.agent.main_stack import StackCall, known_local, locals_of

_FUNCTIONAL = "/torch/distributed/_functional_collectives.py"
"""Its functions take ranks of the group."""
_FILES = ("/torch/distributed/distributed_c10d.py", _FUNCTIONAL)
_DEFAULT = "default_pg"
"""How torch describes the group of all ranks."""
_RANKS, _OPS = ("src", "dst"), ("op", "reduceOp")
_ARGUMENTS = (*_RANKS, "group_src", "group_dst", *_OPS, "tag")


class KnownGroup(NamedTuple):
    """A process group of this rank."""

    name: str
    desc: str
    ranks: Sequence[int]
    """Global ranks in the order of the group."""
    timeout_s: float = 0.0
    """torch's own limit for a collective; 0 if it is not known."""


class LibraryCall(NamedTuple):
    """A call of a function of torch.distributed."""

    function: str
    group: str
    """The group's name; "" if it is not known."""
    arguments: Mapping[str, int | str]
    """Those of `src`, `dst`, `op` and `tag` that it has; ranks are global ones if possible."""


def library_call(
    thread: int, calls: Sequence[StackCall], groups: Sequence[KnownGroup]
) -> LibraryCall | None:
    """Return the outermost call of a public function of torch.distributed, if there is one.

    Args:
        thread: The thread that is in the calls.
        calls: The innermost first.
        groups: The groups of this rank.
    """
    code = next((call.code for call in reversed(calls) if _is_public(call.code)), None)
    if code is None:
        return None
    found = _read(thread, code)
    name = _group_name(thread, code, groups)
    ranks = next((group.ranks for group in groups if group.name == name), ())
    arguments: dict[str, int | str] = {}
    for key in _RANKS:
        given, own = found.get(key), found.get(f"group_{key}")
        if code.co_filename.endswith(_FUNCTIONAL):
            given, own = None, given
        if type(given) is int:
            arguments[key] = given
        elif type(own) is int:
            arguments[key] = ranks[own] if 0 <= own < len(ranks) else own
    if op := next(filter(None, (_op_name(found.get(key)) for key in _OPS)), ""):
        arguments["op"] = op
    if type(found.get("tag")) is int:
        arguments["tag"] = found["tag"]
    return LibraryCall(code.co_name, name, arguments)


def _is_public(code: CodeType) -> bool:
    is_torch = code.co_filename.replace("\\", "/").endswith(_FILES)
    return is_torch and code.co_name.isidentifier() and not code.co_name.startswith("_")


def _parameters(code: CodeType) -> Sequence[str]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _read(thread: int, code: CodeType) -> dict[str, Any]:
    names = [name for name in _ARGUMENTS if name in _parameters(code)]
    try:
        values = locals_of(thread, code, names) if names else []
    except KeyError:  # it has ended, or deleted one
        return {}
    return dict(zip(names, values, strict=False))  # none, if the function has returned meanwhile


def _group_name(thread: int, code: CodeType, groups: Sequence[KnownGroup]) -> str:
    """Return the name of the group that a function was given; without one it is the default."""
    if "group" not in _parameters(code):
        return ""
    try:
        if "group_name" in code.co_varnames:  # of a functional one, which resolves it first
            given: Any = locals_of(thread, code, ["group_name"])
        else:
            given = known_local(thread, code, "group", torch_private.group_names())
            if given == [None] and known_local(thread, code, "group", {None: True}) == [True]:
                given = [group.name for group in groups if group.desc == _DEFAULT]
    except (KeyError, TypeError):
        return ""
    return next((name for name in given if type(name) is str), "")


def _op_name(value: Any) -> str:
    if type(value) is str:
        return value.upper()[:20]
    if type(value).__module__.startswith("torch._C"):  # no code of the user's runs
        return str(getattr(value, "name", ""))
    return ""
