"""Slurm's commands are run, and run again: programs that play them with recorded words.

tests/cluster/test_batch_jobs.py asks a real Slurm.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distrun.errors import MachineError, UsageError
from distrun.schedulers.slurm_commands import (
    JobStatus,
    cancel,
    checked_job_id,
    end_launcher,
    status,
    submit,
)

SHOWN = (Path(__file__).parents[2] / "golden" / "slurm" / "failed_7.txt").read_text()
FAILED_7 = JobStatus("FAILED", "NonZeroExitCode", 1795909272.0, "n1", 7)
NO_CONTACT = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
TIMED_OUT = "slurm_load_jobs error: Socket timed out on send/recv operation"
ZERO_BYTES = "slurm_load_jobs error: Zero Bytes were transmitted or received"
INVALID = "slurm_load_jobs error: Invalid job id specified"
PLAYS = """#!{python} -IS
import json, os, sys
directory = {directory!r}
name = os.path.basename(sys.argv[0])
with open(f"{{directory}}/calls", "a") as calls:
    given = {{k: v for k, v in os.environ.items() if k.startswith(("SBATCH_", "SLURM_"))}}
    print(json.dumps([name, *sys.argv[1:]]), json.dumps(given), sep="\\t", file=calls)
with open(f"{{directory}}/stdin", "wb") as stdin:
    stdin.write(sys.stdin.buffer.read())
answers = json.load(open(f"{{directory}}/{{name}}.json"))
code, out, said = answers.pop(0)
if answers:
    json.dump(answers, open(f"{{directory}}/{{name}}.json", "w"))
sys.stdout.buffer.write(out.encode("utf-8", "surrogateescape"))
sys.stderr.write(said)
sys.exit(code)
"""
Answer = tuple[int, str, str]
Plays = Callable[..., None]


@pytest.fixture
def plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plays:
    """Put a program on the PATH that gives these answers in turn, the last one again and again."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def program(name: str, *answers: Answer) -> None:
        (tmp_path / f"{name}.json").write_text(json.dumps(answers))
        file = tmp_path / name
        file.write_text(PLAYS.format(python=sys.executable, directory=str(tmp_path)))
        file.chmod(0o755)

    return program


def calls(tmp_path: Path) -> list[list[str]]:
    """Return the command lines that ran."""
    file = tmp_path / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line.partition("\t")[0]) for line in lines]


# --- job ids ------------------------------------------------------------------------


@pytest.mark.parametrize("job_id", ["1", "123", "67108863", "4294967294"])
def test_a_job_id_is_digits(job_id: str) -> None:
    assert checked_job_id(job_id) == job_id


HOSTILE_IDS = [
    *("", "0", "007", "-1", "+1", " 1", "1 ", "1\n", "1 2", "1;2", "$(reboot)", "--me", "1,2"),
    *("all", "１２", "²", "12345678901", "1e3", "0x1", "a" * 500, "1\x00", "\udcff"),
]


@pytest.mark.parametrize("ask", [status, cancel, end_launcher])
@pytest.mark.parametrize("job_id", HOSTILE_IDS)
def test_what_is_no_job_id_is_refused_before_anything_runs(
    plays: Plays, tmp_path: Path, ask: Callable[[str], object], job_id: str
) -> None:
    for name in ("scontrol", "scancel", "sacct", "squeue"):
        plays(name, (0, "", ""))
    with pytest.raises(UsageError, match="is not the id of a Slurm job"):
        ask(job_id)
    assert calls(tmp_path) == []


@pytest.mark.parametrize(
    ("job_id", "what"),
    [
        ("123_4", "a task of a job array"),
        ("123_[0-9]", "a task of a job array"),
        ("123.0", "a step"),
        ("123.batch", "a step"),
        ("123+1", "a part of a heterogeneous job"),
    ],
)
def test_a_part_of_a_job_is_answered_with_the_whole(job_id: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        checked_job_id(job_id)
    assert "the id of the job is 123" in caught.value.hint


# --- submitting ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "out", ["123\n", "123", "123;cluster\n", "Welcome to the cluster\n123\n", "12 jobs\n123\n"]
)
def test_a_job_is_submitted_and_its_id_read(plays: Plays, tmp_path: Path, out: str) -> None:
    plays("sbatch", (0, out, "sbatch: 3 GPU hours are left\n"))
    script = "#!/bin/bash\nexec true 漢 \udcff\n"
    assert submit(script) == "123"
    assert calls(tmp_path) == [["sbatch", "--parsable"]]
    assert (tmp_path / "stdin").read_bytes() == script.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("said", "words", "cure"),
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
            "invalid partition specified: nope; Batch job submission failed: Invalid partition",
            "sinfo -s",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition"
            " combination specified\n",
            "Invalid account",
            "--partition",
        ),
        (
            "sbatch: error: Memory specification can not be satisfied\n"
            "sbatch: error: Batch job submission failed: Requested node configuration is not"
            " available\n",
            "Memory specification can not be satisfied",
            "--sbatch mem",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid generic resource (gres)"
            " specification\n",
            "Invalid generic resource",
            "sinfo -o '%N %G'",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid feature specification\n",
            "Invalid feature",
            "--constraint",
        ),
        (
            "sbatch: error: Batch job submission failed: Node count specification invalid\n",
            "Node count",
            "--nodes",
        ),
        (
            "sbatch: unrecognized option '--nosuch=1'\n"
            'Try "sbatch --help" for more information\n',
            "unrecognized option '--nosuch=1'",
            "man sbatch",
        ),
        (
            "sbatch: option '--contiguous' doesn't allow an argument\n",
            "'--contiguous' doesn't allow an argument",
            "man sbatch",
        ),
        ("sbatch: error: \x1b[31mno\x07\r\n", "Slurm refuses the job:  [31mno", ""),
        ("", "no words, exit code 1", ""),
    ],
)
def test_slurm_refuses_in_its_own_words(plays: Plays, said: str, words: str, cure: str) -> None:
    plays("sbatch", (1, "", said))
    with pytest.raises(MachineError) as caught:
        submit("#!/bin/bash\n")
    assert words in caught.value.message and caught.value.message.isprintable()
    assert "sbatch: " not in caught.value.message
    assert cure in caught.value.hint


def test_a_job_is_submitted_once_the_controller_is_reached(plays: Plays, tmp_path: Path) -> None:
    failure = "sbatch: error: Batch job submission failed: Unable to contact slurm controller"
    plays("sbatch", (1, "", f"{failure} (connect failure)\n"), (0, "7\n", ""))
    assert submit("#!/bin/bash\n") == "7"
    assert len(calls(tmp_path)) == 2


def test_a_job_that_may_exist_is_not_submitted_twice(plays: Plays, tmp_path: Path) -> None:
    failed = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    plays("sbatch", (1, "", failed), (0, "7\n", ""))
    with pytest.raises(MachineError, match="Socket timed out") as caught:
        submit("#!/bin/bash\n")
    assert "whether the job was submitted" in caught.value.hint
    assert len(calls(tmp_path)) == 1


def test_an_answer_without_an_id_is_an_error(plays: Plays) -> None:
    plays("sbatch", (0, "queued!\n", ""))
    with pytest.raises(MachineError, match="no job id but 'queued!"):
        submit("#!/bin/bash\n")


def test_variables_of_sbatch_do_not_override_the_script(
    plays: Plays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PARTITION", "TIMELIMIT", "REQUEUE", "MEM_PER_CPU", "QOS", "RESERVATION"):
        monkeypatch.setenv(f"SBATCH_{name}", "theirs")
    plays("sbatch", (0, "7\n", ""))
    lines = ("--partition=p", "--time=01:00:00", "--no-requeue", "--mem=0")
    submit("#!/bin/bash\n" + "".join(f"#SBATCH {line}\n" for line in lines))
    given = json.loads((tmp_path / "calls").read_text().partition("\t")[2])
    assert {name for name in given if name.startswith("SBATCH_")} == {
        "SBATCH_QOS",
        "SBATCH_RESERVATION",
    }


@pytest.mark.parametrize("ask", [lambda: submit(""), lambda: status("1"), lambda: cancel("1")])
def test_a_machine_without_slurm_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ask: Callable[[], object]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"needs s(batch|control|cancel): No such file"):
        ask()


# --- asking and cancelling -----------------------------------------------------------


def test_a_job_is_asked_for_with_times_that_no_summer_time_changes(
    plays: Plays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    plays("scontrol", (0, SHOWN, ""))
    assert status("74") == FAILED_7
    assert calls(tmp_path) == [["scontrol", "show", "job", "74"]]
    assert '"SLURM_TIME_FORMAT": "%s"' in (tmp_path / "calls").read_text()


@pytest.mark.parametrize("busy", [NO_CONTACT, TIMED_OUT, ZERO_BYTES])
def test_a_busy_controller_is_asked_again(plays: Plays, tmp_path: Path, busy: str) -> None:
    plays("scontrol", (1, "", busy), (1, "", busy), (0, SHOWN, ""))
    assert status("74") == FAILED_7
    assert len(calls(tmp_path)) == 3


def test_a_controller_that_does_not_answer_is_an_error_in_its_words(plays: Plays) -> None:
    plays("scontrol", (1, "", TIMED_OUT))
    began = time.monotonic()
    with pytest.raises(MachineError, match="Socket timed out on send/recv") as caught:
        status("74", patience_s=1.0)
    assert "scontrol ping" in caught.value.hint
    assert 1.0 <= time.monotonic() - began < 20


def test_a_job_that_the_controller_has_forgotten_is_in_the_accounting(
    plays: Plays, tmp_path: Path
) -> None:
    plays("scontrol", (1, "", INVALID))
    plays("sacct", (0, "TIMEOUT|0:15|1795908808|n[1-2]\n", ""))
    assert status("74") == JobStatus("TIMEOUT", "", 1795908808.0, "n[1-2]", 143)
    assert "--jobs=74" in calls(tmp_path)[1]


@pytest.mark.parametrize(
    "answer", [(1, "", "Slurm accounting storage is disabled\n"), (0, "", ""), None]
)
def test_a_job_that_nobody_knows_is_none(plays: Plays, answer: Answer | None) -> None:
    plays("scontrol", (1, "", INVALID))
    if answer is not None:
        plays("sacct", answer)
    assert status("99999") is None


def test_another_refusal_is_an_error_and_not_asked_again(plays: Plays, tmp_path: Path) -> None:
    denied = "slurm_load_jobs error: Access/permission denied"
    plays("scontrol", (1, "", denied))
    with pytest.raises(MachineError, match="Access/permission denied"):
        status("74")
    assert len(calls(tmp_path)) == 1


@pytest.mark.parametrize("why", ["Job/step already completing or completed", "Invalid job id"])
def test_a_job_that_has_ended_is_cancelled_without_an_error(plays: Plays, why: str) -> None:
    plays("scancel", (1, "", f"scancel: error: Kill job error on job id 7: {why}\n"))
    cancel("7")


def test_a_job_is_cancelled(plays: Plays, tmp_path: Path) -> None:
    plays("scancel", (0, "", ""))
    cancel("7")
    assert calls(tmp_path) == [["scancel", "--quiet", "7"]]


def test_the_job_of_another_user_is_not_cancelled_in_silence(plays: Plays) -> None:
    said = "scancel: error: Kill job error on job id 7: Access/permission denied\n"
    plays("scancel", (1, "", said))
    with pytest.raises(MachineError, match="Access/permission denied"):
        cancel("7")


def test_only_the_launcher_of_a_running_job_is_asked_to_end(plays: Plays, tmp_path: Path) -> None:
    running = SHOWN.replace("JobState=FAILED", "JobState=RUNNING")
    plays("scontrol", (0, running, ""), (0, SHOWN, ""), (1, "", INVALID))
    plays("scancel", (0, "", ""))
    assert [end_launcher("74") for _ in range(3)] == [True, False, False]
    signals = [call for call in calls(tmp_path) if call[0] == "scancel"]
    assert signals == [["scancel", "--batch", "--signal=TERM", "74"]]
