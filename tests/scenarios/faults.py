"""A worker that fails on purpose: `faults.py KIND [--rank R]`; the other ranks wait.

With `--gloo` all ranks are in a collective when it happens, as in training.
"""

import argparse
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

RANK = int(os.environ["RANK"])
ATTEMPT = int(os.environ["TORCHELASTIC_RESTART_COUNT"])


def raise_error() -> None:
    raise ValueError("boom of the first rank")


def raise_without_str() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    raise Broken


def exit_3() -> None:
    sys.exit(3)


def exit_with_text() -> None:
    sys.exit("the data is not there")


def hard_exit_7() -> None:
    os._exit(7)


def sigkill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def out_of_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
    bytearray(1 << 33)


def exit_0_early() -> None:
    sys.exit(0)


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait()


def children() -> None:
    """Leave grandchildren of every sort behind, then fail."""
    start_children()
    raise_error()


def children_and_wait() -> None:
    start_children()
    wait()


def log_and_exit() -> None:
    """Catch the exception, log it, and leave: the pattern of many frameworks."""
    import logging

    try:
        raise_error()
    except ValueError:
        logging.exception("training failed")
        print("after the traceback")
        sys.exit(1)


def raise_and_say_goodbye() -> None:
    import atexit

    atexit.register(print, "goodbye, after the traceback")
    raise_error()


def garbage_reports() -> None:
    """Write into the pipe on which ranks report what no rank would."""
    fd = int(os.environ["DISTRUN_REPORT"].partition(":")[0])
    for line in (
        b"5",
        b"[1]",
        b"{",
        b'{"report": "x"}',
        b'{"report": "metrics"}',
        b'{"report": ["error"]}',
        b'{"report": "error", "monotonic": "x"}',
        b"[" * 4000,
        b"\xff\x00",
    ):
        os.write(fd, line + b"\n")
    os.write(fd, b"x" * 3_000_000 + b"\n")


def hostile_metrics() -> None:
    from distrun.train import metrics

    metrics.log(1, nbytes=3.0, event=1.0, report=2.0, name=1.0, rank=7.0, time=1.0)


def fail_then_linger() -> None:
    if RANK == 0:
        raise_error()
    ignore_sigterm()


def semaphores() -> None:
    """Hold what multiprocessing's resource tracker has to remove from /dev/shm."""
    from multiprocessing import get_context
    from multiprocessing.shared_memory import SharedMemory

    context = get_context("spawn")
    memory, queue = SharedMemory(create=True, size=4096), context.Queue()
    context.Process(target=time.sleep, args=(3600,)).start()
    Path(f"memory{RANK}").write_text(memory.name)
    assert queue
    wait()


def children_and_exit_0() -> None:
    start_children()


def start_children() -> None:
    sleeper = [sys.executable, "-c", "import signal; signal.pause()"]
    subprocess.Popen(sleeper)
    subprocess.Popen(sleeper, start_new_session=True)
    if os.fork() == 0:  # a daemon: its parent is gone at once
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execv(sleeper[0], sleeper)
        os._exit(0)
    os.wait()
    Path(f"children{RANK}").touch()


def save_on_sigterm() -> None:
    def save(*_: object) -> None:
        Path(f"saved{RANK}").touch()
        sys.exit(0)

    signal.signal(signal.SIGTERM, save)
    signal.signal(signal.SIGHUP, save)
    wait()


def count_usr() -> None:
    if RANK == 0:
        for signum in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(signum, lambda number, _: Path(signal.Signals(number).name).touch())
    wait()


def same_error() -> None:
    raise KeyError("everywhere")


def crash_until_attempt() -> None:
    """Fail in every attempt but the last, each time at its own message."""
    if int(os.environ["TORCHELASTIC_MAX_RESTARTS"]) > ATTEMPT:
        raise RuntimeError(f"attempt {ATTEMPT}")


def die_in_order() -> None:
    """Rank 2 first, rank 0 20 ms after its death: both without a word to anybody."""
    first = Path("first")
    if RANK == 2:
        first.with_suffix(".draft").write_text(str(os.getpid()))
        first.with_suffix(".draft").rename(first)
        time.sleep(0.1)
        os._exit(5)
    while not first.exists():
        time.sleep(0.001)
    while is_alive(int(first.read_text())):
        time.sleep(0.001)
    time.sleep(0.02)
    os._exit(6)


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def wait() -> None:
    """Be a healthy rank that would run for ever."""
    Path(f"waiting{RANK}").touch()
    while True:
        signal.pause()


def collectives(steps: int = 1 << 40) -> None:
    import torch
    import torch.distributed as dist

    x = torch.ones(8)
    for _ in range(steps):
        dist.all_reduce(x)
        time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("--rank", default="1")
    parser.add_argument("--gloo", action="store_true")
    args = parser.parse_args()
    mine = args.rank == "all" or str(RANK) in args.rank.split(",")
    if args.gloo:
        import torch.distributed as dist

        dist.init_process_group("gloo")
        collectives(3)
        if mine:
            globals()[args.kind]()
        if (
            args.kind == "crash_until_attempt"
            and int(os.environ["TORCHELASTIC_MAX_RESTARTS"]) == ATTEMPT
        ):
            collectives(3)
            dist.destroy_process_group()
            print("came through")
            return
        collectives()
    if mine:
        globals()[args.kind]()
    elif args.kind != "children_and_exit_0":
        wait()


if __name__ == "__main__":
    main()
