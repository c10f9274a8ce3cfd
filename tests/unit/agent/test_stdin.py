"""The stdin of a rank elsewhere: what fits goes on, the rest waits, the end comes last."""

from __future__ import annotations

import os

from distrun.agent.stdin import Stdin

PIPE_NBYTES = 1 << 16


def test_what_comes_is_read_in_order_and_then_its_end() -> None:
    stdin = Stdin()
    assert (stdin.take(b"ab"), stdin.take(b"c"), stdin.take(b"")) == (2, 1, 0)
    assert os.read(stdin.read_fd, 10) == b"abc"
    assert os.read(stdin.read_fd, 10) == b""
    assert stdin.waiting_fd is None
    stdin.handed()


def test_a_rank_that_is_slow_leaves_the_rest_waiting_and_the_end_behind_it() -> None:
    stdin = Stdin()
    data = os.urandom(3 * PIPE_NBYTES)
    done = stdin.take(data) + stdin.take(b"")
    assert 0 < done < len(data)
    assert stdin.waiting_fd is not None
    found = b""
    while len(found) < len(data):
        found += os.read(stdin.read_fd, PIPE_NBYTES)
        done += stdin.flush()
    assert (found, done) == (data, len(data))
    assert os.read(stdin.read_fd, 1) == b""
    stdin.handed()


def test_a_rank_that_reads_no_more_lets_everything_be_done_with() -> None:
    stdin = Stdin()
    stdin.handed()  # nobody has the other end
    assert stdin.take(b"abc") == 3
    assert stdin.waiting_fd is None
    assert stdin.take(b"") == 0
