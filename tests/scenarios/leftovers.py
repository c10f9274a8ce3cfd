"""A worker that starts processes which outlive it: `leftovers.py KIND`."""

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RANK = os.environ["RANK"]
SILENT = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def start(code: str, **options: object) -> None:
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **SILENT, **options)


UPLOADER = f"""
import os, time
while os.getppid() == {os.getpid()}: time.sleep(0.05)
time.sleep(1.5)
open('uploaded{RANK}', 'w').write('all of it')
"""


def uploader() -> None:
    """Hand the last file to a helper that goes on after the script."""
    start(UPLOADER)


def hidden_uploader() -> None:
    """The same, and the helper knows nothing of the environment."""
    start(UPLOADER, env={})


def daemon() -> None:
    """Leave a process behind that never ends, and does not want to."""
    start(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "signal.signal(signal.SIGINT, signal.SIG_IGN);"
        f"open('daemon{RANK}', 'w').close(); time.sleep(300)"
    )
    while not Path(f"daemon{RANK}").exists():
        time.sleep(0.01)


def child_saves() -> None:
    """Be a wrapper that dies of SIGTERM at once, with a child that saves for a second."""
    code = (
        "import signal, sys, time\n"
        "def save(*_):\n"
        f"    time.sleep(1); open('saved{RANK}', 'w').close(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"open('ready{RANK}', 'w').close(); time.sleep(300)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)


def loader() -> None:
    """Catch SIGTERM, and go on reading from loader workers before the end."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Numbers(Dataset):
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, i: int) -> int:
            time.sleep(0.02)
            return i

    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    torch.set_num_threads(1)
    left = 20
    for _ in DataLoader(Numbers(), batch_size=2, num_workers=2):
        Path(f"ready{RANK}").touch()
        left -= bool(told)
        if not left:
            break
    Path(f"saved{RANK}").touch()


def wrapped_loader() -> None:
    """Be a wrapper that dies of SIGTERM at once, around a script with loader workers."""
    subprocess.run([sys.executable, __file__, "loader"], check=False)


def upload_at_exit() -> None:
    """Raise, with an exit handler that takes longer than the launcher watches a raise."""
    atexit.register(Path(f"saved{RANK}").touch)
    atexit.register(time.sleep, 7)
    raise ValueError("after the last epoch")


globals()[sys.argv[1]]()
