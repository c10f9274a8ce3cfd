"""Ranks that are slow and alive: none of them may be stopped."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset


def until(job):
    """Yield until the time is over."""
    end = time.monotonic() + job.slow_s
    while time.monotonic() < end:
        yield


def all_compute(job):
    compute(job)


def one_computes(job):
    if job.is_mine:
        compute(job)


def compute(job):
    a = torch.randn(200, 200)
    for _ in until(job):
        a = torch.nn.functional.normalize(a @ a)


def one_computes_in_numpy(job):
    if job.is_mine:
        a = np.ones((200, 200))
        for _ in until(job):
            a = np.tanh(a @ a)


def one_is_in_one_long_call(job):
    """In C, without the GIL."""
    if job.is_mine:
        last_as_long(job, lambda n: hashlib.pbkdf2_hmac("sha256", b"key", b"salt", n))


def one_is_in_one_long_call_with_the_gil(job):
    if job.is_mine:
        last_as_long(job, lambda n: sum(range(n)))


def one_is_in_one_long_call_after_a_call_that_was_overtaken(job):
    """gloo runs two calls at a time: the small one ends first."""
    calls = [dist.all_reduce(torch.ones(n), async_op=True) for n in (8 << 20, 1)]
    for call in calls:
        call.wait()
    one_is_in_one_long_call(job)


def last_as_long(job, call, n=3_000_000):
    began = time.monotonic()
    call(n)
    call(int(n * job.slow_s / (time.monotonic() - began)))


def one_counts_primes(job):
    """On a few lines of Python, with no memory and no output."""
    if job.is_mine:
        end, n, nprimes = time.monotonic() + job.slow_s, 2, 0
        while time.monotonic() < end:
            for divisor in range(2, n):
                if n % divisor == 0:
                    break
            else:
                nprimes += 1
            n += 1


def one_tokenises(job):
    if job.is_mine:
        vocabulary, text = {}, []
        for _ in until(job):
            word = "".join(chr(97 + (len(text) * k) % 26) for k in range(7))
            text.append(vocabulary.setdefault(word, len(vocabulary)))


def one_sorts_in_c(job):
    """The GIL is held by one call after another."""
    if job.is_mine:
        numbers = [(k * 7919) % 1_000_003 for k in range(1_000_000)]
        for _ in until(job):
            numbers = sorted(numbers, key=lambda k: -k)


def one_writes_a_checkpoint(job):
    if job.is_mine:
        with open("model.pt", "wb") as file:
            for _ in until(job):
                file.write(bytes(1 << 20))
                file.flush()
                os.fsync(file.fileno())
                time.sleep(0.2)


def one_saves_again_and_again(job):
    if job.is_mine:
        state = {f"layer{k}": torch.randn(256, 256) for k in range(8)}
        for _ in until(job):
            torch.save(state, "model.pt")


def one_evaluates(job):
    if job.is_mine:
        model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Linear(256, 8)).eval()
        with torch.no_grad():
            for _ in until(job):
                model(torch.randn(64, 64)).argmax(1)


def one_compiles(job):
    if job.is_mine:
        for k, _ in enumerate(until(job)):
            torch._dynamo.reset()
            torch.compile(lambda x, k=k: (x * k).sin().cumsum(0))(torch.ones(8 + k))


class Rows(Dataset):
    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 1

    def __getitem__(self, index):
        end, total = time.monotonic() + self.seconds, 0
        while time.monotonic() < end:
            total += 1
        return total


def one_waits_for_a_loader_at_work(job):
    if job.is_mine:
        for _ in DataLoader(Rows(job.slow_s), num_workers=1):
            pass


def one_waits_for_a_command_at_work(job):
    if job.is_mine:
        code = "import sys, time\nwhile time.monotonic() < float(sys.argv[1]): pass"
        subprocess.run([sys.executable, "-c", code, str(time.monotonic() + job.slow_s)])


def one_downloads(job):
    """Over a slow link."""
    if job.is_mine:
        source, target = os.pipe()

        def serve():
            for _ in until(job):
                os.write(target, bytes(8192))
                time.sleep(0.3)
            os.close(target)

        threading.Thread(target=serve).start()
        while os.read(source, 8192):
            pass


def one_prints(job):
    if job.is_mine:
        for _ in until(job):
            print("still at it", flush=True)
            time.sleep(0.5)


def one_logs_metrics(job):
    from distrun.train import metrics

    if job.is_mine:
        for step, _ in enumerate(until(job), 1):
            metrics.log(step, loss=1.0)
            time.sleep(0.5)


def one_is_stopped_shortly(job):
    """For a fourth of the time, four times, with work in between."""
    if job.is_mine:
        for _ in range(4):
            command = f"sleep {job.slow_s / 4}; kill -CONT {os.getpid()}"
            subprocess.Popen(["sh", "-c", command], start_new_session=True)
            os.kill(os.getpid(), signal.SIGSTOP)
            print("goes on", flush=True)


def all_sleep(job):
    time.sleep(job.slow_s)


def all_wait_for_data(job):
    ready = threading.Event()
    threading.Timer(job.slow_s, ready.set).start()
    ready.wait()


def one_is_late_again_and_again(job):
    """Each wait is shorter than the limit, all of them are longer."""
    for _ in range(8):
        if job.is_mine:
            time.sleep(job.slow_s / 8)
        dist.all_reduce(torch.ones(8))


def files_grow(job):
    """One rank waits while its child writes."""
    if job.is_mine:
        script = "import sys, time\nfor k in range(int(sys.argv[1])):\n"
        script += " open('out', 'ab').write(bytes(16384)); time.sleep(0.5)"
        subprocess.run([sys.executable, "-c", script, str(int(job.slow_s * 2))])
        assert Path("out").stat().st_size
