"""The standard library's own process pools, by every start method."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

NAME = __name__


class Number:
    def __init__(self, value: int) -> None:
        self.value = value


def square(number: Number) -> tuple[object, ...]:
    parent = multiprocessing.parent_process()
    return (
        number.value**2,
        NAME,
        type(number).__module__,
        square.__module__,
        sys.argv[-1],
        parent is not None and parent.pid != os.getpid(),
    )


def fail(_: int) -> None:
    raise ValueError("in a pool")


def report(queue: "multiprocessing.Queue[str]", path: str) -> None:
    queue.put(f"{multiprocessing.current_process().name} {sys.path[0] == path}")
    Path(f"{multiprocessing.current_process().name}.txt").write_text("was here\n")


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            print(method, pool.map(square, [Number(2), Number(3)]))
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            print(method, executor.submit(square, Number(4)).result())
            print(method, repr(executor.submit(fail, 0).exception()))
        queue = context.Queue()
        process = context.Process(target=report, args=(queue, sys.path[0]), name=f"{method}-1")
        process.start()
        print(method, queue.get())
        process.join()
        print(method, process.exitcode)
        process = context.Process(target=sys.exit, args=(3,))
        process.start()
        process.join()
        print(method, process.exitcode)
