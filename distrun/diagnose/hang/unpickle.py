"""Reads a pickle of plain data: dicts, lists, tuples, texts, numbers, None.

It accepts only the opcodes that torch's recorder writes, so a pickle can neither call anything nor
take more memory than in proportion to its length, as Python's own unpickler may
(https://docs.python.org/3/library/pickle.html#restricting-globals).
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
}
_PUTS, _GETS = ("BINPUT", "LONG_BINPUT", "MEMOIZE"), ("BINGET", "LONG_BINGET")
_MARK = object()


class UnpickleError(ValueError):
    """The bytes are no pickle of plain data; the message says why."""


def unpickle(data: bytes) -> object:
    """Return the value that a pickle holds; what is named in it twice is one object.

    Raises:
        UnpickleError: It holds anything but plain data, or is broken.
    """
    machine, end = _Machine(), 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            machine.step(opcode.name, argument)
            end = (position or 0) + 1
        if end != len(data) or len(machine.stack) != 1 or machine.stack[0] is _MARK:
            raise UnpickleError("it does not end where its value ends")
    except UnpickleError:
        raise
    except (ValueError, LookupError) as error:
        raise UnpickleError(f"it is broken: {str(error)[:100]}") from None
    return machine.stack[0]


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Execute one opcode."""
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _PUTS:
            self._memo[len(self._memo) if argument is None else argument] = self.stack[-1]
        elif opcode in _GETS:
            self.stack.append(self._memo[argument])
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            self._fold(tuple, self._take(_TUPLES[opcode]))
        elif opcode in _STEPS:
            _STEPS[opcode](self)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise UnpickleError(f"it holds {opcode}, which no dump of torch has")

    def _take(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise UnpickleError("it takes more values than there are")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _to_mark(self) -> list[Any]:
        for number in range(len(self.stack) - 1, -1, -1):
            if self.stack[number] is _MARK:
                taken = self._take(len(self.stack) - number)
                return taken[1:]
        raise UnpickleError("it takes more values than there are")

    def _fold(self, make: Callable[[list[Any]], Any], items: list[Any]) -> None:
        if any(item is _MARK for item in items):
            raise UnpickleError("it takes more values than there are")
        self.stack.append(make(items))

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise UnpickleError("it adds to what is no list")
        self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or len(items) % 2:
            raise UnpickleError("it adds to what is no dict")
        if any(type(key) is not str for key in items[::2]):  # nested tuples overflow hash()
            raise UnpickleError("a key of it is no text")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))


_STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda machine: machine.stack.append(_MARK),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "EMPTY_DICT": lambda machine: machine.stack.append({}),
    "TUPLE": lambda machine: machine._fold(tuple, machine._to_mark()),
    "APPEND": lambda machine: machine._extend(machine._take(1)),
    "APPENDS": lambda machine: machine._extend(machine._to_mark()),
    "SETITEM": lambda machine: machine._update(machine._take(2)),
    "SETITEMS": lambda machine: machine._update(machine._to_mark()),
}
