"""What a script may do while it runs, one after the other, all of it printed in order."""

import asyncio
import ctypes
import inspect
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import typing
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import sibling


@dataclass
class Settings:
    rate: float = 0.5
    next: "Settings | None" = None


class Unlucky:
    def __del__(self) -> None:
        raise RuntimeError("in __del__")


def recurse(depth: int) -> int:
    return recurse(depth + 1) + 1


def fail() -> None:
    raise LookupError("in a function")


print("text on stdout")
print("text on stderr", file=sys.stderr)
print("no newline, ", end="")
sys.stderr.write("nor here, ")
os.write(1, b"bytes on 1\n")
os.write(2, b"bytes on 2\n")
libc = ctypes.CDLL(None)
libc.puts(b"from C")
libc.fflush(None)
print("snowman \N{SNOWMAN}, surrogate", ascii("\udc80"))
sys.stdout.buffer.write(b"\xff\xfe raw\n")
subprocess.run(["sh", "-c", "echo child on 1; echo child on 2 >&2; exit 4"])
print("system", os.waitstatus_to_exitcode(os.system("echo shell; exit 5")))
print("no stdin", subprocess.run(["cat"], capture_output=True).stdout)

print(sibling.__name__, sibling.__file__, Path("data/numbers.txt").read_text())
copy = pickle.loads(pickle.dumps(Settings(rate=0.25)))
print(copy, type(copy) is Settings, Settings.__module__, pickle.dumps(Settings))
print(typing.get_type_hints(Settings), [f.type for f in fields(Settings)])
print(inspect.getsource(recurse), inspect.getsourcefile(recurse), inspect.getmodule(recurse))
print(inspect.getfile(Settings), inspect.getsource(Settings))

warnings.warn("of __main__", DeprecationWarning, stacklevel=1)
warnings.warn("not shown", PendingDeprecationWarning, stacklevel=2)
sibling.warn("of a sibling's caller")
sibling.warn_itself("a sibling's own deprecation is not shown")
thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
unlucky = Unlucky()
del unlucky
try:
    recurse(0)
except RecursionError as error:
    print(error, "too deep" if len(traceback.extract_tb(error.__traceback__)) > 900 else "early")
try:
    fail()
except LookupError:
    traceback.print_exc()
    print(traceback.format_exc())

signal.signal(signal.SIGTERM, lambda number, frame: print("handler", number, frame.f_code.co_name))
os.kill(os.getpid(), signal.SIGTERM)
child = os.fork()
if child == 0:
    print("forked child")
    os._exit(3)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


async def conversation() -> None:
    process = await asyncio.create_subprocess_exec("sh", "-c", "echo asynchronous; exit 6")
    print("awaited", await process.wait())


asyncio.run(conversation())
with tempfile.TemporaryDirectory(dir=".") as directory:
    Path(directory, "made").touch()
    print(sorted(path.name for path in Path(directory).iterdir()))
Path("made").mkdir()
Path("made/here.txt").write_text("written by the script\n")
print(oct(Path("made/here.txt").stat().st_mode))
sys.exit(None)
