"""Which failures may come of torch having been imported first."""

from __future__ import annotations

import signal

import pytest

from distrun.diagnose.import_failure import fell_in_import
from distrun.diagnose.verdict import RankEnd, judge

SCRIPT = '  File "/home/me/train.py", line 3, in <module>\n    import sim\n'
NEIGHBOUR = '  File "/home/me/sim.py", line 7, in <module>\n    start()\n'
LIBRARY = '  File "/venv/lib/python3.11/site-packages/sim/__init__.py", line 7, in <module>\n'
IN_MAIN = '  File "/home/me/train.py", line 3, in main\n    step()\n'
DDP = (
    "Expected to have finished reduction in the prior iteration before starting a new one."
    " Parameters of `torch.nn.parallel.DistributedDataParallel` were not used"
)


def error(kind: str, message: str, *frames: str) -> dict[str, str]:
    frames = frames or (SCRIPT,)
    traceback = f"Traceback (most recent call last):\n{''.join(frames)}{kind}: {message}\n"
    return {"type": kind, "message": message, "traceback": traceback, "file": "train.py"}


@pytest.mark.parametrize(
    "report",
    [
        error("ImportError", "sim has to be imported before torch"),
        error("ImportError", "cannot import name 'x' from 'y'", IN_MAIN),
        error("ModuleNotFoundError", "No module named 'queue.mine'; 'queue' is not a package"),
        error("RuntimeError", "could not load sim", "ImportError: no\n\nThe above …\n", IN_MAIN),
        error("RuntimeError", "module compiled against API version 0x10 but this version is 0xf"),
        error("ValueError", "numpy.dtype size changed, may indicate binary incompatibility"),
        error("AttributeError", "partially initialized module 'sim' has no attribute 'x'"),
        error("OSError", "/sim/libsim.so: undefined symbol: _ZN2at"),
        error("AssertionError", "import sim before importing torch"),
        error("RuntimeError", "torch was imported already", IN_MAIN),
        error("TypeError", "object of type '_OpNamespace' has no len()", SCRIPT, LIBRARY),
    ],
    ids=lambda report: str(report["message"])[:30],
)
def test_an_error_in_an_import_is_one(report: dict[str, str]) -> None:
    assert fell_in_import(1, report, "")


@pytest.mark.parametrize(
    "report",
    [
        error("ModuleNotFoundError", "No module named 'tqdm'", SCRIPT),
        error("RuntimeError", DDP, SCRIPT, IN_MAIN),
        error("RuntimeError", "mat1 and mat2 shapes cannot be multiplied", SCRIPT, IN_MAIN),
        error("KeyError", "'lr'", SCRIPT, NEIGHBOUR),
        error("RuntimeError", "shapes cannot be multiplied", SCRIPT, NEIGHBOUR),  # trains there
        error("ValueError", "x", '  File "<string>", line 1, in <module>\n'),
        error("OSError", "No space left on device", SCRIPT),
    ],
    ids=lambda report: str(report["message"])[:30],
)
def test_an_error_of_the_scripts_own_is_none(report: dict[str, str]) -> None:
    assert not fell_in_import(1, report, "")


IMPORTING = '  File "<frozen importlib._bootstrap>", line 1176 in _find_and_load\n'
CRASH = "Fatal Python error: Segmentation fault\n\n"


@pytest.mark.parametrize(
    ("exit_code", "stacks", "expected"),
    [
        (
            -signal.SIGSEGV,
            f"{CRASH}Current thread 0x1 (most recent call first):\n{IMPORTING}",
            True,
        ),
        (-signal.SIGABRT, f"Current thread 0x1 (most recent call first):\n{IMPORTING}", True),
        (-signal.SIGSEGV, f'{CRASH}Current thread 0x1 :\n  File "t.py", line 3 in main\n', False),
        (-signal.SIGSEGV, f"Thread 0x2:\n{IMPORTING}\nCurrent thread 0x1:\n  a\n", False),
        (-signal.SIGSEGV, f"Current thread 0x1:\n  a\n\nThread 0x2:\n{IMPORTING}", False),
        (-signal.SIGKILL, f"Current thread 0x1:\n{IMPORTING}", False),
        (3, f"Current thread 0x1:\n{IMPORTING}", False),
        (-signal.SIGSEGV, "", False),
    ],
)
def test_a_crash_counts_if_the_thread_that_crashed_was_importing(
    exit_code: int, stacks: str, expected: bool
) -> None:
    assert fell_in_import(exit_code, None, stacks) is expected
    verdict = judge([RankEnd(0, 0, "node0", exit_code, 1.0, stacks=stacks)])
    assert verdict is not None
    assert verdict.in_import is expected
