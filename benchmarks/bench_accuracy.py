"""Does `bench-comm` say what a bare loop says? Both in the same processes, in turn.

    python -m benchmarks.bench_accuracy [--quick]

The bare loop is what anybody would write: a barrier, perf_counter, `dist.all_reduce`,
perf_counter; the slowest rank counts. Goal: p50 within 5 % from 64 KiB up (median over sizes).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.distributed as dist

from distrun import comm
from distrun.bench.measure import measure
from distrun.bench.operations import OPERATIONS, Wanted
from distrun.testing.ranks import run_ranks

SIZES = {"64 KiB": 2**16, "256 KiB": 2**18, "1 MiB": 2**20, "4 MiB": 2**22, "16 MiB": 2**24}
ITERATIONS = 10


def bare_p50_s(nbytes: int, control: dist.ProcessGroup) -> float:
    x = torch.zeros(nbytes // 4)
    for _ in range(2):
        dist.all_reduce(x)
    taken = []
    for _ in range(ITERATIONS):
        dist.barrier(control)
        began = time.perf_counter()
        dist.all_reduce(x)
        taken.append(time.perf_counter() - began)
    slowest = torch.tensor(taken)
    dist.all_reduce(slowest, dist.ReduceOp.MAX, group=control)
    times: list[float] = slowest.tolist()
    return statistics.median(times)


def compared(world: comm.World, pairs: int) -> dict[str, list[tuple[float, float]]]:
    """Return p50 of bench-comm and of the bare loop, for each size, `pairs` times in turn."""
    group = dist.new_group(backend="gloo")
    control = comm.attach(group, check=False)
    found: dict[str, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for _ in range(pairs):
        for size, nbytes in SIZES.items():
            wanted = Wanted(nbytes, torch.float32, "sum", 0, in_place=True)
            operation = OPERATIONS["all_reduce"](world, wanted)
            ours = measure(operation, control, "latency", ITERATIONS, warmup=2).seconds
            found[size].append((statistics.median(ours), bare_p50_s(nbytes, group)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    pairs = 10 if parser.parse_args().quick else 40
    results = run_ranks(
        lambda world: compared(world, pairs), 2, "gloo", timeout_s=600, check=False
    )[0]
    medians = []
    for size, found in results.items():
        ratios = sorted(ours / bare for ours, bare in found)
        middle = statistics.median(o for o, _ in found) / statistics.median(b for _, b in found)
        medians.append(abs(middle - 1))
        low, high = ratios[len(ratios) // 4], ratios[-len(ratios) // 4]
        bare_us = 1e6 * statistics.median(b for _, b in found)
        spread = f"quartiles {low:.3f} … {high:.3f}"
        print(f"{size:>8}: bare {bare_us:8.1f} µs, p50 x {middle:.3f} ({spread})")
    print(f"median over sizes of |difference|: {100 * statistics.median(medians):.1f} % (goal 5 %)")


if __name__ == "__main__":
    main()
