"""The words of a verdict: ranks, groups, tensors, calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distrun.diagnose.hang.evidence import Collective, Group
from distrun.diagnose.places import Place
from distrun.frames import runs, span

_DTYPES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "UInt16": "uint16",
    "UInt32": "uint32",
    "UInt64": "uint64",
    "Bool": "bool",
    "ComplexHalf": "complex32",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Float8_e4m3fn": "float8_e4m3fn",
    "Float8_e5m2": "float8_e5m2",
}
"""c10's names (c10/core/ScalarType.h) and torch's."""
_PLURAL = {"is": "are", "has": "have", "was": "were", "waits": "wait", "runs": "run"}
_MAX_NAME, _MAX_SIZES, _MAX_RUNS = 40, 4, 8
_MANY_S = 10.0


def folded(ranks: Iterable[int]) -> str:
    """Return `0-4,6` for 0, 1, 2, 3, 4 and 6; of many it says how many it leaves out."""
    found = runs(ranks)
    shown = span(rank for first, last in found[:_MAX_RUNS] for rank in range(first, last + 1))
    left = sum(last - first + 1 for first, last in found[_MAX_RUNS:])
    return f"{shown} and {left} more" if left else shown


def named(ranks: Sequence[int], hosts: Sequence[str] = ()) -> str:
    """Return `rank 5 on node1` or `ranks 0-4,6`; the host only if it is that of all."""
    who = f"rank{'s' * (len(ranks) > 1)} {folded(ranks)}"
    host = hosts[0] if hosts and len(set(hosts)) == 1 else ""
    return f"{who} on {host}" if host else who


def plural(words: str, count: int) -> str:
    """Return `are in load` for `is in load` if there are several."""
    verb, space, rest = words.partition(" ")
    return _PLURAL.get(verb, verb) + space + rest if count > 1 else words


def short_name(group: Group) -> str:
    """Return the name of a group in a drawn cycle."""
    if group.desc == "default_pg" or group.name == "0":
        return "default"
    return shortened(group.desc if _says_something(group.desc) else group.name)


def group_name(group: Group) -> str:
    """Return `group dp`, `the default group`, or `the group of ranks 0-3` for one without name."""
    if group.desc == "default_pg" or (group.name == "0" and not _says_something(group.desc)):
        return "the default group"
    if not _says_something(group.desc) and group.ranks:
        return f"the group of ranks {shortened(folded(group.ranks))}"
    return f"group {short_name(group)}"


def _says_something(desc: str) -> bool:
    return desc not in ("", "undefined")


def shortened(name: str) -> str:
    """Return a name that fits into a sentence."""
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def dtype(name: str) -> str:
    """Return torch's name of a dtype: `float32` for `Float`."""
    return _DTYPES.get(name, shortened(name))


def tensor(call: Collective) -> str:
    """Return `float32 [4096, 4096]` for what a collective was called with; "" for a barrier."""
    sizes, dtypes = call.input_sizes, call.input_dtypes
    if call.op == "scatter" or not sizes:  # only the root has an input
        sizes, dtypes = call.output_sizes, call.output_dtypes
    if not sizes:
        return ""
    first = sizes[0]
    shown = ", ".join(map(str, first[:_MAX_SIZES])) + (", …" if len(first) > _MAX_SIZES else "")
    more = f" and {len(sizes) - 1} more" if len(sizes) > 1 else ""
    return f"{dtype(dtypes[0])} [{shown}]{more}".strip() if dtypes else f"[{shown}]{more}"


def numbered(op: str, seq: int) -> str:
    """Return `all_reduce #7`."""
    return f"{shortened(op) or 'collective'} #{seq}"


def located(place: Place | None) -> str:
    """Return ` at train.py:88 (backward)`, or "" if it is not known."""
    return f" at {place}" if place else ""


def lasting(seconds: float | None) -> str:
    """Return ` for 312 s`, or "" if it is not known."""
    if seconds is None or seconds < 1:
        return ""
    return f" for {seconds:.0f} s" if seconds >= _MANY_S else f" for {seconds:.1f} s"


def printable(text: str) -> str:
    """Return text without control characters: ranks choose names and files."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
