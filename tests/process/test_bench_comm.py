"""`distrun bench-comm` as a user runs it: files, screens, faults, and what is typed wrong."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distrun.spec.bench import BenchReport, read_report
from tests.conftest import only_run, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(90)

TWO = ("--nproc-per-node", "2")
ASKED = shlex.split("--op all_reduce,all_gather,barrier -b 64 -e 64K -f 32")
SMALL = shlex.split("--sizes 64 --place out -n 5 -w 1")
ROWS = [
    (op, size, place)
    for op in ("all_reduce", "all_gather")
    for size in (64, 2048, 65536)
    for place in ("out", "in")
] + [("barrier", 0, "out")]
KEPT = {"NCCL_TEST_A": "a", "GLOO_TEST_B": "b", "TORCH_NCCL_TEST_C": "c"}
NOT_KEPT = dict.fromkeys(("SECRET_TOKEN", "MY_NCCL_KEY", "NCCLX", "gloo_", "TORCH_TEST"), "hunter2")
NCCL_LINE = re.compile(
    r"^\s+(\d+)\s+(\d+)\s+(\w+)\s+(\w+)\s+(-?\d+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+(\S+)"
)


@dataclass(frozen=True)
class Measured:
    """A benchmark that has been run, and where its files are."""

    directory: Path
    result: subprocess.CompletedProcess[str]
    report: BenchReport

    def file(self, name: str) -> str:
        return (self.directory / name).read_text()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """One launch with all files, which most tests look at."""
    directory = tmp_path_factory.mktemp("bench")
    files = shlex.split("-o r.json -o r.csv --output r.md -o r.txt --format nccl-tests")
    result = subprocess.run(
        [sys.executable, "-m", "distrun", "bench-comm", *TWO, *ASKED, *files],
        cwd=directory,
        env={**os.environ, **KEPT, **NOT_KEPT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return Measured(directory, result, read_report(directory / "r.json"))


def saved(directory: Path, name: str, report: BenchReport, **rows: object) -> Path:
    """Write a report with calm rows, changed, as a user might keep one for a baseline."""
    calm: dict[str, object] = {"noisy": False, "mad_s": 0.0}
    changed = [
        row.model_copy(
            update={**calm, **{k: v(row) if callable(v) else v for k, v in rows.items()}}
        )
        for row in report.rows
    ]
    path = directory / name
    path.write_text(report.model_copy(update={"rows": changed}).model_dump_json(by_alias=True))
    return path


def test_every_row_that_was_asked_for_is_measured_and_right(measured: Measured) -> None:
    report = measured.report
    assert [(row.op, row.nbytes, row.place) for row in report.rows] == ROWS
    assert (report.complete, report.world_size, report.backend) == (True, 2, "gloo")
    assert [rank.rank for rank in report.ranks] == [0, 1]
    assert [row.wrong for row in report.rows] == [[]] * 12 + [None]
    for row in report.rows:
        assert 0 < row.min_s <= row.p50_s <= row.p95_s <= row.max_s
        assert len(row.times_s) == row.iterations
    assert {model.op for model in report.models} <= {"all_reduce", "all_gather"}
    assert set(report.definitions) == {"all_reduce", "all_gather"}
    assert json.loads(measured.file("r.json"))["schema"] == 1


def test_of_the_environment_only_what_concerns_nccl_and_gloo_is_kept(measured: Measured) -> None:
    kept = measured.report.environment
    assert {name: value for name, value in kept.items() if "TEST" in name} == KEPT
    assert all(name.startswith(("NCCL_", "GLOO_", "TORCH_NCCL_")) for name in kept)
    for name in ("r.json", "r.csv", "r.md"):
        assert "hunter2" not in measured.file(name)
    assert "hunter2" not in measured.result.stdout + measured.result.stderr


def test_the_csv_has_the_rows_of_the_report(measured: Measured) -> None:
    with open(measured.directory / "r.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["op"], int(line["nbytes"]), line["place"]) for line in lines] == ROWS
    assert [float(line["p50_s"]) for line in lines] == [row.p50_s for row in measured.report.rows]


def test_the_markdown_is_a_table_of_the_rows(measured: Measured) -> None:
    lines = measured.file("r.md").splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert len({line.count("|") for line in lines}) == 1


def test_what_looks_like_nccl_tests_is_read_like_nccl_tests(measured: Measured) -> None:
    lines = measured.result.stdout.splitlines()
    found = [match.groups() for line in lines if (match := NCCL_LINE.match(line))]
    assert [(int(f[0]), int(f[1]), *f[2:5], f[8]) for f in found] == [
        (nbytes, nbytes // 4 // parts, "float", redop, "-1", "0")
        for redop, parts in (("sum", 1), ("none", 2))  # all_gather counts one rank's
        for nbytes in (64, 2048, 65536)
    ]
    assert all(float(f[5]) > 0 and float(f[6]) > 0 and float(f[7]) > 0 for f in found)
    assert all(line.startswith("#") for line in lines if not NCCL_LINE.match(line))


def test_json_on_stdout_is_json_alone_and_nothing_is_written(distrun: Run, tmp_path: Path) -> None:
    result = distrun("bench-comm", *TWO, *SMALL, "--json")
    assert result.returncode == 0, result.stderr
    report = BenchReport.model_validate_json(result.stdout)
    assert [(row.op, row.nbytes) for row in report.rows] == [("all_reduce", 64)]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_json_on_stdout_stays_json_alone_beside_a_baseline_and_a_regression_is_exit_code_1(
    distrun: Run, tmp_path: Path, measured: Measured
) -> None:
    fast = saved(tmp_path, "fast.json", measured.report, p50_s=1e-9)
    words = ["--json", "--baseline", fast, "--tolerance", "0"]
    result = distrun("bench-comm", *TWO, *SMALL, *words)
    told = re.search(r"^(SLOWER|\d+ rows? as before).*", result.stdout + result.stderr, re.M)
    assert told, result.stderr
    report = BenchReport.model_validate_json(result.stdout)
    assert result.returncode == (0 if report.rows[0].noisy else 1)


def test_a_baseline_of_another_world_is_refused_before_anything_starts(
    distrun: Run, tmp_path: Path, measured: Measured
) -> None:
    other = measured.report.model_copy(update={"world_size": 4})
    path = saved(tmp_path, "four.json", other)
    result = distrun("bench-comm", *TWO, *SMALL, "--baseline", path)
    refused_as(result, Wrong("", "cannot be compared: world_size 4 and 2"))
    assert [path.name for path in tmp_path.iterdir()] == ["four.json"]


def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun("bench-comm", *TWO, *SMALL, "-o", "nowhere/r.json")
    refused_as(result, Wrong("", "nowhere/r.json cannot be written"))
    assert not list(tmp_path.iterdir())


def test_a_report_compared_with_one_twice_as_fast_is_exit_code_1_and_names_the_rows(
    distrun: Run, tmp_path: Path, measured: Measured
) -> None:
    now = saved(tmp_path, "now.json", measured.report)
    fast = saved(tmp_path, "fast.json", measured.report, p50_s=lambda row: row.p50_s / 2)
    result = distrun("bench-comm", "compare", fast, now)
    assert result.returncode == 1, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(ROWS) + 1
    assert lines[0].startswith("SLOWER: all_reduce of 64 B, out of place: p50 ")
    assert all(", x 2 (tolerance 10 %)" in line for line in lines[:-1])
    changes = json.loads(distrun("bench-comm", "compare", fast, now, "--json").stdout)
    assert [(c["op"], c["nbytes"], c["place"]) for c in changes] == ROWS
    assert all(c["regressed"] and c["ratio"] == pytest.approx(2) for c in changes)
    back = distrun("bench-comm", "compare", now, fast)
    assert (back.returncode, back.stdout.count("faster: ")) == (0, len(ROWS))
    assert distrun("bench-comm", "compare", fast, now, "--tolerance", "1.1").returncode == 0


def test_a_report_compared_with_itself_has_not_moved(distrun: Run, measured: Measured) -> None:
    path = measured.directory / "r.json"
    result = distrun("bench-comm", "compare", path, path)
    noisy = sum(row.noisy for row in measured.report.rows)
    rest = f", {noisy} too noisy to be judged" if noisy else ""
    assert result.stdout == f"{len(ROWS) - noisy} rows as before{rest}\n"
    assert result.returncode == 0


def test_a_dry_run_prints_a_torchrun_line_for_each_node_and_starts_nothing(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun("bench-comm", "--nodes", 2, *TWO, *ASKED, "-o", "r.json", "--dry-run")
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if not line.startswith("#")]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line)
        assert "torchrun" in words
        assert any(word.endswith("distrun/bench/program.py") for word in words)
        assert json.loads(words[-1])["sizes"] == [64, 2048, 65536]
    assert not list(tmp_path.iterdir())


class Wrong(NamedTuple):
    """A command line that cannot be done, and what is said of it."""

    words: str
    said: str
    hint: str = ""


WRONG = {
    "begin above end": Wrong("-b 1M -e 8", "-b 1M is above -e 8", "-b 8 -e 1M"),
    "factor": Wrong("-f 1", "-f 1 must be above 1", "-f 2"),
    "endless factor": Wrong("-f inf", "-f inf", ""),
    "size of no element": Wrong("-b 3", "size 3 holds no element of float32", "-b 4"),
    "no size": Wrong("--sizes 64,soon", "'soon' is not a size", "for example 8, 64K"),
    "op": Wrong(
        "--op allreduce", "--op 'allreduce' cannot be measured", "did you mean 'all_reduce'?"
    ),
    "dtype": Wrong("--dtype flaot32", "--dtype 'flaot32' cannot be", "did you mean 'float32'?"),
    "float8": Wrong("--dtype float8_e4m3fn", "float8_e4m3fn: gloo has no 8-bit", "--dtype uint8"),
    "mean of int32": Wrong("--redop mean --dtype int32", "--redop mean of int32", "--redop sum"),
    "iterations": Wrong("-n 0", "-n 0", ""),
    "endless budget": Wrong("--budget inf", "--budget inf", ""),
    "root": Wrong("--root 2", "--root 2 is not one of the ranks 0 to 1", ""),
    "root below 0": Wrong("--root -1", "--root -1 is not one of the ranks 0 to 1", ""),
    "one rank": Wrong("--nproc-per-node 1", "bench-comm has one rank", "--nproc-per-node 2"),
    "place": Wrong(
        "--place inside", "--place 'inside' is not one of out, in, both", "for example --place"
    ),
    "mode": Wrong("--mode fast", "--mode 'fast'", ""),
    "format": Wrong(
        "--format xml", "--format 'xml' is not one of table, nccl-tests", "for example"
    ),
    "JSON is a flag": Wrong("--format json", "--format 'json' is not one of table", "--json"),
    "two formats": Wrong("--format csv --json", "--json and --format csv exclude each other"),
    "an ending": Wrong(
        "-o r.xml",
        "-o r.xml: the ending names the format, and '.xml' is not one of"
        " .json, .csv, .md, .txt, .svg, .png, .pdf",
        "-o r.json",
    ),
    "broken baseline": Wrong("--baseline broken.json", "broken.json is not a report", "distrun be"),
    "missing baseline": Wrong("--baseline none.json", "none.json cannot be read: No such", ""),
    "tolerance": Wrong("--tolerance -1", "--tolerance -1 is not from 0 to 100", "0.1 is 10 %"),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_in_one_sentence_and_nothing_is_left(
    distrun: Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / "broken.json").write_text('{"schema": 1, "rows": [')
    refused_as(distrun("bench-comm", *TWO, *WRONG[name].words.split()), WRONG[name])
    assert [path.name for path in tmp_path.iterdir()] == ["broken.json"]


def refused_as(result: subprocess.CompletedProcess[str], wrong: Wrong) -> None:
    assert result.returncode == 2, result.stderr
    said, *hints = result.stderr.splitlines()
    assert said.startswith("distrun: error: ")
    assert wrong.said in said
    assert len(hints) == 1, f"no hint, or more than one, with {said!r}"
    assert hints[0].startswith(f"distrun: hint: {wrong.hint}")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


class Going:
    """A long benchmark on which the test acts once its first row is there."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.cwd = cwd
        words = "-b 8 -e 1M --place out -n 1000 --budget 60 --no-check -o r.json"
        self.process = subprocess.Popen(
            [*command, "bench-comm", *TWO, *words.split()],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(self.has_a_row, 40, "the first row")

    def has_a_row(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        return any(b'"bench": "row"' in log.read_bytes() for log in self.logs())

    def logs(self) -> list[Path]:
        return list(self.cwd.glob("runs/*/logs/node0/rank0.log"))

    def pid_of(self, rank: int) -> int:
        lines = (only_run(self.cwd) / "events.jsonl").read_text().splitlines()
        events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        started = (e for e in events if e["event"] == "rank_started" and e["rank"] == rank)
        return int(next(started)["pid"])

    def end(self) -> tuple[int, str, str]:
        out, errors = self.process.communicate(timeout=40)
        return self.process.returncode, out, errors

    def holds_what_was_done(self, out: str) -> None:
        """Assert that the rows that were done are on the screen and in the file, and no more."""
        report = read_report(self.cwd / "r.json")
        assert not report.complete
        assert 1 <= len(report.rows) < 18
        assert all(row.iterations == len(row.times_s) for row in report.rows)
        shown = [line for line in out.splitlines() if re.match(r"all_reduce +\d", line)]
        assert len(shown) == len(report.rows)
        assert f"incomplete: {len(report.rows)} rows were done" in out


def test_a_rank_killed_in_mid_run_is_named_and_the_finished_rows_are_kept(
    command: list[str], tmp_path: Path
) -> None:
    going = Going(command, tmp_path)
    os.kill(going.pid_of(1), signal.SIGKILL)
    code, out, errors = going.end()
    assert code == 137, errors
    assert "rank 1 on node0 failed first: killed by SIGKILL" in errors
    assert "Traceback" not in out + errors
    going.holds_what_was_done(out)


def test_ctrl_c_keeps_and_prints_what_is_measured(command: list[str], tmp_path: Path) -> None:
    going = Going(command, tmp_path)
    going.process.send_signal(signal.SIGINT)
    code, out, errors = going.end()
    assert code == 130, errors
    assert "Traceback" not in out + errors
    going.holds_what_was_done(out)
