"""Reads the stack of another thread without ever holding one of its frames.

A frame that is held here lives on when its function returns: its locals would then be released
in this thread, and with them perhaps a process group, whose destructor waits for threads. So
frames are read within one call into C, in which no other thread runs: by iterators in C.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, compress, islice, repeat, takewhile, tee
from operator import attrgetter, is_, itemgetter
from types import CodeType, FrameType
from typing import Any, NamedTuple

from distrun.frames import is_library

MOST_CALLS = 64


class StackCall(NamedTuple):
    """One call on the stack."""

    code: CodeType
    line: int | None
    instruction: int
    """Index of its bytecode instruction."""


def calls_of(thread: int) -> list[StackCall]:
    """Return the calls that a thread is in, the innermost first, at most 64.

    Args:
        thread: Its identifier, as `threading.Thread.ident`.

    Raises:
        KeyError: There is no such thread.
    """
    flat: list[Any] = list(chain.from_iterable(map(_of_a_call, _frames(thread))))
    return [StackCall(*flat[at : at + 3]) for at in range(0, len(flat), 3)]


def locals_of(thread: int, code: CodeType, names: Sequence[str]) -> list[Any]:
    """Return local variables of the innermost call of a function, [] if it is not called.

    Raises:
        KeyError: There is no such thread, or a variable has no value.
    """
    get: Any = itemgetter(*names, names[0])  # two at least: then it returns a tuple
    return list(chain.from_iterable(map(get, _local_mappings(thread, code))))[: len(names)]


def known_local(thread: int, code: CodeType, name: str, known: Any) -> list[Any]:
    """Return what a mapping holds for a local variable, without holding its value: one, or none.

    Args:
        thread: The thread.
        code: The function's.
        name: The variable.
        known: The mapping, of C.

    Raises:
        KeyError: As `locals_of`.
        TypeError: The value cannot be a key.
    """
    values = map(itemgetter(name), _local_mappings(thread, code))
    return list(map(known.get, values))


def handled_by(thread: int) -> tuple[str, str, str, int] | None:
    """Return the exception whose `except` or `finally` block a thread is in.

    Returns:
        Type, message, and the file and line that raised it; None if there is none. A message that
        is no text is left out: to ask a class of the script for it would run its code here.

    Raises:
        KeyError: There is no such thread.
    """
    kinds = list(map(attrgetter("__class__.__name__"), _handled(thread)))
    args, same = tee(chain.from_iterable(map(attrgetter("args"), _handled(thread))))
    messages = list(compress(args, map(is_, map(type, same), repeat(str))))
    traces = map(attrgetter("__traceback__"), _handled(thread))
    steps = takewhile(bool, accumulate(chain(traces, repeat("tb_next")), getattr))
    try:
        places = list(map(attrgetter("tb_frame.f_code.co_filename", "tb_lineno"), steps))
    except AttributeError:  # there is none, or no more
        return None
    if not kinds or not places:
        return None
    own = [place for place in places if not is_library(place[0])]
    return kinds[0], next(iter(messages), ""), *(own or places)[-1]


def _handled(thread: int) -> Iterator[BaseException]:
    every = islice(iter(sys._current_exceptions, None), 1)
    found: Iterable[Any] = map(itemgetter(thread), every)
    if sys.version_info < (3, 12):
        found = map(itemgetter(1), found)  # of a triple as of sys.exc_info()
    return filter(None, found)


_of_a_call = attrgetter("f_code", "f_lineno", "f_lasti")


def _frames(thread: int) -> Iterator[FrameType]:
    every = islice(iter(sys._current_frames, None), 1)
    innermost: Iterable[Any] = map(itemgetter(thread), every)
    outwards = accumulate(chain(innermost, repeat("f_back")), getattr)
    return takewhile(bool, islice(outwards, MOST_CALLS))


def _local_mappings(thread: int, code: CodeType) -> Iterator[Any]:
    frames, same = tee(_frames(thread))
    is_called = map(partial(is_, code), map(attrgetter("f_code"), same))
    return islice(map(attrgetter("f_locals"), compress(frames, is_called)), 1)
