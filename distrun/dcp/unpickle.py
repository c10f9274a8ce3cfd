"""An unpickler that never calls what a pickle names, for data with known classes.

Python's own, even with a list of allowed classes, lets a pickle set attributes of those
classes, allocate memory by a number in it, and nest without limit. This one accepts the
opcodes of protocol 4 for plain objects, makes each object itself, once, and checks each field.
The result takes memory in proportion to the length of the pickle.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PROTOCOL = 4
_MAX_STACK = 10_000
"""Pickle adds a thousand items to a container at once: two thousand values, and some more."""
_MAX_TEXT = 4096
_MAX_INT = 2**63 - 1
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_TEXTS = frozenset(("SHORT_BINUNICODE", "BINUNICODE"))
_INTS = frozenset(("BININT", "BININT1", "BININT2", "LONG1"))


class UnpickleError(ValueError):
    """The bytes are not what pickle writes for such data; the message says why."""


@dataclass(frozen=True)
class Constructor:
    """A function of ours, which checks its arguments, for one that a pickle may call."""

    make: Callable[..., Any]


@dataclass(frozen=True)
class Record:
    """A class whose objects a pickle may hold."""

    kind: type
    fields: Mapping[str, Callable[[Any], bool]]
    """Name -> a function that returns whether a value is valid."""
    optional: frozenset[str] = frozenset()
    state: Callable[[Any], Any] = lambda state: state
    """Returns the fields, for a class whose pickled state is something else."""

    def check(self, state: Any) -> dict[str, Any]:
        """Return the fields of an object.

        Raises:
            UnpickleError: One is missing, unknown, or of the wrong type.
        """
        fields, name = self.state(state), self.kind.__name__
        if type(fields) is not dict:
            raise UnpickleError(f"the fields of a {name} are {kind(fields)}")
        if not self.fields.keys() - self.optional <= fields.keys() <= self.fields.keys():
            raise UnpickleError(f"the fields of a {name} are not those of its class")
        for field, value in fields.items():
            if not self.fields[field](value):
                raise UnpickleError(f"{name}.{field} is {kind(value)}, which is not valid there")
        return fields


def kind(value: object) -> str:
    """Return "a dict": messages have the type of a value, never the value."""
    return f"a {type(value).__name__}"


def unpickle(data: bytes, names: Mapping[tuple[str, str], object]) -> object:
    """Return the object that a pickle holds.

    Args:
        data: The pickle.
        names: (module, name) -> the `Constructor`, `Record` or constant to use.

    Raises:
        UnpickleError: It asks for anything else, or is broken.
    """
    machine, end = _Machine(names), 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            machine.step(opcode.name, argument)
            end = (position or 0) + 1
    except UnpickleError:
        raise
    except (ValueError, IndexError) as error:
        raise UnpickleError(f"it is not a pickle: {str(error)[:200]}") from None
    if end != len(data):
        raise UnpickleError(f"{len(data) - end} bytes follow its end")
    return machine.result()


class _Machine:
    """The stack, the marks on it and the memo of one pickle."""

    def __init__(self, names: Mapping[tuple[str, str], object]) -> None:
        self._names = names
        records = [each.kind for each in names.values() if isinstance(each, Record)]
        self._key_kinds = {str, *(each for each in records if each.__hash__ is not None)}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []
        self._new: dict[int, tuple[object, Record]] = {}
        """The objects without fields so far, by id."""
        self._closed: set[int] = set()
        """The ids of lists and dicts in checked objects: they must not change any more."""

    def step(self, opcode: str, argument: Any) -> None:
        """Execute one opcode."""
        if opcode in _STEPS:
            _STEPS[opcode](self)
        elif opcode in _CONSTANTS:
            self._push(_CONSTANTS[opcode])
        elif opcode in ("BINGET", "LONG_BINGET"):
            self._push(self._memo[argument])
        elif opcode in _TUPLES:
            self._push(tuple(self._take(_TUPLES[opcode])))
        elif opcode in _INTS and abs(argument) <= _MAX_INT:
            self._push(argument)
        elif opcode in _TEXTS and len(argument) <= _MAX_TEXT:
            argument.encode()  # a name must not hold a surrogate
            self._push(argument)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise UnpickleError(f"it holds {opcode} {argument!r:.40}")

    def result(self) -> object:
        """Return the value that is left on the stack."""
        if self._new or self._marks or len(self._stack) != 1:
            raise UnpickleError("it ends before its objects are whole")
        return self._stack[0]

    # --- the stack ---------------------------------------------------------------------

    def _push(self, value: object) -> None:
        if len(self._stack) + len(self._marks) >= _MAX_STACK:
            raise UnpickleError(f"it nests deeper than {_MAX_STACK} values")
        self._stack.append(value)

    def _take(self, count: int) -> list[Any]:
        """Take values off the stack, never beyond the last mark."""
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise UnpickleError("it takes more values than there are")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _take_to_mark(self) -> list[Any]:
        return self._take(len(self._stack) - self._marks.pop())

    def _open(self, container: type) -> Any:
        """Return the list or dict to add to."""
        top = self._stack[-1]
        if type(top) is not container or id(top) in self._closed:
            raise UnpickleError(f"it adds to {kind(top)}")
        return top

    def _extend(self, items: list[Any]) -> None:
        self._open(list).extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._open(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in self._key_kinds or id(key) in self._new:
                raise UnpickleError(f"a key is {kind(key)}")
            target[key] = value

    # --- opcodes without an argument ------------------------------------------------------

    def _mark(self) -> None:
        self._push(None)
        self._stack.pop()
        self._marks.append(len(self._stack))

    def _tuple(self) -> None:
        self._push(tuple(self._take_to_mark()))

    def _empty_list(self) -> None:
        self._push([])

    def _empty_dict(self) -> None:
        self._push({})

    def _append(self) -> None:
        self._extend(self._take(1))

    def _appends(self) -> None:
        self._extend(self._take_to_mark())

    def _setitem(self) -> None:
        self._update(self._take(2))

    def _setitems(self) -> None:
        self._update(self._take_to_mark())

    def _memoize(self) -> None:
        self._memo.append(self._stack[-1])

    def _stack_global(self) -> None:
        name = tuple(self._take(2))
        if not all(type(part) is str for part in name) or name not in self._names:
            asked = ".".join(part if type(part) is str else kind(part) for part in name)
            raise UnpickleError(f"it asks for {asked!r:.100}, which is not among its classes")
        self._push(self._names[name[0], name[1]])

    def _newobj(self) -> None:
        record, arguments = self._take(2)
        if not isinstance(record, Record) or arguments != ():
            raise UnpickleError(f"it makes an object of {kind(record)}")
        made: object = object.__new__(record.kind)
        self._new[id(made)] = made, record
        self._push(made)

    def _reduce(self) -> None:
        constructor, arguments = self._take(2)
        if not isinstance(constructor, Constructor) or type(arguments) is not tuple:
            raise UnpickleError(f"it calls {kind(constructor)}")
        try:
            self._push(constructor.make(*arguments))
        except TypeError as error:
            raise UnpickleError(f"it calls a class with other arguments: {error}") from None

    def _build(self) -> None:
        made, state = self._take(2)
        if id(made) not in self._new:
            raise UnpickleError(f"it sets fields of {kind(made)}")
        _, record = self._new.pop(id(made))
        fields = record.check(state)
        for value in fields.values():
            if type(value) in (list, dict):
                if id(value) in self._closed:
                    raise UnpickleError(f"two objects hold one {type(value).__name__}")
                self._closed.add(id(value))
        vars(made).update(fields)
        self._push(made)


_STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine._mark,
    "TUPLE": _Machine._tuple,
    "EMPTY_LIST": _Machine._empty_list,
    "EMPTY_DICT": _Machine._empty_dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "MEMOIZE": _Machine._memoize,
    "STACK_GLOBAL": _Machine._stack_global,
    "NEWOBJ": _Machine._newobj,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}
