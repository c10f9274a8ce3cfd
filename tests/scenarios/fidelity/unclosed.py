"""Everything that a script may leave open, half done or in a cycle, for python to end."""

import atexit
import concurrent.futures
import contextlib
import csv
import gzip
import io
import logging
import logging.handlers
import sqlite3
import tempfile
import threading
import time
import weakref
from pathlib import Path

import torch

Path("spool").mkdir()

text = open("text.txt", "w")
text.write("never closed\n" * 7)
binary = open("binary.bin", "wb")
binary.write(bytes(range(256)) * 3)
zipped = gzip.GzipFile("zipped.gz", "wb", mtime=0)
zipped.write(b"zipped, and not closed" * 100)
table = csv.writer(open("table.csv", "w", newline=""))
table.writerows([["step", "loss"], [1, 0.5], [2, 0.25]])
wrapped = io.TextIOWrapper(io.BufferedWriter(io.FileIO("wrapped.txt", "w")), "utf-8")
wrapped.write("in three layers ü\n")

database = sqlite3.connect("rows.sqlite")
database.execute("create table rows (step integer)")
database.execute("insert into rows values (1)")
database.commit()
database.execute("insert into rows values (2)")  # not committed: it is to be lost

file_handler = logging.FileHandler("log.txt", delay=True)
memory = logging.handlers.MemoryHandler(1000, target=file_handler)  # flushed by logging itself
logging.getLogger("kept").addHandler(memory)
logging.getLogger("kept").warning("said, and not flushed")


class Writer:
    """Writes in __del__, as many loggers do."""

    def __init__(self, name):
        self.file, self.rows = open(name, "w"), ["row\n"]

    def __del__(self):
        self.file.write("".join(self.rows))
        self.file.close()


class LateWriter:
    """The same in a cycle, where the order of the ends is nobody's: so it opens its file then."""

    def __init__(self, name):
        self.name, self.rows = name, ["row\n"]

    def __del__(self, open=open):
        with open(self.name, "w") as file:
            file.write("".join(self.rows))


in_main = Writer("del_of_a_global.txt")


def in_a_cycle():
    writer = LateWriter("del_in_a_cycle.txt")
    writer.itself = writer


def in_a_closure():
    writer = LateWriter("del_in_a_closure.txt")

    def keep():
        return writer

    keep.itself = keep


in_a_cycle()
in_a_closure()
torch.kept = Writer("del_in_a_module.txt")


def generator():
    try:
        yield 1
    finally:
        Path("generator.txt").write_text("closed in mid-air\n")


suspended = generator()
next(suspended)

stack = contextlib.ExitStack()
stack.enter_context(open("stack.txt", "w")).write("of an ExitStack\n")
stack.callback(Path("never.txt").touch)  # nobody closes the stack: python does not either

order = open("order.txt", "w")


class Target:
    pass


target = Target()
atexit.register(lambda: order.write("atexit 1\n"))
weakref.finalize(target, lambda: order.write("finalize, before the atexit that came first\n"))
atexit.register(lambda: order.write("atexit 2\n"))
atexit.register(lambda: atexit.register(lambda: order.write("atexit of an atexit\n")))

temporary = tempfile.NamedTemporaryFile(dir="spool")
folder = tempfile.TemporaryDirectory(dir="spool")
spooled = tempfile.SpooledTemporaryFile(dir="spool")

pool = concurrent.futures.ThreadPoolExecutor(2)
pool.submit(lambda: (time.sleep(0.2), Path("pool.txt").write_text("a pool's task is waited for\n")))


def late():
    threading.main_thread().join()
    Path("thread.txt").write_text("a thread that goes on after main is waited for\n")


threading.Thread(target=late).start()
print("the end of the script")
