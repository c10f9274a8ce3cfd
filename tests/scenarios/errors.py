"""What people run into, for real: `errors.py [NAME …]` prints each error as JSON, or all.

Each function raises by itself what torch or Python says of a mistake.
"""

import contextlib
import errno
import inspect
import io
import json
import multiprocessing
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import tensor_errors
import torch
import torch.distributed as dist
from tensor_errors import Two
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader


@contextlib.contextmanager
def gloo():
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/f", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def module_missing():
    import no_such_module_42  # noqa: F401 - it is not there


def module_of_another_name():
    import cv2  # noqa: F401 - it is not there


def hidden_package():
    import errors_beside.part  # noqa: F401 - a file is no package


def partially_initialized():
    import errors_circle  # noqa: F401 - imports itself


def nccl_missing():
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("nccl", init_method=f"file://{folder}/f", rank=0, world_size=1)


def mpi_missing():
    dist.init_process_group("mpi")


def not_initialised():
    dist.all_reduce(torch.ones(1))


def initialised_twice():
    with gloo():
        dist.init_process_group("gloo", init_method="file:///tmp/x", rank=0, world_size=1)


def port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as server:
        dist.TCPStore("127.0.0.1", server.getsockname()[1], 1, is_master=True)


def port_in_use_by_socket():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_server(server.getsockname())


def ranks_missing():
    from datetime import timedelta

    dist.TCPStore("127.0.0.1", 0, 2, is_master=True, timeout=timedelta(seconds=1))


def unknown_interface():
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GLOO_SOCKET_IFNAME"] = "nosuch0"
        try:
            dist.init_process_group("gloo", init_method=f"file://{folder}/f", rank=0, world_size=1)
        finally:
            del os.environ["GLOO_SOCKET_IFNAME"]


def unused_parameters():
    with gloo():
        model = DistributedDataParallel(Two())
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()


def nothing_to_train():
    with gloo():
        DistributedDataParallel(nn.Linear(1, 1).requires_grad_(False))


def attribute_of_the_wrapped():
    with gloo():
        model = DistributedDataParallel(Two())
        print(model.generate)


def sampler_and_shuffle():
    DataLoader([1], sampler=[0], shuffle=True)


def cuda_missing():
    torch.ones(1).cuda()


class Dies:
    def __len__(self):
        return 4

    def __getitem__(self, _):
        os.kill(os.getpid(), 9)


def worker_killed():
    list(DataLoader(Dies(), num_workers=1))


def pool_broken():
    with ProcessPoolExecutor(1) as pool:
        pool.submit(os._exit, 3).result()


def lambda_to_a_worker():
    pickle.dumps(lambda: None)


def local_to_a_worker():
    class Local:
        pass

    pickle.dumps(Local())


def lock_to_a_worker():
    import threading

    pickle.dumps(threading.Lock())


def no_main_guard():
    from multiprocessing import process, spawn

    process.current_process()._inheriting = True
    try:
        spawn.get_preparation_data("x")
    finally:
        del process.current_process()._inheriting


def child_of_a_daemon():
    process = multiprocessing.current_process()
    process._config["daemon"] = True
    try:
        multiprocessing.get_context("fork").Process(target=print).start()
    finally:
        process._config["daemon"] = False


def too_many_files():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, before[1]))
    files = []
    try:
        while True:
            files.append(open("/dev/null"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def breakpoint_without_terminal():
    import pdb

    sys.stdin = io.StringIO("")
    debugger = pdb.Pdb(nosigint=True)
    debugger.set_trace()
    print("here")


def input_without_terminal():
    sys.stdin = open("/dev/null")
    input()


def host_memory():
    torch.empty(1 << 60, dtype=torch.uint8)


def memory_error():
    bytearray(1 << 62)


def disk_full():
    with open("/dev/full", "w") as file:
        file.write("x")


def read_only():
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/mnt/data/x")


def permission():
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/mnt/data/x")


def relative_file():
    open("data/train.bin")


def ascii_locale():
    "é".encode().decode("ascii")


def local_rank_argument():
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--local-rank", type=int, required=True)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        parser.parse_args([])
    raise SystemExit(said.getvalue())


def error_of(function: Callable[[], object]) -> str:
    """Return `Type: message`, as a rank reports it."""
    stdin = sys.stdin
    try:
        function()
    except SystemExit as error:
        return str(error)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        sys.stdin = stdin
    return "no error"


ERRORS = {
    name: function
    for module in (sys.modules[__name__], tensor_errors)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and name not in ("gloo", "error_of")
}

if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp())
    sys.path.insert(0, str(Path.cwd()))
    Path("errors_beside.py").touch()
    Path("errors_circle.py").write_text("import errors_circle\nerrors_circle.x\n")
    answers = {name: error_of(ERRORS[name]) for name in sys.argv[1:] or ERRORS}
    sys.stdout.flush()
    print("\n" + json.dumps(answers))
