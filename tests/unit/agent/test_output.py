"""What a rank writes to two pipes is read in the order in which it began."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from distrun.agent.output import Output


@contextmanager
def opened(*, apart: bool) -> Iterator[tuple[Output, dict[str, int]]]:
    output = Output(apart=apart)
    ends = dict(zip(("out", "err"), output.write_fds, strict=True))
    yield output, ends
    for fd in ends.values():
        os.close(fd)
    output.close()


def readable(output: Output) -> bool:
    return bool(select.select(output.fds, [], [], 0)[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll tells the order")
@pytest.mark.parametrize("first", ["out", "err"])
def test_the_stream_that_has_begun_first_comes_first(first: str) -> None:
    second = {"out": "err", "err": "out"}[first]
    with opened(apart=True) as (output, ends):
        for _ in range(3):  # what was read before must not count any more
            for name in (first, second, first):
                os.write(ends[name], name.encode())
            assert readable(output)
            parts = output.read()
            assert [data.decode() for _, data in parts] == [first * 2, second]
            assert [stream.removeprefix("std") for stream, _ in parts] == [first, second]
            assert not readable(output)
            assert output.read() == []


def test_one_pipe_keeps_every_write_in_its_place() -> None:
    with opened(apart=False) as (output, ends):
        for number in range(100):
            os.write(ends["err" if number % 3 else "out"], b"%d " % number)
        assert output.read() == [("both", b"".join(b"%d " % n for n in range(100)))]


def test_more_than_is_read_at_once_is_read_the_next_time() -> None:
    with opened(apart=True) as (output, ends):
        os.set_blocking(ends["err"], False)
        written = 0
        while True:
            try:
                written += os.write(ends["err"], b"x" * 65536)
            except BlockingIOError:
                break
        os.write(ends["out"], b"y")
        got = {"stderr": 0, "stdout": 0}
        while readable(output):
            for stream, data in output.read():
                got[stream] += len(data)
        assert got == {"stderr": written, "stdout": 1}


def test_it_is_at_its_end_when_nobody_has_either_pipe() -> None:
    output = Output(apart=True)
    out, err = output.write_fds
    child = os.dup(err)
    os.write(out, b"last")
    os.close(out)
    os.close(err)
    assert output.read() == [("stdout", b"last")]
    output.read()
    assert not (output.at_eof or output.spent_fds)  # a child of the rank has stderr still
    os.write(child, b"later")
    assert output.read() == [("stderr", b"later")]
    os.close(child)
    assert readable(output)
    assert output.read() == []
    assert output.at_eof and output.spent_fds == output.fds
    output.close()
