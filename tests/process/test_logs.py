"""What ranks print: whole in their files, readable on the console, never in the way."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SCENARIOS, only_run, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
PRINTS = SCENARIOS / "prints.py"


def log_of(directory: Path, rank: int, node: int = 0) -> bytes:
    return (only_run(directory) / "logs" / f"node{node}" / f"rank{rank}.log").read_bytes()


def test_every_line_of_every_rank_comes_with_its_prefix(distrun: Run) -> None:
    result = distrun("launch", "--nodes", 2, "--nproc-per-node", 2, PRINTS, "hello")
    for shown, stream in ((result.stdout, "stdout"), (result.stderr, "stderr")):
        lines = [line for line in shown.splitlines() if not line.startswith("distrun: ")]
        assert sorted(lines) == [f"[{r // 2}·{r}] {stream} of rank {r}" for r in range(4)]


def test_the_file_has_both_streams_in_order_and_the_console_each_by_itself(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun("launch", "--nodes", 2, "--nproc-per-node", 1, PRINTS, "alternate")
    for rank in (0, 1):
        lines = log_of(tmp_path, rank, rank).decode().splitlines()
        assert [line.split(" ")[0] for line in lines] == [str(number) for number in range(40)]
        for shown, stream in ((result.stdout, "stdout"), (result.stderr, "stderr")):
            own = [f"[{rank}·{rank}] {line}" for line in lines if line.endswith(stream)]
            assert len(own) > 9
            assert [line for line in shown.splitlines() if line.startswith(f"[{rank}·")] == own


def test_equal_lines_are_folded_where_that_is_asked_for(distrun: Run, tmp_path: Path) -> None:
    result = distrun("launch", "--fold", "--nodes", 2, "--nproc-per-node", 2, PRINTS, "equal")
    lines = result.stdout.splitlines()
    folded = [line for line in lines if line.endswith("loading the data")]
    assert sum(_number_of_ranks(line) for line in folded) == 4
    assert {f"[{r // 2}·{r}] rank {r} has its own" for r in range(4)} <= set(lines)
    assert len(lines) == 4 + len(folded)
    warned = [line for line in result.stderr.splitlines() if line.endswith("a warning for all")]
    assert sum(_number_of_ranks(line) for line in warned) == 4
    assert log_of(tmp_path, 3, 1) == b"loading the data\nrank 3 has its own\na warning for all\n"


def _number_of_ranks(line: str) -> int:
    named = re.match(r"\[(?:\d+·\d+|ranks ([\d,-]+))\] ", line)
    assert named, line
    parts = [part.split("-") for part in (named[1] or "0").split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in parts)


def test_progress_bars_of_four_ranks_never_share_a_line(distrun: Run, tmp_path: Path) -> None:
    result = distrun("launch", "--nproc-per-node", 4, PRINTS, "bars")
    for line in result.stdout.splitlines():
        assert re.fullmatch(r"\[0·(\d)\] (rank \1: +\d+%\|[#-]*\||done \1)", line), line
    for rank in range(4):
        assert f"[0·{rank}] rank {rank}: 100%|##########|" in result.stdout
        assert log_of(tmp_path, rank).count(b"\r") == 11, "the file keeps the bar as it was"


def test_partial_lines_of_two_ranks_stay_apart(distrun: Run) -> None:
    result = distrun("launch", "--nproc-per-node", 2, PRINTS, "partial")
    lines = result.stdout.splitlines()
    for rank in range(2):
        mine = [line.removeprefix(f"[0·{rank}] ") for line in lines if f"[0·{rank}]" in line]
        assert "".join(mine) == f"begun by {rank}, ended by {rank}last words without an end {rank}"


def test_invalid_utf_8_is_whole_in_the_file_and_replaced_on_the_console(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun("launch", "--nproc-per-node", 1, PRINTS, "invalid_utf8")
    assert "caf\N{REPLACEMENT CHARACTER} \N{SNOWMAN}" in result.stdout
    assert log_of(tmp_path, 0).startswith(b"caf\xe9 \xe2\x98\x83\n")


def test_output_of_c_and_of_subprocesses_is_caught(distrun: Run, tmp_path: Path) -> None:
    distrun("launch", "--nproc-per-node", 1, PRINTS, "from_c")
    assert sorted(log_of(tmp_path, 0).splitlines()) == [b"from a shell", b"from libc", b"raw"]


def test_the_last_words_of_a_dying_rank_are_not_lost(distrun: Run, tmp_path: Path) -> None:
    distrun("launch", "--nproc-per-node", 1, PRINTS, "die_talking")
    assert log_of(tmp_path, 0).endswith(b"line 19999\nlast words")


def test_100_mb_of_spam_arrive_whole_in_bounded_memory(distrun: Run, tmp_path: Path) -> None:
    with open(tmp_path / "console", "wb") as console:
        distrun(
            *("launch", "--nproc-per-node", 2, PRINTS, "spam"),
            capture_output=False,
            stdout=console,
            stderr=subprocess.DEVNULL,
            text=False,
        )
    for rank in (0, 1):
        log = log_of(tmp_path, rank)
        assert len(log) == 50_000_000
        assert log.count(b"x" * 99 + b"\n") == 500_000
    lines = (tmp_path / "console").read_bytes().splitlines()
    assert len(lines) == 1_000_000
    assert all(len(line) == len("[0·0] ".encode()) + 99 for line in lines)
    usage = (tmp_path / "supervisor_peak_kib").read_text()
    assert int(usage) < 40 * 1024


def test_only_rank_shows_these_ranks_and_the_files_keep_all(distrun: Run, tmp_path: Path) -> None:
    result = distrun("launch", "--nproc-per-node", 3, "--only-rank", "0,2", PRINTS, "hello")
    assert {line[:6] for line in result.stdout.splitlines()} == {"[0·0] ", "[0·2] "}
    assert "rank 1" not in result.stderr
    assert b"stdout of rank 1" in log_of(tmp_path, 1)


def test_quiet_says_nothing_about_a_success_and_the_verdict_of_a_failure(distrun: Run) -> None:
    good = distrun("launch", "--quiet", "--nproc-per-node", 1, PRINTS, "hello")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    bad = distrun("launch", "--quiet", "--nproc-per-node", 1, PRINTS, "die_talking")
    assert bad.returncode == 9
    assert bad.stdout == ""
    assert "rank 0 on node0 failed first: exited with 9" in bad.stderr


def test_json_gives_one_object_a_line_with_output_and_ending(distrun: Run) -> None:
    result = distrun("launch", "--json", "--nproc-per-node", 2, PRINTS, "hello")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    output = [e for e in events if e["event"] == "output"]
    assert {(e["node"], e["rank"], e["stream"], e["line"]) for e in output} == {
        (0, rank, stream, f"{stream} of rank {rank}")
        for rank in (0, 1)
        for stream in ("stderr", "stdout")
    }
    started, ended = (
        next(e["time"] for e in events if e["event"] == name) for name in ("rank_started", "ended")
    )
    assert all(started - 0.1 <= e["time"] <= ended + 0.1 for e in output)
    names = [e["event"] for e in events]
    ended = next(e for e in events if e["event"] == "ended")
    assert (ended["outcome"], ended["exit_code"]) == ("succeeded", 0)
    assert {"attempt_started", "node_joined", "world_started", "rank_ended"} <= set(names)


def test_a_console_that_is_closed_leaves_run_and_files_whole(
    command: list[str], tmp_path: Path
) -> None:
    words = [*command, "launch", "--nproc-per-node", "1", str(PRINTS), "slowly"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    (tmp_path / "go").touch()
    assert process.wait(timeout=40) == 0
    process.stderr.close()
    assert log_of(tmp_path, 0) == b"".join(b"line %d\n" % i for i in range(20_000))


def test_a_console_that_does_not_read_does_not_slow_the_ranks(
    command: list[str], tmp_path: Path
) -> None:
    words = [*command, "launch", "--nproc-per-node", "1", str(PRINTS), "slowly"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    (tmp_path / "go").touch()
    wait_until((tmp_path / "printed").exists, 40, "the rank's end while nobody reads")
    output, _ = process.communicate(timeout=40)
    assert output.count(b"\n") == 20_000


def test_logs_rotate_at_the_given_size(distrun: Run, tmp_path: Path) -> None:
    distrun("launch", "--log-max-mib", 1, "--nproc-per-node", 1, PRINTS, "rotate")
    directory = only_run(tmp_path) / "logs" / "node0"
    sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
    parts = {"rank0.log", "rank0.log.1", "rank0.streams", "rank0.streams.1"}
    assert set(sizes) == parts
    assert all(size <= (1 << 20) + 100 for size in sizes.values()), "a line is whole"
    whole = (directory / "rank0.log.1").read_text() + (directory / "rank0.log").read_text()
    assert distrun("logs").stdout == whole
    assert distrun("logs", "-f").stdout == whole


def test_fast_output_over_rotation_ends_well_and_says_what_it_skips(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun("launch", "--log-max-mib", 1, "--nproc-per-node", 1, PRINTS, "spam")
    assert result.returncode == 0, result.stderr
    lines = set(result.stdout.splitlines())
    assert lines <= {"x" * 99} or any(len(line) < 99 for line in lines)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(command: list[str], tmp_path: Path, closed: str) -> None:
    words = [*command, "launch", "--nproc-per-node", "1", str(PRINTS), "hello"]
    script = f"exec {shlex.join(words)} {closed}"
    assert subprocess.run(script, shell=True, cwd=tmp_path, timeout=60).returncode == 0
    assert b"stdout of rank 0" in log_of(tmp_path, 0)


def test_a_run_directory_that_is_removed_meanwhile_does_not_fail_the_run(
    command: list[str], tmp_path: Path
) -> None:
    words = [*command, "launch", "--nproc-per-node", "1", str(PRINTS), "slowly"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline()
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a full disk needs root")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a tmpfs")
def test_a_full_log_disk_is_told_and_does_not_stop_training(distrun: Run, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip("this container may not mount a tmpfs")
    try:
        result = distrun("launch", "--runs-dir", disk, "--nproc-per-node", 2, PRINTS, "fill")
        (record,) = json.loads(distrun("ps", "--json", "--runs-dir", disk).stdout)
        again = distrun("launch", "--runs-dir", disk, "--nproc-per-node", 1, PRINTS, "fill")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert result.returncode == 0, result.stderr
    assert "cannot be written: No space left on device; the run goes on" in result.stderr
    assert (tmp_path / "trained0").exists() and (tmp_path / "trained1").exists()
    assert (record["outcome"], record["exit_code"]) == ("succeeded", 0)
    assert again.returncode == 3
    assert re.search(rf"error: {disk}/[^:]*: No space left on device", again.stderr), again.stderr


def test_following_logs_ends_when_nobody_reads_them(
    distrun: Run, command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "speak.py").write_text("import time\nwhile True: print('a'); time.sleep(0.05)\n")
    distrun("launch", "--detach", "--nproc-per-node", 1, "speak.py")
    words = [*command, "logs", "-f"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"a\n"
        child.stdout.close()
        assert child.wait(60) == 141
    assert distrun("stop").returncode == 0


def read_terminal(words: list[str], cwd: Path, environ: dict[str, str]) -> str:
    """Run a command on a terminal of 100 columns and return all that it wrote there."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvpe(words[0], words, environ)
    written = b""
    while True:
        if not select.select([fd], [], [], 60)[0]:
            pytest.fail(f"the terminal fell silent after {written!r}")
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        written += data
    os.close(fd)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, written
    return written.decode()


def test_a_terminal_gets_colours_and_a_live_status_line(command: list[str], tmp_path: Path) -> None:
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environ.pop("NO_COLOR", None)
    words = [*command, "launch", "--nproc-per-node", "2", str(PRINTS), "train"]
    written = read_terminal(words, tmp_path, environ)
    assert "\x1b[36m[0·0]\x1b[0m step 30" in written
    status = [part for part in written.split("\r\x1b[2K") if " · ranks 2/2" in part]
    assert any(
        re.match(r"\d:\d\d · .*ranks 2/2 · step \d+/30 · loss 0\.\d+ · .*ETA 0:0\d", s)
        for s in status
    ), status
    assert "done in" in written.splitlines()[-1], "the status line is gone at the end"


def test_a_terminal_passes_stdin_on_to_a_world_of_one(command: list[str], tmp_path: Path) -> None:
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        words = [*command, "launch", "--nproc-per-node", "1", str(PRINTS), "ask"]
        os.execvp(words[0], words)
    written = b""
    while b"your name?" not in written:
        written += os.read(fd, 65536)
    os.write(fd, b"Ada\n")
    while b"hello Ada" not in written:
        written += os.read(fd, 65536)
    try:
        while os.read(fd, 65536):
            pass
    except OSError:
        pass  # the other end is closed
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
