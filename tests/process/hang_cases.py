"""The table of hangs: what each script of tests/scenarios/hangs comes to, as an expert says it.

A case is one fault in one style of training. What a launch makes of it is compared with what
stands here: the ranks at fault, the line they are on, the collective that the others are in.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tests.conftest import SCENARIOS

HANGS = SCENARIOS / "hangs"
Ends = Literal["hang", "fails", "well"]


@dataclass(frozen=True)
class Style:
    """A way to write training, and what ranks are in that wait for one in the middle of it."""

    name: str
    op: str
    waits_at: str


DDP = Style("ddp", "all_reduce", "ddp.py:train_step")
FSDP2 = Style("fsdp2", "all_gather", "fsdp2.py:train_step")
LOOP = Style("loop", "all_reduce", "loop.py:train_step")
STYLES = (DDP, FSDP2, LOOP)


@dataclass(frozen=True)
class Case:
    """One fault in one script, and the right answer."""

    fault: str
    style: Style
    culprits: tuple[int, ...]
    """() if nobody can tell which of the ranks that disagree is wrong."""
    at: str = ""
    """`file:function` whose lines marked HERE the culprit is on (or several such words); "" if no
    line can be known."""
    op: str = ""
    """What the ranks that wait are in, "" if that is no collective."""
    group: str = "default_pg"
    """The group of that collective, or those that are right, where ranks wait in several."""
    waits_at: str = ""
    """`file:function` whose lines marked WAIT they are on."""
    words: tuple[str, ...] = ()
    """More of the script's command line."""
    kind: str = ""
    """The kinds of verdict that are right, "" for any."""
    says: str = ""
    """A regular expression for what the launcher must say, on top of a verdict."""
    or_aborts: str = ""
    """A regular expression for what is said if gloo sees a wrong size first, and aborts."""
    ends: Ends = "hang"
    """`fails` if gloo or torch raise on their own, `well` if it is no hang."""
    name: str = ""

    @property
    def id(self) -> str:
        return f"{self.style.name}-{self.name or self.fault}"

    @property
    def script(self) -> tuple[str, ...]:
        return (str(HANGS / f"{self.style.name}.py"), self.fault, *self.words)

    @property
    def here(self) -> set[tuple[str, int]]:
        return _marked(self.at, "HERE", "WAIT")

    @property
    def waiting(self) -> set[tuple[str, int]]:
        return _marked(self.waits_at, "WAIT", "HERE")


def _marked(places: str, *marks: str) -> set[tuple[str, int]]:
    """Return the (file, line) that carry, in each function, the first of the marks that it has."""
    found: set[tuple[str, int]] = set()
    for place in places.split():
        in_order = ({*_lines(place, mark)} for mark in marks)
        found |= next(filter(None, in_order), set())
    return found


def _lines(place: str, mark: str) -> Iterator[tuple[str, int]]:
    file, _, function = place.partition(":")
    source = (HANGS / file).read_text()
    inside = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == function
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for number, line in enumerate(source.splitlines(), 1):
        if line.endswith(mark) and (number in inside or not function):
            yield file, number


def case(fault: str, style: Style, *ranks: int, **known: Any) -> Case:
    """A fault of these ranks: they are the culprits, and the others wait in what the style calls.

    Args:
        fault: As the script calls it.
        style: The script.
        *ranks: Those that it is told.
        **known: Fields of Case that are others than these.
    """
    words = ("--rank", ",".join(map(str, ranks)), *known.pop("words", ()))
    usual = {"at": f"outside.py:{fault}", "op": style.op, "waits_at": style.waits_at}
    return Case(fault, style, **{"culprits": ranks, "words": words} | usual | known)


def in_each_style(fault: str, *ranks: int, **known: Any) -> list[Case]:
    return [case(fault, style, *ranks, **known) for style in STYLES]


def call(fault: str, *ranks: int, **known: Any) -> list[Case]:
    """Ranks that call what the others do not call, or not now."""
    return in_each_style(fault, *ranks, **{"at": f"calls.py:{fault}"} | known)


def late(fault: str, rank: int, op: str, file: str = "calls.py", **known: Any) -> list[Case]:
    """A rank that sleeps while all the others are in one call."""
    usual = {"at": "outside.py:sleep", "op": op, "waits_at": f"{file}:{fault}"}
    return in_each_style(fault, rank, **usual | known)


def well(fault: str, rank: int = 1) -> list[Case]:
    """Ranks that are slow and alive."""
    return in_each_style(fault, rank, culprits=(), at="", op="", waits_at="", ends="well")


OUTSIDE = [
    *in_each_style("sleep", 1, kind="c_call"),
    *in_each_style("spin", 2, kind="loop python"),
    *in_each_style("spin_on_a_file", 0, kind="loop python"),
    *in_each_style("poll_slowly", 3, kind="c_call python loop"),
    *in_each_style("read_in_c", 2, kind="c_call"),
    *in_each_style("read_in_c_with_the_gil", 0, kind="gil c_call"),
    *in_each_style("lock_twice", 1, kind="lock"),
    *in_each_style("wait_for_an_event", 2, kind="lock"),
    *in_each_style("wait_for_a_queue", 3, kind="input"),
    *in_each_style("wait_for_a_thread_that_raised", 0, kind="input"),
    *in_each_style("wait_for_a_future", 1, kind="lock"),
    *in_each_style("loader_worker_sleeps", 2, kind="input"),
    *in_each_style("loader_worker_is_stopped", 3, kind="input"),
    *in_each_style("loader_without_workers", 0, at="outside.py:__getitem__", kind="c_call input"),
    *in_each_style("iterator_blocks", 1, at="outside.py:rows", kind="c_call"),
    *in_each_style("wait_for_a_command", 2, kind="child"),
    *in_each_style("wait_for_a_pid", 3, kind="child"),
    *in_each_style("wait_for_a_process", 1, kind="child"),
    *in_each_style("read_a_fifo", 2, kind="c_call"),
    *in_each_style("save_into_a_fifo", 0, kind="gil c_call python"),
    *in_each_style("read_a_socket", 3, kind="c_call"),
    *in_each_style("download", 1, kind="c_call python"),
    *in_each_style("select_nothing", 2, kind="c_call"),
    *in_each_style("lock_a_file", 3, kind="c_call lock"),
    *in_each_style("run_asyncio", 0, kind="python c_call"),
    *in_each_style("import_blocks", 1, at="never_imported.py:", kind="c_call"),
    *in_each_style("stop_oneself", 2, at="", kind="stopped"),
    *in_each_style("destructor_sleeps", 3, at="outside.py:__del__", kind="c_call"),
    *in_each_style("sleep", 1, 2, name="two_ranks_sleep", kind="c_call"),
    *in_each_style("sleep", 0, 1, 3, name="all_but_one_sleep", kind="c_call"),
]
"""A rank that comes to no collective."""

BEFORE = [
    *in_each_style("sleep", 1, words=("--at", "start"), op="", group="", waits_at="job.py:join",
                   name="one_does_not_join"),
    *in_each_style("import_blocks", 3, words=("--at", "start"), at="never_imported.py:", op="",
                   group="", waits_at="job.py:join", name="import_before_it_joins"),
    case("sleep", DDP, 2, words=("--at", "model"), op="all_gather", waits_at="ddp.py:main",
         name="one_makes_no_model"),
    case("sleep", LOOP, 0, words=("--at", "model"), op="broadcast", waits_at="loop.py:main",
         name="source_makes_no_model"),
]  # fmt: skip
"""Before there is a process group, or a model."""

ENDED = [
    *in_each_style("atexit_sleeps", 1, at="outside.py:say_goodbye", op="", group="", waits_at=""),
    *in_each_style("leave_with_0", 1, at="", ends="fails", says="rank 1 .*had ended with 0"),
    *in_each_style(
        "leave_at_once_with_0", 2, at="", ends="fails", says="rank 2 .*had ended with 0"
    ),
    *in_each_style("leave_a_child", 3, at="", kind="ended"),
]
"""Ranks of which some are not there any more. The connections of one that leaves early close, so
that the others fail with what gloo raises, unless a child of it holds them open."""

CALLS = [
    *call("barrier_on_some", 0, kind="mismatch"),
    *call(
        "other_collective",
        1,
        op="all_reduce",
        waits_at="calls.py:other_collective",
        kind="mismatch",
    ),
    *call("swapped", 2, op="all_reduce", waits_at="calls.py:swapped", kind="order mismatch"),
    *call("other_root", 1, culprits=(0, 1), op="broadcast", waits_at="", kind="mismatch"),
    *call("other_shape", 3, ends="fails", says="different sizes or dtypes"),
    *call("other_width", 1, ends="fails", says="different sizes or dtypes"),
    *call("send_alone", 2, kind="p2p"),
    *call("receive_alone", 1, kind="p2p"),
    *call("receive_without_wait", 3),
    *call("receive_from_each_other", 1, 2, op="recv", group="", waits_at="", kind="p2p cycle"),
    *call(
        "ring_of_sends", 0, culprits=(0, 1, 2, 3), op="", group="", waits_at="", kind="cycle p2p"
    ),
    *call("store_key_that_nobody_sets", 2),
    *call("barrier_in_except", 1, kind="mismatch", says="has raised ValueError: a broken row"),
    *call(
        "barrier_in_finally",
        2,
        op="all_reduce",
        waits_at="calls.py:barrier_in_finally",
        kind="mismatch",
        says="has raised ValueError: a broken row",
    ),
    *call("swallowed", 3, op="all_reduce", waits_at="calls.py:swallowed", kind="mismatch"),
    *late("wait_for_a_handle", 1, "all_reduce"),
    *late("gather_without_one", 2, "gather"),
    *late("broadcast_from_one_that_sleeps", 3, "broadcast"),
    *late("objects_of_all", 0, "all_gather"),
    *late("objects_from_one", 1, "broadcast"),
    *late("barrier_of_all", 2, "barrier"),
    *late("monitored_barrier", 3, ""),
    *late("all_to_all", 1, "all_to_all"),
]
"""Calls that do not match."""

SHIFTED = [
    case("no_sync_on_one", DDP, 1, at="ddp.py:main"),
    case("swallowed_batch", DDP, 2, at="ddp.py:main"),
    case("swallowed_batch", FSDP2, 3, at="fsdp2.py:main"),
    case("fewer_batches", DDP, 3, at="ddp.py:main"),
    case("fewer_batches", FSDP2, 1, at="fsdp2.py:main"),
    case("fewer_batches", LOOP, 2, at="loop.py:main"),
    case("evaluates_with_gradients", DDP, 0, words=("--buffers",), at="ddp.py:train_step"),
    case("evaluates_alone", DDP, 0, words=("--buffers",), culprits=(), at="", ends="well"),
    case("evaluates_alone", FSDP2, 0, at="", ends="fails", says="different sizes or dtypes"),
    case("saves_alone", DDP, 0, at="ddp.py:save"),
    case("saves_alone", FSDP2, 0, at="", ends="fails", says="different sizes or dtypes"),
    case("saves_whole_alone", FSDP2, 0, at="", ends="fails", says="different sizes or dtypes"),
    case("logs_gradients_alone", FSDP2, 0, at="fsdp2.py:log_gradients"),
    case("hook_on_one", DDP, 1, at="ddp.py:log_in_hook"),
    case(
        "unused_parameters",
        DDP,
        2,
        at="ddp.py:train_step",
        ends="fails",
        says="rank 2 .*failed first",
    ),
    case(
        "sleep",
        DDP,
        1,
        words=("--buffers",),
        op="broadcast",
        waits_at="",
        name="sleeps_before_buffers_come",
    ),
]
"""What a rank does that is right for one process alone."""

GROUPS = [
    case("crossed_order", LOOP, 1, at="groups.py:crossed_order", group="data",
         waits_at="groups.py:crossed_order"),
    case("crossed_pair", LOOP, 0, 1, at="groups.py:crossed_pair", group="model", waits_at=""),
    case("ring_of_groups", LOOP, 0, culprits=(0, 1, 2, 3), at="groups.py:ring_of_groups", op="",
         group="", waits_at=""),
    *in_each_style("group_of_one_half", 1, at="outside.py:sleep"),
    *call("new_group_on_some", 2, at="groups.py:new_group_on_some"),
    case("new_group_without_one", FSDP2, 3, at="fsdp2.py:train_step", op="", group="",
         waits_at="groups.py:new_group_without_one"),
    case("new_group_without_one", LOOP, 1, at="loop.py:train_step", op="", group="",
         waits_at="groups.py:new_group_without_one"),
    *late("row_of_a_mesh", 1, "all_reduce", "groups.py", group="mesh_tp mesh_dp"),
    case("row_left_out", LOOP, 0, culprits=(0, 1), kind="cycle", waits_at="",
         at="groups.py:row_left_out loop.py:train_step"),
    case("crossed_mesh", LOOP, 1, 2, culprits=(0, 1, 2, 3), at="groups.py:crossed_mesh", op="",
         group="", waits_at=""),
    *call("whole_tensor_on_one", 3, at="groups.py:whole_tensor_on_one",
          or_aborts="rank 3( on node1)? came with fewer bytes at groups.py"),
    case("redistribute_on_one", LOOP, 1, culprits=(0, 1), kind="cycle", waits_at="",
         at="groups.py:redistribute_on_one loop.py:train_step"),
    *late("pipeline", 1, "", "groups.py"),
    *call("exchange_with_one_that_sleeps", 1, culprits=(1, 2),
          at="outside.py:sleep calls.py:exchange_with_one_that_sleeps"),
]  # fmt: skip
"""Several groups, or two ranks alone."""

SLOW = [
    *well("all_compute"),
    *well("one_computes", 1),
    *well("one_computes_in_numpy", 2),
    *well("one_is_in_one_long_call", 3),
    *well("one_is_in_one_long_call_with_the_gil", 0),
    *well("one_is_in_one_long_call_after_a_call_that_was_overtaken", 2),
    *well("one_counts_primes", 1),
    *well("one_tokenises", 2),
    *well("one_sorts_in_c", 3),
    *well("one_writes_a_checkpoint", 0),
    *well("one_saves_again_and_again", 0),
    *well("one_evaluates", 0),
    *well("one_compiles", 1),
    *well("one_waits_for_a_loader_at_work", 2),
    *well("one_waits_for_a_command_at_work", 3),
    *well("files_grow", 1),
    *well("one_downloads", 2),
    *well("one_prints", 3),
    *well("one_logs_metrics", 0),
    *well("one_is_stopped_shortly", 1),
    *well("one_is_late_again_and_again", 2),
    *well("all_sleep"),
    *well("all_wait_for_data"),
    *call("other_op", 1, ends="well", culprits=()),
    *call("other_dtype", 2, ends="well", culprits=()),
]
"""No hangs, though each lasts longer than the limit. Other operations and dtypes of one width
give wrong sums in gloo, without a word."""

CASES = [*OUTSIDE, *BEFORE, *ENDED, *CALLS, *SHIFTED, *GROUPS, *SLOW]
