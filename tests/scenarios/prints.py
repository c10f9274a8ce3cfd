"""A worker that prints: `prints.py KIND`."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RANK = os.environ["RANK"]


def hello() -> None:
    print(f"stdout of rank {RANK}")
    print(f"stderr of rank {RANK}", file=sys.stderr)


def bars() -> None:
    for tenth in range(11):
        bar = "#" * tenth + "-" * (10 - tenth)
        sys.stdout.write(f"\rrank {RANK}: {10 * tenth:3d}%|{bar}|")
        sys.stdout.flush()
        time.sleep(0.02)
    print(f"\ndone {RANK}")


def partial() -> None:
    sys.stdout.write(f"begun by {RANK}, ")
    time.sleep(1.5)
    print(f"ended by {RANK}")
    sys.stdout.write(f"last words without an end {RANK}")


def invalid_utf8() -> None:
    os.write(1, b"caf\xe9 \xe2\x98\x83\n\x00\xff\n")


def from_c() -> None:
    libc = ctypes.CDLL(None)
    libc.puts(b"from libc")
    libc.fflush(None)
    os.write(2, b"raw\n")
    subprocess.run(["sh", "-c", "echo from a shell"], check=True)


def die_talking() -> None:
    for number in range(20_000):
        print(f"line {number}")
    sys.stdout.write("last words")
    os._exit(9)


def alternate() -> None:
    """Write to both streams in turn, each time when what was written before is in the log."""
    log = Path(os.environ["DISTRUN_RUN_DIR"], "logs", f"node{RANK}", f"rank{RANK}.log")
    for number in range(40):
        stream = (number * number + number // 3) % 2  # neither regular nor of one stream
        os.write(1 + stream, b"%d to %s\n" % (number, (b"stdout", b"stderr")[stream]))
        while b"%d to " % number not in log.read_bytes():
            time.sleep(0.002)


def equal() -> None:
    print("loading the data")
    print(f"rank {RANK} has its own")
    print("a warning for all", file=sys.stderr)


def spam() -> None:
    line = b"x" * 99 + b"\n"
    for _ in range(500):
        os.write(1, line * 1000)
    if RANK == "0":
        supervisor = int(Path(f"/proc/{agent()}/stat").read_text().rpartition(")")[2].split()[1])
        status = Path(f"/proc/{supervisor}/status").read_text()
        peak = next(x for x in status.splitlines() if x.startswith("VmHWM"))
        Path("supervisor_peak_kib").write_text(peak.split()[1])


def agent() -> int:
    """Return the pid of the agent: the parent of the process that forked this rank."""
    return int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])


def slowly() -> None:
    print("line 0")
    while not Path("go").exists():
        time.sleep(0.01)
    for number in range(1, 20_000):
        print(f"line {number}")
    Path("printed").touch()


def rotate() -> None:
    for _ in range(30):
        print("y" * 99_999)
        time.sleep(0.02)


def fill() -> None:
    for _ in range(40):
        print("z" * 99_999)
    Path(f"trained{RANK}").touch()


def train() -> None:
    from distrun.train import metrics

    for step in range(1, 31):
        time.sleep(0.05)
        if RANK == "0":
            metrics.log(step, total_steps=30, loss=1 / (step + 1), samples_per_s=1000.0)
    print("step 30")


def screen() -> None:
    """Stand still in the middle of training."""
    from distrun.train import metrics

    if RANK == "0":
        print("epoch 1/3  loss 0.5000")
        for step in (10, 20):
            metrics.log(step, total_steps=30, loss=0.25, samples_per_s=1234.0)
            time.sleep(0.3)
        sys.stdout.write("\rval:  40%|####      |")
    while not Path("enough").exists():
        time.sleep(0.01)
    if RANK == "0":
        print("\rval: 100%|##########|\ntest accuracy 97.5 %")


def ask() -> None:
    print("hello " + input("your name? "))


def wait() -> None:
    print(f"rank {RANK} waits")
    Path(f"waiting{RANK}").touch()
    while True:
        signal.pause()


globals()[sys.argv[1]]()
