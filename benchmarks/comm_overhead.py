"""What distrun adds to a collective: `world.all_reduce` against `torch.distributed.all_reduce`.

    python -m benchmarks.comm_overhead [--quick]

Both sides run in turn in the same processes (gloo, one host), in blocks with a barrier before
each; a block counts as long as its slowest rank takes. Tensors are zeros: sums stay finite.
With one rank, none waits for another: the difference is what distrun itself costs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, repeat
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined] # public all the same

from distrun import comm
from distrun.comm.checked.checker import BoardChecker
from distrun.comm.checked.make import make_board
from distrun.comm.checked.watch import Watch
from distrun.testing.ranks import run_ranks

BLOCK_S = 0.001  # short: the scheduler's moods last longer, and so befall both blocks of a pair
FLOATS = {"4 B": 1, "1 KiB": 256, "64 KiB": 2**14, "1 MiB": 2**18, "16 MiB": 2**22, "64 MiB": 2**24}

Call = Callable[[], object]
Pairs = list[tuple[float, float]]  # seconds a call in each pair of blocks: ours, theirs
Goal = tuple[float, str]  # at most: × of their time, µs more than theirs, or ms


class Case(NamedTuple):
    title: str
    ours: Call
    theirs: Call
    goal: Goal | None = None


Cases = Callable[[comm.World], Iterator[Case]]


def block_s(call: Call, calls: int) -> float:
    dist.barrier()
    began = time.perf_counter()
    for _ in repeat(None, calls):
        call()
    return time.perf_counter() - began


def calls_in_block(call: Call) -> int:
    """Return how many calls last as long as a block; the same on all ranks."""
    block_s(call, 1)  # the first one makes connections and memory
    calls = 1
    while True:
        slowest = torch.tensor(block_s(call, calls))
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
        if (seconds := slowest.item()) > BLOCK_S / 2:
            return max(1, round(BLOCK_S * calls / seconds))
        calls *= 4


def in_turn(case: Case, case_s: float) -> Pairs:
    """Time blocks of both sides in turn, until rank 0's time is up."""
    # as many calls on both sides: the first after a barrier may differ from the others
    calls = min(calls_in_block(case.ours), calls_in_block(case.theirs))
    end = time.perf_counter() + case_s
    pairs: Pairs = []
    while True:
        goes_on = torch.tensor(len(pairs) < 3 or time.perf_counter() < end)
        dist.broadcast(goes_on, 0)
        if not goes_on:
            return pairs
        sides = (case.ours, case.theirs) if len(pairs) % 2 else (case.theirs, case.ours)
        taken_s = {side: block_s(side, calls) / calls for side in sides}
        pairs.append((taken_s[case.ours], taken_s[case.theirs]))


def timed(cases: Cases, case_s: float, world: comm.World) -> list[tuple[str, Goal | None, Pairs]]:
    return [(case.title, case.goal, in_turn(case, case_s)) for case in cases(world)]


def plain_cases(world: comm.World) -> Iterator[Case]:
    for size, floats in FLOATS.items():
        x = torch.zeros(floats)
        goal = (1.02, "×") if floats >= FLOATS["64 KiB"] else (10, "µs")
        in_place, theirs = partial(world.all_reduce, x, out=x), partial(dist.all_reduce, x)
        yield Case(f"{size}, in place", in_place, theirs, goal)
        new, theirs_new = partial(world.all_reduce, x), partial(reduced_clone, x)
        yield Case(f"{size}, new tensor", new, theirs_new, goal)


def reduced_clone(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    dist.all_reduce(y)
    return y


def tree_cases(world: comm.World) -> Iterator[Case]:
    tree = {str(i): torch.zeros(64) for i in range(200)}

    def one_by_one() -> None:
        for x in tree.values():
            dist.all_reduce(x)

    yield Case("200 x 64 floats", partial(world.all_reduce, tree), one_by_one, (0.2, "×"))


def checked_cases(world: comm.World) -> Iterator[Case]:
    with comm.attach(world.group, check=True) as checked:
        for size, goal in (("1 MiB", (1.25, "×")), ("4 B", None)):
            x = torch.zeros(FLOATS[size])
            ours, plain = (partial(w.all_reduce, x, out=x) for w in (checked, world))
            yield Case(f"{size}, checked in memory", ours, plain, goal)


def store_cases(world: comm.World) -> Iterator[Case]:
    """Check through a store, as across hosts: against the least that makes ranks meet there."""
    kept = TCPStore("127.0.0.1", 0, is_master=True) if world.rank == 0 else None
    port = world.broadcast_object(kept.port if kept else 0)
    store = kept or TCPStore("127.0.0.1", port)
    board, numbers = make_board(world, store, share_memory=False), count()
    checker = BoardChecker(board, world.name, 60.0, Watch())

    def meet() -> None:
        number = next(numbers)
        store.set(f"{number}/{world.rank}", "")
        store.wait([f"{number}/{rank}" for rank in range(world.world_size)])

    check = partial(checker.check, "all_reduce", (torch.zeros(1),), {"op": "sum"})
    yield Case("check at the store / bare round trip", check, partial(store.check, ["none"]))
    yield Case("check at the store / bare set and wait", check, meet)
    checker.leave("it is done", dead=False)
    dist.barrier()  # the store is rank 0's


def spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{q:.{digits}f}" for q in statistics.quantiles(values, n=4))
    return f"{middle} ({low} … {high})"


def compare(cases: Cases, n: int, case_s: float) -> list[str]:
    """Run cases on n ranks and print a line of each; return their lines of the last table."""
    run, verdicts = partial(timed, cases, case_s), []
    ranks = run_ranks(run, n, backend="gloo", check=False, timeout_s=300.0)
    for same in zip(*ranks, strict=True):
        title, goal = f"n={n}: {same[0][0]}", same[0][1]
        blocks = zip(*(pairs for _, _, pairs in same), strict=True)
        slowest = [tuple(map(max, zip(*block, strict=True))) for block in blocks]
        ours, theirs = (statistics.median(side) * 1e6 for side in zip(*slowest, strict=True))
        ratios, more_us = [a / b for a, b in slowest], [(a - b) * 1e6 for a, b in slowest]
        print(f"{title:40} {ours:9.1f} / {theirs:9.1f} µs   ratio {spread(ratios, 3):23}", end="")
        print(f"   {spread(more_us, 1):26} µs more   {len(slowest)} pairs", flush=True)
        if goal is not None:
            verdicts.append(verdict(title, ratios if goal[1] == "×" else more_us, goal))
    return verdicts


def verdict(title: str, values: Sequence[float], goal: Goal) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    error = 1.57 * (high - low) / len(values) ** 0.5  # of the median, at some 95 %
    met = "yes" if median <= goal[0] else "NO"
    met += "" if abs(median - goal[0]) > error else ", within the noise"
    return f"{title:40} {median:8.3f} ±{error:7.3f} {goal[1]:2}   {goal[0]:5.2f}   {met}"


def run_ranks_ms(backend: str, n: int, runs: int) -> list[float]:
    """Print how long `run_ranks` takes from start to end, and return that of each run."""
    taken_ms = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        run_ranks(lambda world: world.all_reduce(torch.ones(1)).item(), n, backend=backend)
        taken_ms.append((time.perf_counter() - began) * 1e3)
    first_ms, *later_ms = taken_ms
    title = f"run_ranks, {backend}, n={n}"
    print(f"{title:40} {spread(later_ms, 1)} ms, {runs} runs; a first one {first_ms:.1f} ms")
    return later_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    case_s, runs = (0.05, 8) if parser.parse_args().quick else (1.8, 20)
    verdicts = [verdict("run_ranks, threads, n=8", run_ranks_ms("threads", 8, runs), (50, "ms"))]
    for n in (2, 4):
        run_ranks_ms("gloo", n, runs // 4)
    print("\non n ranks: ours / theirs a call, medians; of the pairs, medians (quartiles)")
    compare(plain_cases, 1, case_s / 4)  # no goals: nothing is sent
    for cases in (plain_cases, tree_cases, checked_cases, store_cases):
        verdicts += [line for n in (2, 4) for line in compare(cases, n, case_s)]
    print(f"\n{'':40} measured              goal    met", *verdicts, sep="\n")


if __name__ == "__main__":
    main()
