"""Calls that do not match: what plain gloo, torch's DETAIL mode and checked mode do of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from distrun.comm import CommError, World
from distrun.testing import RanksFailed, faults, run_ranks
from tests.process.comm_mismatches import ROWS, TIMEOUT_S, Row, sites

pytestmark = [pytest.mark.usefixtures("warm_ranks"), pytest.mark.timeout(60)]

PLAIN_TIMEOUT_S = 0.8
_OPS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}


class Plain:
    """torch.distributed on one group, called as a World is called."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.rank, self.world_size = group.rank(), group.size()

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        dist.all_reduce(x, _OPS[op], group=self.group)
        return x

    def broadcast(self, x: Tensor, src: int = 0) -> Tensor:
        dist.broadcast(x, src, group=self.group)
        return x

    def all_gather(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        parts = [x.new_empty(size) for size in sizes]
        dist.all_gather(parts, x, group=self.group)
        return torch.cat(parts)

    def all_to_all(self, x: Tensor, sizes: list[int] | None = None) -> Tensor:
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x, sizes, sizes, group=self.group)
        return out

    def close(self) -> None:
        dist.destroy_process_group(self.group)


def torchs(rows: Sequence[Row], detail: bool) -> Callable[[World], dict[str, str]]:
    """Return what tells, on each rank, how torch fares with these mismatches."""

    def on_rank(world: World) -> dict[str, str]:
        if detail:
            dist.set_debug_level(dist.DebugLevel.DETAIL)
        return {row.name: _torchs_way(world, row) for row in rows}

    return on_rank


def _torchs_way(world: World, row: Row) -> str:
    timeout = timedelta(seconds=PLAIN_TIMEOUT_S)
    group = Plain(dist.new_group(timeout=timeout))  # one that timed out is of no more use
    calls = row.odd if group.rank == group.world_size - 1 else row.usual
    try:
        found = [call(group) for call in calls]
        outcome = "returned"
    except RuntimeError as error:
        outcome = _kind(str(error))
    everyones = world.all_gather_object(outcome)
    if set(everyones) != {"returned"}:
        return next(kind for kind in ("times out", "error", "caught") if kind in everyones)
    whole = Plain(world.group)
    right = {
        calls: [call(whole) for call in calls] for calls in (row.usual, row.odd)
    }  # as it would be if all ranks agreed
    wrong = any(not torch.equal(a, b) for a, b in zip(found, right[calls], strict=True))
    return "garbage" if any(world.all_gather_object(wrong)) else "right"


def _kind(message: str) -> str:
    if "Detected mismatch between collectives" in message:
        return "caught"
    return "times out" if "Timed out waiting" in message else "error"


def torchs_column(detail: bool) -> dict[str, str]:
    """Run the table on torch.distributed: the rows that kill a rank alone, the rest together."""
    lethal = {r.name for r in ROWS if (r.detail if detail else r.plain) == "aborts" or r.ends_rank}
    together = torchs([row for row in ROWS if row.name not in lethal], detail)
    column, *_ = run_ranks(together, 2, "gloo", 40, check=False)
    for row in ROWS:
        if row.name in lethal:
            with pytest.raises(RanksFailed) as failed:
                run_ranks(torchs([row], detail), 2, "gloo", 20, check=False)
            ways = [failure.what for failure in failed.value.failures]
            assert len(ways) == 2, failed.value
            column[row.name] = "aborts" if "killed by SIGABRT" in ways else "error"
    return column


@pytest.mark.parametrize("detail", [False, True], ids=["plain", "DETAIL"])
def test_torch_lets_mismatches_pass_aborts_or_hangs_as_the_table_says(detail: bool) -> None:
    expected = {row.name: row.detail if detail else row.plain for row in ROWS}
    assert torchs_column(detail) == expected


@dataclass(frozen=True)
class Found:
    """What checked mode did with one mismatch on one rank."""

    error: str | None
    text: str = ""
    usable: bool | None = None


def checkeds_way(group: World, row: Row) -> Found:
    """Make the calls of a row; a rank that sends anything from the bad one on is killed."""
    calls = row.odd if group.rank == group.world_size - 1 else row.usual
    error, text = None, ""
    with ExitStack() as stack:
        for rank in range(group.world_size):
            stack.enter_context(
                faults.kill(rank=rank, at=row.caught_at + 1).on(group, must_occur=False)
            )
        try:
            for call in calls:
                call(group)
        except CommError as raised:
            error, text = type(raised).__name__, str(raised)
    usable = None
    if row.in_step:
        usable = group.all_reduce(torch.tensor(group.rank)).item() == sum(range(group.world_size))
    return Found(error, text, usable)


def on_store(run: Callable[[World], Any]) -> Callable[[World], Any]:
    """Return `run`, given a world whose board is a store, as if its ranks had several hosts."""

    def on_rank(world: World) -> Any:
        from distrun.comm.checked.checker import BoardChecker
        from distrun.comm.checked.make import make_board
        from distrun.comm.checked.watch import Watch

        keeps = world.rank == 0
        port = None
        if keeps:
            store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            port = store.port
        port = world.broadcast_object(port)
        if not keeps:
            store = dist.TCPStore("127.0.0.1", port, is_master=False)
        watch = Watch()

        def checker(group: World) -> BoardChecker:
            board = make_board(group, store, share_memory=False)
            return BoardChecker(board, group.name, TIMEOUT_S, watch)

        with World(world.transport, world.local_rank, "the world", checker) as checked:
            found = run(checked)
            checked.barrier()  # rank 0 keeps the store
            return found

    return on_rank


def checkeds_column(rows: Sequence[Row]) -> Callable[[World], dict[str, Found]]:
    """Return what tells, on each rank, how checked mode fares with these mismatches."""

    def on_rank(world: World) -> dict[str, Found]:
        found = {}
        for row in rows:
            group = world
            if not row.in_step and len(rows) > 1:  # the rows after it need a group too
                part = world.split([range(world.world_size)])
                assert part is not None
                group = part
            found[row.name] = checkeds_way(group, row)
            if group is not world:
                dist.barrier()  # unchecked: the late rank comes later than it may in checked mode
        return found

    return on_rank


def assert_as_the_table_says(row: Row, found: Sequence[Found]) -> None:
    """Compare what checked mode did on each rank with a row."""
    *usual, odd = found
    assert [each.error for each in usual] == [row.errors[0]] * len(usual), (row.name, found)
    assert odd.error == row.errors[1], (row.name, found)
    told = found if row.errors[0] == row.errors[1] else usual
    odd_line, usual_line = row.lines()
    for each in told:
        assert _table(each.text)[:2] == [f"rank 2 | {odd_line}", f"ranks 0-1 | {usual_line}"]
        assert "swapped" in each.text if row.caught_at else "nothing was sent" in each.text
        assert "\n  hint: " in each.text
    if row.caught_at:
        paths = [
            ", then ".join(sites(call)[-1] for call in calls) for calls in (row.usual, row.odd)
        ]
        for rank, path in zip(range(3), (paths[0], paths[0], paths[1]), strict=True):
            assert f"\n  rank {rank}: {path}\n" in odd.text
    assert [each.usable for each in found] == [True if row.in_step else None] * len(found)


def _table(text: str) -> list[str]:
    """Return the lines of the table in an error, its columns with bars between them."""
    lines = [line.strip() for line in text.splitlines() if re.match(r"  ranks? [\d, -]+  ", line)]
    return [" | ".join(re.split(r"  +", line)) for line in lines]


def checked_run(row: Row, backend: str) -> list[Found]:
    """Run one row in checked mode."""
    try:
        column = checkeds_column([row])
        results = run_ranks(column, 3, backend, 20, comm_timeout_s=TIMEOUT_S)
    except RanksFailed as failed:
        assert row.ends_rank, failed
        by_rank: Mapping[int, BaseException | None] = {f.rank: f.error for f in failed.failures}
        return [Found(type(e).__name__, str(e)) for _, e in sorted(by_rank.items())]
    return [result[row.name] for result in results]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_checked_mode_names_the_odd_rank_and_its_line_on_threads(row: Row) -> None:
    assert_as_the_table_says(row, checked_run(row, "threads"))


NOT_ON_STORE = {
    # Lines of code are not compared across hosts, where one round trip has to be enough.
    "swapped order, same shapes",
    # The store compares digests of the calls, and takes a second a row: one of a kind is enough.
    *("shape of the same size", "dtype, float32 and int32", "dtype, bfloat16 and float16"),
    "swapped order, other shapes",
}


@pytest.mark.parametrize("board", ["shared memory", "store"])
def test_checked_mode_names_the_odd_rank_and_its_line_between_processes(board: str) -> None:
    rows = [row for row in ROWS if not row.ends_rank]
    if board == "store":
        rows = [row for row in rows if row.name not in NOT_ON_STORE]
    column = checkeds_column(rows)
    fn = on_store(column) if board == "store" else column
    limit_s = None if board == "store" else TIMEOUT_S
    found = run_ranks(fn, 3, "gloo", 40, comm_timeout_s=limit_s, check=board != "store")
    assert {row.name for row in ROWS} >= NOT_ON_STORE
    for row in rows:
        assert_as_the_table_says(row, [each[row.name] for each in found])


def test_checked_mode_tells_the_others_of_a_process_that_raised() -> None:
    (row,) = (row for row in ROWS if row.ends_rank)
    assert_as_the_table_says(row, checked_run(row, "gloo"))
