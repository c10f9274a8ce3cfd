"""The stack of another thread is read without a frame of it being held."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from distrun.agent.main_stack import MOST_CALLS, calls_of, handled_by, known_local, locals_of

pytestmark = pytest.mark.timeout(60)


class Held:
    """Something that a function holds."""


class Waiter:
    """A thread that waits in `inner`, some calls below `outer`."""

    def __init__(self, depth: int = 3) -> None:
        self.here, self.go_on, self.done = (threading.Event() for _ in range(3))
        self.ended_in: list[int] = []
        self.thread = threading.Thread(target=self.outer, args=(depth,))
        self.thread.start()
        assert self.here.wait(20)
        assert self.thread.ident
        self.ident = self.thread.ident

    def outer(self, depth: int) -> None:
        if depth:
            self.outer(depth - 1)
        else:
            self.inner(7, group=self)
        if not self.done.is_set():
            self.done.set()

    def inner(self, src: int, group: Waiter) -> None:
        held = Held()
        weakref.finalize(held, lambda: self.ended_in.append(threading.get_ident()))
        self.here.set()
        self.go_on.wait(20)

    def end(self) -> None:
        self.go_on.set()
        self.thread.join()


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    waiter = Waiter()
    yield waiter
    waiter.end()


def test_calls_are_told_innermost_first_with_their_lines(waiter: Waiter) -> None:
    calls = calls_of(waiter.ident)
    names = [call.code.co_name for call in calls]
    assert names[names.index("inner") :][:5] == ["inner", *["outer"] * 4]
    inner = calls[names.index("inner")]
    first = Waiter.inner.__code__.co_firstlineno
    assert inner.line == first + 4
    assert 0 <= inner.instruction < len(inner.code.co_code)


def test_a_deep_stack_is_cut_and_a_thread_that_is_none_is_an_error() -> None:
    waiter = Waiter(depth=200)
    try:
        assert len(calls_of(waiter.ident)) == MOST_CALLS
    finally:
        waiter.end()
    with pytest.raises(KeyError):
        calls_of(1)


def test_the_locals_of_one_function_are_read(waiter: Waiter) -> None:
    inner = Waiter.inner.__code__
    assert locals_of(waiter.ident, inner, ["src"]) == [7]
    assert locals_of(waiter.ident, inner, ["group", "src"]) == [waiter, 7]
    assert known_local(waiter.ident, inner, "src", {7: "seven"}) == ["seven"]
    assert known_local(waiter.ident, inner, "src", {}) == [None]
    with pytest.raises(KeyError):
        locals_of(waiter.ident, inner, ["none"])


def test_of_a_function_that_is_not_called_nothing_is_read(waiter: Waiter) -> None:
    assert locals_of(waiter.ident, Waiter.end.__code__, ["self"]) == []
    assert known_local(waiter.ident, Waiter.end.__code__, "self", {}) == []


def reads(thread: int) -> list[Callable[[], object]]:
    inner = Waiter.inner.__code__
    return [
        lambda: calls_of(thread),
        lambda: locals_of(thread, inner, ["src"]),
        lambda: known_local(thread, inner, "src", {}),
    ]


@pytest.mark.parametrize("number", range(3))
def test_what_a_function_held_ends_in_its_own_thread_whoever_has_looked(number: int) -> None:
    waiter = Waiter()
    found = reads(waiter.ident)[number]()  # kept beyond the end of the function
    waiter.end()
    assert waiter.ended_in == [waiter.ident]
    assert found


def test_no_frame_is_left_referenced(waiter: Waiter) -> None:
    for read in reads(waiter.ident):
        read()
    frame = sys._current_frames()[waiter.ident]
    others = [r for r in gc.get_referrers(frame) if r is not sys._getframe()]
    assert not [r for r in others if type(r).__module__ in ("itertools", "builtins") and r]


class Cleaner:
    """A thread that waits in the `finally` block of an exception."""

    def __init__(self, *args: object) -> None:
        self.args = args
        self.here, self.go_on = threading.Event(), threading.Event()
        self.ended_in: list[int] = []
        self.thread = threading.Thread(target=self.outer)
        self.thread.start()
        assert self.here.wait(20)
        self.ident = self.thread.ident or 0

    def outer(self) -> None:
        with suppress(ValueError):
            self.inner()

    def inner(self) -> None:
        held = Held()
        weakref.finalize(held, lambda: self.ended_in.append(threading.get_ident()))
        try:
            raise ValueError(*self.args, held)
        finally:
            del held
            self.here.set()
            self.go_on.wait(20)

    def end(self) -> None:
        self.go_on.set()
        self.thread.join()


@pytest.mark.parametrize(
    ("args", "message"), [(("loss is NaN", "x"), "loss is NaN"), ((3, "x"), "x"), ((), "")]
)
def test_the_exception_of_a_finally_block_is_told_and_not_held(
    args: tuple[object, ...], message: str
) -> None:
    cleaner = Cleaner(*args)
    line = Cleaner.inner.__code__.co_firstlineno + 4
    assert handled_by(cleaner.ident) == ("ValueError", message, __file__, line)
    cleaner.end()
    assert cleaner.ended_in == [cleaner.ident], "released by the thread that raised it"


def test_a_thread_without_an_exception_has_none(waiter: Waiter) -> None:
    assert handled_by(waiter.ident) is None


def test_an_exception_is_not_held_whenever_it_goes() -> None:
    stop = threading.Event()
    strays: list[int] = []

    def note() -> None:
        if threading.get_ident() != thread.ident:
            strays.append(1)

    def raise_and_drop() -> None:
        while not stop.is_set():
            held = Held()
            weakref.finalize(held, note)
            try:
                raise ValueError("gone", held)
            except ValueError:
                del held

    thread = threading.Thread(target=raise_and_drop)
    thread.start()
    try:
        for _ in range(20_000):
            handled_by(thread.ident or 0)
    finally:
        stop.set()
        thread.join()
    assert not strays
