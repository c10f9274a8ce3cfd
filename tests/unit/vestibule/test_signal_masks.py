"""Whether a process has a handler for a signal, ignores it, waits for it, or would end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from distrun.processes import LINUX
from distrun.signal_masks import catches, survives

pytestmark = pytest.mark.skipif(not LINUX, reason="/proc is Linux's")
BLOCK = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})"
THREAD = "threading.Thread(target=target, daemon=True).start()"
CASES = {
    "handler": ("signal.signal(signal.SIGUSR1, lambda *_: None)", True),
    "ignored": ("signal.signal(signal.SIGUSR1, signal.SIG_IGN)", True),
    "default": ("", False),
    "blocked, signalfd or pending": (BLOCK, True),
    "sigwait in a thread": (
        f"{BLOCK}\ndef target(): signal.sigwait({{signal.SIGUSR1}})\n{THREAD}",
        True,
    ),
    "sigtimedwait in a thread": (
        f"{BLOCK}\ndef target(): signal.sigtimedwait({{signal.SIGUSR1}}, 60)\n{THREAD}",
        True,
    ),
    "sigwait for another signal": (
        f"def target(): signal.sigwait({{signal.SIGUSR2}})\n{THREAD}",
        False,
    ),
    "blocked in one thread of two": (f"def target(): time.sleep(60)\n{THREAD}\n{BLOCK}", False),
}


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    begin, end = (
        "import signal, threading, time\n",
        "\ntime.sleep(0.2); print(flush=True)\ntime.sleep(60)",
    )
    code = begin + request.param + end
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


@pytest.mark.parametrize(("child", "lives"), CASES.values(), ids=list(CASES), indirect=["child"])
def test_whether_a_signal_would_end_a_process_is_known(
    child: subprocess.Popen[str], lives: bool
) -> None:
    assert survives(child.pid, signal.SIGUSR1) is lives
    child.send_signal(signal.SIGUSR1)  # and so it is
    try:
        child.wait(0.3)
    except subprocess.TimeoutExpired:
        assert lives
    else:
        assert not lives


@pytest.mark.parametrize("child", [CASES["handler"][0]], indirect=True)
def test_a_handler_is_of_one_signal_and_ends_with_its_process(
    child: subprocess.Popen[str],
) -> None:
    assert catches(child.pid, signal.SIGUSR1)
    assert not catches(child.pid, signal.SIGUSR2)
    child.kill()
    child.wait()
    assert not catches(child.pid, signal.SIGUSR1)
    assert not survives(child.pid, signal.SIGUSR1)
