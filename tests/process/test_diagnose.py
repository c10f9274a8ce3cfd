"""`distrun diagnose`: of a job that torchrun has started, and of recorded runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SCENARIOS
from tests.unit.diagnose.hang.jobs import answer, done_up_to, entry, stacks_of

Run = Callable[..., subprocess.CompletedProcess[str]]
DUMPS = SCENARIOS / "dumps.py"
LINES = DUMPS.read_text().splitlines()
pytestmark = pytest.mark.timeout(110)


def line_of(mark: str) -> int:
    return next(n for n, line in enumerate(LINES, 1) if line.endswith(f"# HERE {mark}"))


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that runs a fault under torchrun, once, and returns its dumps."""

    def dump(fault: str) -> Path:
        path = tmp_path_factory.getbasetemp() / f"dumps-{fault}"
        if not path.exists():
            path.mkdir()
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command = [*torchrun, "--nproc-per-node", "3", str(DUMPS), str(path), fault]
            environ = {**os.environ, "TORCH_FR_BUFFER_SIZE": "200", "OMP_NUM_THREADS": "1"}
            subprocess.run(command, env=environ, check=True, timeout=90, capture_output=True)
        return path

    return dump


@pytest.mark.parametrize("files", ["nccl_trace_rank_*", "rank_*.json"])
def test_dumps_of_a_job_that_torchrun_started_name_the_rank_and_its_line(
    dumped: Callable[[str], Path], distrun: Run, tmp_path: Path, files: str
) -> None:
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    for path in [*dumped("sleep").glob(files), *dumped("sleep").glob("stacks_*.txt")]:
        shutil.copy(path, dumps)
    done = distrun("diagnose", dumps)
    assert done.returncode == 1, done.stderr
    said = (
        "hang: all_reduce #4 of the default group (float32 [4, 4]) waits for rank 1: 2 of 3 ranks"
        f" called it at dumps.py:{line_of('all_reduce')} (all_reduce); rank 1 is in time.sleep at"
        f" dumps.py:{line_of('sleep')} (load)\n"
    )
    assert done.stdout.startswith(said)
    assert "not called by 1" in done.stdout
    assert f"dumps.py:{line_of('sleep')}  load → sleep" in done.stdout
    assert "2 of 3 ranks: 0,2\n" in done.stdout


def test_without_stacks_the_last_call_of_the_rank_is_named(
    dumped: Callable[[str], Path], distrun: Run
) -> None:
    done = distrun("diagnose", "--json", *sorted(dumped("sleep").glob("nccl_trace_rank_[01]")))
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"]["culprits"] == [1]
    assert [row["seq"] for row in found["timeline"]] == [1, 2, 3, 4]


def test_a_collective_that_differs_is_told_and_the_trace_is_written(
    dumped: Callable[[str], Path], distrun: Run, tmp_path: Path
) -> None:
    done = distrun("diagnose", "--trace", tmp_path / "t.json", dumped("broadcast"))
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith(
        "hang: ranks disagree in call #4 of the default group: ranks 0,2 called all_reduce"
        f" (float32 [4, 4]) at dumps.py:{line_of('all_reduce')} (all_reduce); rank 1 called"
        f" broadcast (float32 [4, 4]) at dumps.py:{line_of('broadcast')} (broadcast)\n"
    )
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    names = {event["name"] for event in events if event["ph"] == "X"}
    assert names == {*(f"all_reduce #{n}" for n in (1, 2, 3, 4)), "broadcast #4"}
    assert "t.json is written" in done.stderr


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a run whose two ranks ended with 3."""
    path = tmp_path_factory.mktemp("failed")
    (path / "two.py").write_text("import sys\nsys.exit(3)\n")
    options = ["--nodes", "2", "--nproc-per-node", "1", "--no-check"]
    command = [sys.executable, "-m", "distrun", "launch", *options, "two.py"]
    assert subprocess.run(command, cwd=path, timeout=90, capture_output=True).returncode == 3
    return next((path / "runs").iterdir())


@pytest.fixture
def run_directory(failed_run: Path, tmp_path: Path) -> Path:
    """Return a copy of that run, for records to be put into."""
    return Path(shutil.copytree(failed_run, tmp_path / "runs" / failed_run.name))


def leave(run: Path, rank: int, record: object, stacks: str) -> None:
    for name in ("flight", "stacks"):
        (run / name).mkdir(exist_ok=True)
    text = record if isinstance(record, str) else json.dumps(record)
    (run / "flight" / f"rank{rank}.json").write_text(text)
    (run / "stacks" / f"rank{rank}.txt").write_text(stacks)


def test_a_run_is_read_from_its_directory(run_directory: Path, distrun: Run) -> None:
    events = run_directory / "events.jsonl"
    lines = [line for line in events.read_text().splitlines() if '"rank_ended"' not in line]
    events.write_text("\n".join(lines) + "\n")
    late = (("/me/data.py", 31, "load"),)
    waits = answer([*done_up_to(3), entry(4)], world=2)
    leave(run_directory, 0, waits, stacks_of((("/me/train.py", 88, "step"),)))
    leave(run_directory, 1, answer(done_up_to(3), world=2), stacks_of(late))
    done = distrun("diagnose")
    assert done.returncode == 1, done.stderr
    assert "waits for rank 1: 1 of 2 ranks called it" in done.stdout
    assert "rank 1 on node1 is at data.py:31 (load)" in done.stdout
    assert "rank 1 on node1\n    /me/data.py:31  load\n" in done.stdout


def test_ranks_that_had_ended_are_told_with_their_exit_codes(
    run_directory: Path, distrun: Run
) -> None:
    leave(run_directory, 0, answer([*done_up_to(3), entry(4)], world=2), "")
    leave(run_directory, 1, answer(done_up_to(3), world=2), "")
    done = distrun("diagnose", run_directory.name)
    assert done.returncode == 1, done.stderr
    assert "rank 1 on node1 has ended with exit code 3" in done.stdout


def test_a_run_without_records_is_refused_with_the_cure(run_directory: Path, distrun: Run) -> None:
    done = distrun("diagnose", run_directory)
    assert done.returncode == 2
    assert "left no records of its ranks" in done.stderr
    assert "hint: " in done.stderr


NAME = "\x1b[31m[bold red]dp\n"
HOSTILE: dict[str, Any] = {
    "truncated": json.dumps(answer([entry(1)]))[:-20],
    "wrong types": json.dumps(
        {"trace": {"entries": [3, {"process_group": [1, 2]}, None]}, "groups": 3, "frames": {}}
    ),
    "deep": "[" * 100_000,
    "numbers": json.dumps(answer([entry(2**70, "x", sizes=(-1,))])),
    "names": json.dumps(
        answer(
            [entry(1, NAME, group=("1", NAME), dtype=NAME)],
            groups={"1": (NAME, [0, 1])},
            frames=[(NAME, 1, NAME)],
        )
    ),
    "empty": "",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_record_in_a_run_breaks_nothing(
    run_directory: Path, distrun: Run, kind: str
) -> None:
    leave(run_directory, 0, HOSTILE[kind], stacks_of(((NAME.strip(), 1, NAME.strip()),)))
    leave(
        run_directory,
        1,
        answer(done_up_to(3), world=2),
        "\0\ud800".encode("utf-8", "replace").decode(),
    )
    for options in ((), ("--json",)):
        done = distrun("diagnose", *options)
        assert done.returncode in (0, 1), done.stderr
        assert "\x1b" not in done.stdout
        assert "fault of distrun" not in done.stderr


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_files_that_are_no_dumps_are_named_and_never_executed(distrun: Run, tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    (dumps / "nccl_trace_rank_0").write_bytes(pickle.dumps({"entries": [Bomb()]}))
    (dumps / "nccl_trace_rank_1").write_bytes(b"\x80\x02]")
    (dumps / "rank_2.json").write_text("{")
    os.mkfifo(dumps / "rank_3")
    with (dumps / "rank_4.json").open("wb") as huge:
        huge.truncate(1 << 40)
    (dumps / "notes.txt").write_text("x")
    done = distrun("diagnose", dumps)
    assert done.returncode == 2
    assert not list(tmp_path.rglob("pwned"))
    for n in range(5):
        assert f"rank_{n}" in done.stderr
    assert "is larger than 64 MiB" in done.stderr
    assert "holds no dump of torch's flight recorder" in done.stderr


@pytest.mark.parametrize("words", [("nope",), ("a", "b"), ("--last", "-1"), ("--trace", "/no/t")])
def test_what_is_typed_wrong_is_refused_with_2(
    distrun: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert distrun("diagnose", *words).returncode == 2
