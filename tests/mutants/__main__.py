"""`python -m tests.mutants [--jobs N] [WORD …]`: plant bugs, one at a time, and run their tests.

Each is planted in a copy of the working tree, never in the tree itself. A bug that no test
notices survives: there a test is missing. With words only those bugs are planted whose file or
sentence holds one of them. First the tests run once without a bug: they have to pass.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.control import CONTROL
from tests.mutants.nodes import NODES
from tests.mutants.patch import Patch, PatchError
from tests.mutants.recovery import RECOVERY
from tests.mutants.reports import REPORTS
from tests.mutants.workers import WORKERS

ROOT = Path(__file__).resolve().parents[2]
PATCHES = (*CONTROL, *NODES, *RECOVERY, *REPORTS, *WORKERS)
_COPIED = ("distrun", "recipes", "tests", "benchmarks", "pyproject.toml", "README.md", "docs")
_LIMIT_S = 300.0
_PASSED, _FAILED = 0, 1  # of pytest; the other codes say that it could not run them


@dataclass(frozen=True)
class Outcome:
    """What came of one bug."""

    word: str
    """killed, survived, or error."""
    detail: str
    took_s: float


def main(arguments: Sequence[str]) -> int:
    """Run; return 0 if all bugs that were planted were noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--jobs", type=int, default=1, help="how many bugs at once")
    parser.add_argument("words", nargs="*", help="of the file, or of the sentence")
    asked = parser.parse_args(arguments)
    patches = [
        p for p in PATCHES if not asked.words or any(w in p.file + p.bug for w in asked.words)
    ]
    tests = sorted({test for patch in patches for test in patch.tests})
    if missing := [test for test in tests if not (ROOT / "tests" / test).is_file()]:
        print(f"there is no tests/{missing[0]}")
        return 2
    with _copy() as tree:
        without = _run(tree, tests, limit_s=len(tests) * _LIMIT_S, jobs=asked.jobs)
    word = "passed" if without.word == "survived" else "did not pass"
    print(f"{len(tests)} files of tests without a bug {word}: {without.detail}", flush=True)
    if without.word != "survived":
        print("bugs are planted only where all tests pass")
        return 2
    killed = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        for patch, outcome in zip(patches, pool.map(_planted, patches), strict=True):
            killed += outcome.word == "killed"
            print(
                f"{outcome.word:8} {outcome.took_s:4.0f} s  {patch.file}: {patch.bug}", flush=True
            )
            print(f"{'':17}{patch.kind}; {outcome.detail}", flush=True)
    print(f"{killed} of {len(patches)} bugs were noticed")
    return int(killed < len(patches))


def _planted(patch: Patch) -> Outcome:
    with _copy() as tree:
        try:
            patch.apply(tree)
        except PatchError as error:
            return Outcome("error", str(error), 0.0)
        return _run(tree, patch.tests)


@contextmanager
def _copy() -> Iterator[Path]:
    """Copy what tests need; anew each time, so that no compiled file is of another bug."""
    with tempfile.TemporaryDirectory(prefix="distrun-mutants-") as name:
        tree = Path(name)
        for each in _COPIED:
            source, target = ROOT / each, tree / each
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        yield tree


def _run(tree: Path, tests: Sequence[str], limit_s: float = _LIMIT_S, jobs: int = 0) -> Outcome:
    """Run files of tests in a copy, up to the first failure."""
    began = time.monotonic()
    words = ["-m", "pytest", f"-n{jobs}", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    child = subprocess.Popen(
        [sys.executable, *words, *(f"tests/{test}" for test in tests)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return Outcome("killed", f"no end within {limit_s:g} s", limit_s)
    took_s = time.monotonic() - began
    lines = said.strip().splitlines() or ["nothing was said"]
    if child.returncode == _PASSED:
        return Outcome("survived", lines[-1], took_s)
    if child.returncode == _FAILED:
        failed = re.findall(r"(?m)^(?:FAILED|ERROR) (\S+)", said)
        return Outcome("killed", failed[0] if failed else lines[-1], took_s)
    return Outcome("error", lines[-1], took_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
