"""What can go wrong in a rank; worker.py calls one of these in the middle of training."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist

RANK = int(os.environ["RANK"])
MIB = 1 << 20


# --- it ends ---------------------------------------------------------------------------


def exit_3():
    sys.exit(3)


def exit_with_text():
    sys.exit("the data is not there")


def exit_0():
    sys.exit(0)


def hard_exit_7():
    os._exit(7)


def raise_error():
    raise ValueError("no such sample: 7")


def import_what_is_not_there():
    import a_module_that_nobody_has  # noqa: F401


def raise_in_a_loader_worker():
    next(iter(torch.utils.data.DataLoader(Broken(), num_workers=1)))


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError("no such sample: 7")


def raise_with_a_thread_that_stays():
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise_error()


def two_within_20_ms():
    """Rank 3 first, and rank 0 some 15 ms later, both without a word to anybody."""
    if RANK == 3:
        Path("first").touch()
        os._exit(5)
    while not Path("first").exists():
        time.sleep(0.001)
    time.sleep(0.015)
    os._exit(6)


def kill_oneself():
    os.kill(os.getpid(), signal.SIGKILL)


def terminate_oneself():
    os.kill(os.getpid(), signal.SIGTERM)


def segfault():
    ctypes.string_at(0)


def abort():
    os.abort()


def bus_error():
    os.kill(os.getpid(), signal.SIGBUS)


def allocate_too_much():
    soft = 4096 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    bytearray(2 * soft)


def allocate_in_a_cgroup():
    """Use more memory than the cgroup has that the test has made; the kernel kills the rank."""
    Path(os.environ["FAULT_CGROUP"], "cgroup.procs").write_text(str(os.getpid()))
    held = []
    while True:
        held.append(b"x" * (16 * MIB))


# --- it waits, or makes others wait -----------------------------------------------------


def sleep():
    time.sleep(3600)


def spin():
    while True:
        pass


def lock_twice():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def read_in_c_with_the_gil():
    reading, _ = os.pipe()
    ctypes.PyDLL(None).read(reading, ctypes.create_string_buffer(1), 1)


def stop_oneself():
    os.kill(os.getpid(), signal.SIGSTOP)


def other_collective():
    x = torch.ones(8)
    dist.all_gather([torch.empty_like(x) for _ in range(dist.get_world_size())], x)


def other_shape():
    dist.all_reduce(torch.ones(4000), dist.ReduceOp.MAX)


def smaller_shape():
    dist.all_reduce(torch.ones(40), dist.ReduceOp.MAX)


def other_dtype():
    dist.all_reduce(torch.ones(676, dtype=torch.float64))


# --- it leaves something, or prints ------------------------------------------------------


def ignore_signals():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start_children():
    """A child, one with a session of its own, and a daemon that ignores SIGTERM."""
    sleeper = [sys.executable, "-c", "import signal; signal.pause()"]
    subprocess.Popen(sleeper)
    subprocess.Popen(sleeper, start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execv(sleeper[0], sleeper)
        os._exit(0)
    os.wait()


def start_children_and_raise():
    start_children()
    raise_error()


def handle_usr():
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, lambda number, _: print(f"rank {RANK} got {number}", flush=True))


def print_100_mb():
    line = "x" * 99 + "\n"
    for _ in range(1000):
        sys.stdout.write(line * 1000)
    sys.stdout.flush()


def print_4_mb():
    sys.stdout.write(("x" * 99 + "\n") * 40_000)
    sys.stdout.flush()


def print_invalid_utf_8():
    sys.stdout.flush()
    os.write(1, b"\xff\xfe half a letter: \xc3\n" * 100)
