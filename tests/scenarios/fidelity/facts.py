"""Everything an interpreter lets a script see of how it was started, a fact a line."""
# ruff: noqa: E402 - the globals are looked at before the imports add to them

import sys

AT_START = sorted(globals())

import atexit
import gc
import locale
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import threading
import time
import warnings
from pathlib import Path

import torch


def fact(name: str, value: object) -> None:
    print(f"{name}: {value}")


def status(key: str) -> str:
    return Path("/proc/self/status").read_text().partition(f"\n{key}:")[2].split()[0]


main = sys.modules["__main__"]
fact("globals at the start", AT_START)
fact("__name__", __name__)
fact("__file__", __file__)
fact("__spec__", __spec__)
fact("__package__", __package__)
fact("__cached__", globals().get("__cached__", "absent"))
fact("__doc__", __doc__)
fact("__annotations__", globals().get("__annotations__", "absent"))
fact("__builtins__", __builtins__)
fact("__loader__", (type(__loader__), __loader__.name, __loader__.path))
fact("__main__", (main, vars(main) is globals(), sys.modules.get("__mp_main__")))
fact("code", sys._getframe().f_code.co_filename)

for name in ("argv", "orig_argv", "path", "flags", "warnoptions", "executable", "prefix"):
    fact(f"sys.{name}", getattr(sys, name))
fact("sys.meta_path", sys.meta_path)
fact("sys.path_hooks", sys.path_hooks)
fact("hooks are python's own", (sys.excepthook is sys.__excepthook__, sys.displayhook))
fact("threading.excepthook", threading.excepthook is threading.__excepthook__)
fact("sys.dont_write_bytecode", sys.dont_write_bytecode)
fact("tracing", (sys.gettrace(), sys.getprofile(), sys.getswitchinterval()))
fact("recursion limit", sys.getrecursionlimit())
fact("interactive", (hasattr(sys, "ps1"), hasattr(sys, "last_value")))
for name in ("stdin", "stdout", "stderr"):
    stream = getattr(sys, name)
    fact(name, (stream.name, stream.mode, stream.encoding, stream.errors, stream.newlines))
    fact(name, (stream.fileno(), stream.line_buffering, stream.write_through, stream.buffer))
    fact(name, (stream is getattr(sys, f"__{name}__"), stream.isatty(), os.get_inheritable(0)))
fact("locale", (locale.getlocale(), sys.getfilesystemencoding(), sys.getdefaultencoding()))

fact("cwd", (str(Path.cwd()), os.environ.get("PWD")))
fact("leads its process group", os.getpgid(0) == os.getsid(0))
fact("umask", oct(os.umask(0o022)))
fact("nice", os.nice(0))
fact("affinity", sorted(os.sched_getaffinity(0)))
for limit in sorted(name for name in dir(resource) if name.startswith("RLIMIT_")):
    fact(limit, resource.getrlimit(getattr(resource, limit)))
for number in sorted(signal.valid_signals()):
    fact(f"signal {number}", signal.getsignal(number))
fact("signals blocked", signal.pthread_sigmask(signal.SIG_BLOCK, ()))
fact("signals ignored by the kernel", status("SigIgn"))
fact("wakeup descriptor", signal.set_wakeup_fd(-1))
fact("timers", (signal.getitimer(signal.ITIMER_REAL), signal.alarm(0)))
fact("own descriptors closed by exec", [os.get_inheritable(fd) for fd in (0, 1, 2)])
inherited = "import os; print(sorted(os.listdir('/proc/self/fd'), key=int)[:-1])"
listing = subprocess.run(
    [sys.executable, "-c", inherited], close_fds=False, capture_output=True, text=True
)
fact("descriptors of a child", listing.stdout.strip())
try:
    fact("children", os.waitpid(-1, os.WNOHANG))
except ChildProcessError as error:
    fact("children", error)

fact("threads", [(t.name, t.daemon, t.is_alive()) for t in threading.enumerate()])
fact("main thread", threading.current_thread() is threading.main_thread())
fact("it is thread", threading.get_native_id() == os.getpid())
fact("parent process", multiprocessing.parent_process())
fact("process", (multiprocessing.current_process().name, multiprocessing.active_children()))
fact("process id", multiprocessing.current_process().pid == os.getpid())
fact("start method", multiprocessing.get_start_method(allow_none=True))
fact("gc", (gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks))
fact("cpu time is its own", time.process_time() < 60)
fact("atexit callbacks", atexit._ncallbacks())
fact("warning filters", "".join(f"\n  {entry}" for entry in warnings.filters))
fact("logging", (logging.root.handlers, logging.root.level, logging.lastResort))
for name, logger in sorted(logging.root.manager.loggerDict.items()):
    if isinstance(logger, logging.Logger) and (logger.handlers or logger.level):
        fact(f"logger {name}", (logger.handlers, logger.level))

fact("torch threads", torch.get_num_threads())
fact("torch interop threads", torch.get_num_interop_threads())
fact("torch grad", (torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
fact("torch defaults", (torch.get_default_dtype(), torch.get_default_device()))
fact("torch deterministic", torch.are_deterministic_algorithms_enabled())
fact("torch sharing", torch.multiprocessing.get_sharing_strategy())
fact("torch cuda", torch.cuda.is_initialized())
fact("torch in a bad fork", torch.cuda._is_in_bad_fork())
fact("torch process group", torch.distributed.is_initialized())
for name in sorted(os.environ):
    print(f"environment {name}={os.environ[name]}")
