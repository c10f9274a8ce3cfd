"""What a rank can be in when it calls no collective; each of these never comes back by itself."""

import asyncio
import atexit
import ctypes
import fcntl
import importlib
import multiprocessing
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

LONG_S = 900
"""What a test that was killed leaves behind ends by itself."""


def sleep():
    time.sleep(LONG_S)  # HERE


def spin():
    while True:  # HERE
        pass  # HERE


def spin_on_a_file():
    while not os.path.exists("never"):  # noqa: PTH110 HERE
        pass  # HERE


def poll_slowly():
    while not Path("never").exists():  # HERE
        time.sleep(0.2)  # HERE


def read_in_c():
    pipe, _ = os.pipe()
    ctypes.CDLL(None).read(pipe, ctypes.create_string_buffer(1), 1)  # HERE


def read_in_c_with_the_gil():
    pipe, _ = os.pipe()
    ctypes.PyDLL(None).read(pipe, ctypes.create_string_buffer(1), 1)  # HERE


def lock_twice():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()  # HERE


def wait_for_an_event():
    threading.Event().wait()  # HERE


def wait_for_a_queue():
    queue.Queue().get()  # HERE


def wait_for_a_thread_that_raised():
    results = queue.Queue()

    def fetch():
        raise OSError("the shard is not there")

    threading.Thread(target=fetch).start()
    results.get()  # HERE


def wait_for_a_future():
    ours, theirs = socket.socketpair()
    assert theirs
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ours.recv, 1).result()  # HERE


class Slow(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        time.sleep(LONG_S)  # HERE


class Stopped(Slow):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGSTOP)


def loader_worker_sleeps():
    for _ in DataLoader(Slow(), num_workers=1):  # HERE
        pass


def loader_worker_is_stopped():
    for _ in DataLoader(Stopped(), num_workers=1):  # HERE
        pass


def loader_without_workers():
    for _ in DataLoader(Slow()):
        pass


def rows():
    pipe, _ = os.pipe()
    while row := os.read(pipe, 1):  # HERE
        yield row


def iterator_blocks():
    list(rows())


def wait_for_a_command():
    subprocess.run(["sleep", str(LONG_S)])  # HERE


def wait_for_a_pid():
    pid = subprocess.Popen(["sleep", str(LONG_S)]).pid
    os.waitpid(pid, 0)  # HERE


def wait_for_a_process():
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(LONG_S,))
    process.start()
    process.join()  # HERE


def read_a_fifo():
    os.mkfifo("fifo")
    open("fifo").read()  # HERE


def save_into_a_fifo():
    os.mkfifo("fifo")
    torch.save({"step": torch.ones(4)}, "fifo")  # HERE


def read_a_socket():
    ours, theirs = socket.socketpair()
    assert theirs
    ours.recv(1)  # HERE


def download():
    server = socket.create_server(("127.0.0.1", 0))
    urllib.request.urlopen(f"http://127.0.0.1:{server.getsockname()[1]}/weights.pt")  # HERE


def select_nothing():
    select.select([], [], [])  # HERE


def lock_a_file():
    descriptors = [os.open("lock", os.O_RDWR | os.O_CREAT) for _ in range(2)]
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # HERE


def run_asyncio():
    asyncio.run(asyncio.Event().wait())  # HERE


def import_blocks():
    importlib.import_module("never_imported")


def stop_oneself():
    os.kill(os.getpid(), signal.SIGSTOP)  # HERE


class Handle:
    def __del__(self):
        time.sleep(LONG_S)  # HERE


def destructor_sleeps():
    handle = Handle()
    del handle


def say_goodbye():
    time.sleep(LONG_S)  # HERE


def atexit_sleeps():
    atexit.register(say_goodbye)


def leave_with_0():
    sys.exit(0)


def leave_at_once_with_0():
    os._exit(0)


def leave_a_child():
    """The child has the sockets of the rank: nobody sees that they are closed."""
    if os.fork() == 0:
        time.sleep(LONG_S)
    os._exit(0)
