"""What a rank reports of the exception that ends it: never without type, file and line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distrun.agent.rank import Rank
from distrun.frames import shortened
from distrun.streams import NOTHING_HANDED
from tests.conftest import wait_until

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from distrun.agent.rank_boot import prepare
prepare({report}, {stacks})
exec(compile(open(sys.argv[1], "rb").read(), sys.argv[1], "exec"))
"""


def report_of(tmp_path: Path, source: str | bytes) -> dict[str, Any]:
    """Run a script to its end as a rank does, and return what its agent gets to know."""
    script = tmp_path / "train.py"
    script.write_bytes(source if isinstance(source, bytes) else source.encode())
    rank = Rank(0, apart=False)
    given = rank.open(NOTHING_HANDED.handed_fds)
    stdin, _, _, report, stacks = given
    program = PROGRAM.format(root=str(ROOT), report=report, stacks=stacks)
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(script)],
        pass_fds=(report, stacks),
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for fd in given:
        os.close(fd)
    reports: list[dict[str, Any]] = []
    try:
        wait_until(lambda: reports.extend(rank.read_reports()) or rank.report_at_eof, 60)
    finally:
        child.kill()
        child.wait()
        rank.close()
    assert [record["report"] for record in reports] == ["error"]
    return reports[0]


LONG = 5_000_000
RAISES: dict[str, tuple[str | bytes, str, int]] = {
    "a long message": (f"raise ValueError('a' * {LONG} + 'end')", "ValueError", 1),
    "a long message of emoji": (f"raise ValueError('\\U0001f600' * {LONG})", "ValueError", 1),
    "a long message of controls": (f"raise ValueError('\\x01' * {LONG})", "ValueError", 1),
    "many lines": (f"raise ValueError('line\\n' * {LONG // 5})", "ValueError", 1),
    "a long line of source": (f"x = '{'x' * LONG}'; raise ValueError(x)", "ValueError", 1),
    "a long line of code": (f"\nx = 1; y = [{'x,' * 50_000}]; raise ValueError", "ValueError", 2),
    "many frames": (
        "def f(n):\n    return g(n - 1)\ndef g(n):\n    return f(n) if n else 1 / n\n"
        "import sys\nsys.setrecursionlimit(100_000)\nf(20_000)",
        "ZeroDivisionError",
        4,
    ),
    "recursion": ("def f():\n    f()\nf()", "RecursionError", 2),
    "many causes": (
        "error = None\nfor i in range(20_000):\n    new = ValueError(i)\n"
        "    new.__cause__, error = error, new\nraise error",
        "ValueError",
        5,
    ),
    "a long name of a type": (f"raise type('A' * {LONG}, (Exception,), {{}})", "AAAA", 1),
    "a long name of a file": (
        f"exec(compile('1 / 0', 'f' * {LONG}, 'exec'))",
        "ZeroDivisionError",
        1,
    ),
    "a __str__ that raises": (
        "class E(Exception):\n    def __str__(self): raise OSError\nraise E",
        "E",
        3,
    ),
    "a __str__ that exits": (
        "class E(Exception):\n    def __str__(self): raise SystemExit(3)\nraise E",
        "E",
        3,
    ),
    "a __str__ of no text": ("class E(Exception):\n  def __str__(self): return 5\nraise E", "E", 3),
    "a __cause__ that raises": (
        "class E(Exception):\n    @property\n    def __cause__(self): raise OSError\nraise E",
        "E",
        4,
    ),
    "a lone surrogate": ("raise ValueError('\\ud800' + chr(0xdfff))", "ValueError", 1),
    "no UTF-8": (b"raise ValueError('\xff\xfe')", "SyntaxError", 1),
    "a NUL": ("raise ValueError('a\\0b\\nc')", "ValueError", 1),
    "a wrong syntax": ("\nx = = 1", "SyntaxError", 2),
    "a wrong syntax error": ("raise SyntaxError('no', ('f', 'one', 1, 'x'))", "SyntaxError", 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", RAISES)
def test_type_file_and_line_are_told_whatever_is_raised(tmp_path: Path, kind: str) -> None:
    source, name, line = RAISES[kind]
    report = report_of(tmp_path, source)
    assert (report["type"][: len(name)], report["line"]) == (name, line)
    assert report["file"] == str(tmp_path / "train.py") or report["file"][:1] == "f" or not line


def test_many_threads_of_long_names_are_no_harm(tmp_path: Path) -> None:
    starts = "threading.Thread(target=wait, name='é' * 10_000).start()"
    report = report_of(
        tmp_path,
        "import threading, time\ndef wait(): time.sleep(1)\n"
        f"for _ in range(200): {starts}\nraise ValueError",
    )
    assert (report["type"], report["line"], len(report["threads"])) == ("ValueError", 4, 99)


def test_of_a_long_message_head_and_tail_are_kept(tmp_path: Path) -> None:
    report = report_of(tmp_path, f"raise ValueError('begin' + 'x' * {LONG} + 'end')")
    for text in (report["message"], report["traceback"]):
        assert len(text) < 40_000
        assert "beginx" in text and text.rstrip().endswith("xend")
        assert "characters left out" in text
    assert 'train.py", line 1, in <module>' in report["traceback"]


def test_shortened_tells_how_much_it_has_left_out() -> None:
    assert shortened("a" * 10, 10) == "a" * 10
    assert "left out" in shortened("a" * 100, 30)
    assert " … 960 characters left out … " in shortened(shortened("a" * 1000, 100), 40)
    assert shortened("a" * 5 + "b" * 77 + "c" * 5, 10) == "aaaaa … 77 characters left out … ccccc"
    assert shortened("a" * 17, 10) == "a" * 17, "to tell of 7 takes more room"
