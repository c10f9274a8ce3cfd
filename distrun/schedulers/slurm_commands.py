"""Slurm's commands, run and read: sbatch, scontrol, sacct and scancel.

A controller that is busy or restarting is asked again for a while. A job id is checked before
any command runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distrun.errors import MachineError, UsageError

_COMMAND_LIMIT_S = 60.0
"""scontrol itself waits 18 s for a controller that is down, and longer for a busy one (tried)."""
_PATIENCE_S = 60.0
_REQUEUE_PATIENCE_S = 15.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 8.0
_BUSY = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection (refused|timed out|reset)"
    r"|Zero Bytes were transmitted|Resource temporarily unavailable|standby mode"
    r"|temporarily unable|Unexpected message received|did not answer",
    re.IGNORECASE,
)
_NOT_SENT = re.compile(r"connect failure|Connection refused|standby mode", re.IGNORECASE)
"""Of these sbatch has submitted nothing; of other errors of the network nobody knows."""
_YEAR_2100_S = 4102444800
"""Slurm 22.05 estimates the year 4068 for a job whose nodes are drained (tried)."""
_STATE = r"^   JobState=(\S+) Reason=(.*?)(?: FailedNode=\S*)? Dependency="
_NO_NODES = ("(null)", "None assigned", "None")
_VARIABLES = {
    "time": "TIMELIMIT",
    "mem": "MEM_PER_NODE",
    "clusters": "CLUSTERS",
}
_CURES = (
    ("partition", "`sinfo -s` lists the partitions; --partition names one"),
    ("account", "`sacctmgr show assoc user=$USER` lists your accounts; --account names one"),
    ("qos", "`sacctmgr show qos` lists them; --qos names one"),
    ("time limit", "`sinfo -o '%P %l'` lists the limits of the partitions; --time"),
    ("feature", "`sinfo -o '%N %f'` lists the nodes' features; --constraint"),
    ("gres", "`sinfo -o '%N %G'` lists the nodes' GPUs"),
    ("memory", "`sinfo -o '%N %m'` lists the nodes' memory in MB; --sbatch mem=…"),
    ("node co", "`sinfo -o '%P %D %c %m %G'` lists nodes, cores, memory and GPUs; --nodes"),
    ("option '", "`man sbatch` lists the options that --sbatch takes"),
)
"""Words in an error of sbatch -> what helps."""


@dataclass(frozen=True)
class JobStatus:
    """What Slurm says of a job."""

    state: str
    """In Slurm's words: PENDING, RUNNING, …; see `slurm_states`."""
    reason: str = ""
    """Why it waits, or why it ended; "": Slurm gives none."""
    start_estimate: float | None = None
    """When it started, or, while it waits, will start at the latest by Slurm's estimate; seconds
    since the epoch. None: unknown."""
    nodes: str = ""
    """As Slurm writes a list: `n[1-2]`; "": none yet."""
    exit_code: int = 0
    """128+n after signal n; 0 while it runs."""
    restarts: int = 0
    """How often Slurm has put it back in the queue."""
    preempted: bool = False
    """Slurm is stopping it in favour of another job."""


class PerhapsSubmitted(MachineError):
    """Nobody knows whether Slurm has taken a job."""


@dataclass(frozen=True)
class _Answer:
    code: int
    out: str
    said: str
    """Its stderr, without `sbatch: error: ` before the lines."""


def checked_job_id(text: str) -> str:
    """Return a job id if it is one: digits alone.

    Raises:
        UsageError: It is not, or it names a part of a job.
    """
    if re.fullmatch(r"[1-9][0-9]{0,9}", text):
        return text
    if part := re.fullmatch(r"([1-9][0-9]{0,9})([_.+])\S*", text):
        what = {"_": "a task of a job array", ".": "a step", "+": "a part of a heterogeneous job"}
        raise UsageError(
            f"Slurm job {text!r} is {what[part[2]]}; a run is a whole job",
            f"the id of the job is {part[1]}; `scontrol show job {part[1]}` shows all of it",
        )
    raise UsageError(f"{text[:80]!r} is not the id of a Slurm job", "`squeue --me` lists yours")


def submit(
    script: str, patience_s: float = _PATIENCE_S, environ: Mapping[str, str] = os.environ
) -> str:
    """Submit a script, and return the job's id.

    What the script says is used even if a variable SBATCH_… says otherwise; sbatch would use the
    variable.

    Args:
        script: Its text.
        patience_s: How long a controller that cannot be reached is asked again. If the connection
            fails later, the script is not submitted again: the job may exist.
        environ: The environment of the job, if the script asks for all of it.

    Raises:
        MachineError: Slurm refuses the script, in its own words, or there is no Slurm here.
        PerhapsSubmitted: The connection failed after the script was sent.
    """
    answer = _until_answered(
        ["sbatch", "--parsable"], patience_s, _NOT_SENT, script, _without_overrides(script, environ)
    )
    ids = re.findall(r"^([1-9][0-9]*)(?:;\S*)?$", answer.out, re.MULTILINE)
    if answer.code == 0 and ids:
        return str(ids[-1])
    if answer.code == 0:
        raise PerhapsSubmitted(
            f"sbatch printed no job id but {answer.out[:200]!r}",
            "`squeue --me` shows whether the job was submitted",
        )
    lost = _BUSY.search(answer.said) and not _NOT_SENT.search(answer.said)
    kind = PerhapsSubmitted if lost else MachineError
    raise kind(f"Slurm refuses the job: {_words(answer)}", _cure(answer.said))


def status(job_id: str, patience_s: float = _PATIENCE_S) -> JobStatus | None:
    """Return what Slurm says of a job; None if it does not know the job (any more).

    The controller forgets a job some minutes after its end (MinJobAge); then the accounting
    database is asked, where there is one.

    Raises:
        UsageError: It is not the id of a job, or the job is an array.
        MachineError: The controller does not answer, or there is no Slurm here.
    """
    words = ["scontrol", "show", "job", checked_job_id(job_id)]
    answer = _until_answered(words, patience_s)
    if answer.code == 0:
        return read_job(answer.out, job_id)
    if "Invalid job id" in answer.said:
        return _from_accounting(job_id, patience_s)
    raise _no_answer(words, answer)


def cancel(job_id: str, patience_s: float = _PATIENCE_S) -> None:
    """Cancel a job, or take it out of the queue. Slurm answers the same for one that has ended.

    All processes of a running job get SIGCONT and SIGTERM, and after Slurm's KillWait SIGKILL.

    Raises:
        UsageError: It is not the id of a job.
        MachineError: Slurm refuses it, or does not answer, or there is no Slurm here.
    """
    words = ["scancel", "--quiet", checked_job_id(job_id)]
    answer = _until_answered(words, patience_s)
    if answer.code and not re.search(r"already complet|Invalid job id", answer.said):
        raise _no_answer(words, answer)


def end_launcher(job_id: str, patience_s: float = _PATIENCE_S) -> bool:
    """Send SIGTERM to the launcher of a running job alone, so that it can end its ranks in order.

    For a job that waits, scancel would try for 90 s (tried); so its state is asked first.

    Returns:
        Whether Slurm has taken the order; a job that does not run has no launcher.

    Raises:
        UsageError: It is not the id of a job.
        MachineError: The controller does not answer, or there is no Slurm here.
    """
    found = status(job_id, patience_s)
    if found is None or found.state != "RUNNING":
        return False
    words = ["scancel", "--batch", "--signal=TERM", job_id]
    answer = _until_answered(words, patience_s)
    if answer.code and _BUSY.search(answer.said):
        raise _no_answer(words, answer)
    return answer.code == 0


def requeue(job_id: str) -> None:
    """Put the job around this process back in the queue: Slurm ends it, and starts it again.

    Raises:
        UsageError: It is not the id of a job.
        MachineError: Slurm refuses it, or does not answer, or scontrol is missing here.
    """
    words = ["scontrol", "requeue", checked_job_id(job_id)]
    answer = _until_answered(words, _REQUEUE_PATIENCE_S)
    if answer.code:
        raise _no_answer(words, answer)


def exclude(job_id: str, hosts: Sequence[str]) -> None:
    """Keep a job that waits in the queue from some nodes.

    Raises:
        UsageError: It is not the id of a job.
        MachineError: Slurm refuses it, or does not answer, or scontrol is missing here.
    """
    update = [f"JobId={checked_job_id(job_id)}", f"ExcNodeList={','.join(hosts)}"]
    words = ["scontrol", "update", *update]
    answer = _until_answered(words, _REQUEUE_PATIENCE_S)
    if answer.code:
        raise _no_answer(words, answer)


def queue() -> dict[str, JobStatus]:
    """Return this user's jobs that wait, run, or have ended some minutes ago.

    Raises:
        MachineError: The controller does not answer, or there is no Slurm here.
    """
    words = ["squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%N|%r"]
    answer = _run(words, None, os.environ)
    if answer.code:
        raise _no_answer(words, answer)
    lines = [line.strip().split("|", 3) for line in answer.out.splitlines()]
    return {
        line[0]: JobStatus(line[1], _reason(line[3]), nodes=_node_list(line[2]))
        for line in lines
        if len(line) == 4
    }


def read_job(text: str, job_id: str) -> JobStatus:
    """Read what `scontrol show job` prints.

    The job's name, comment and paths are its user's, and may look like fields; the fields below
    are read only at the beginning of their line, the first time after the name's.

    Raises:
        UsageError: The job is an array, or heterogeneous.
        MachineError: It is not that text.
    """
    if re.match(rf"JobId=\d+ (ArrayJobId|HetJobId)={job_id}\b", text):
        raise UsageError(
            f"Slurm job {job_id} is an array or heterogeneous; a run is one plain job",
            f"`squeue -j {job_id}` shows it, `scancel {job_id}` cancels it",
        )
    found = re.search(_STATE, text, re.MULTILINE)
    if not found:
        raise MachineError(
            f"`scontrol show job {job_id}` printed no JobState",
            f"run it to see its output, which begins {text[:80]!r}",
        )
    ended = re.search(r"^   .*\bRestarts=(\d+) .*\bExitCode=(\d+):(\d+)", text, re.MULTILINE)
    begun = re.search(r"^   StartTime=(\S+)", text, re.MULTILINE)
    nodes = re.search(r"^   NodeList=(\S*)", text, re.MULTILINE)
    return JobStatus(
        found[1],
        _reason(found[2]),
        _seconds(begun[1]) if begun else None,
        _node_list(nodes[1]) if nodes else "",
        _exit_code(int(ended[2]), int(ended[3])) if ended else 0,
        int(ended[1]) if ended else 0,
        bool(re.search(r"^   .*\bPreemptTime=[0-9]", text, re.MULTILINE)),
    )


def read_accounting(text: str) -> JobStatus | None:
    """Read a line `State|ExitCode|Start|NodeList` of sacct; None: it knows no such job."""
    fields = text.strip().splitlines()[-1].split("|") if text.strip() else []
    if len(fields) != 4:
        return None
    code, _, signum = fields[1].partition(":")
    numbers = [int(number) if number.isdigit() else 0 for number in (code, signum)]
    return JobStatus(
        state=fields[0].partition(" ")[0],  # CANCELLED by 1000
        start_estimate=_seconds(fields[2]),
        nodes=_node_list(fields[3]),
        exit_code=_exit_code(*numbers),
    )


def _from_accounting(job_id: str, patience_s: float) -> JobStatus | None:
    wanted = "--format=State,ExitCode,Start,NodeList"
    words = ["sacct", "--allocations", "--noheader", "--parsable2", f"--jobs={job_id}", wanted]
    try:
        answer = _until_answered(words, patience_s)
    except MachineError:  # sacct is not installed: the same as no accounting
        return None
    return read_accounting(answer.out) if answer.code == 0 else None


def _reason(text: str) -> str:
    return "" if text == "None" else text


def _node_list(text: str) -> str:
    return "" if text in _NO_NODES else text


def _seconds(text: str) -> float | None:
    """Return a time that was printed as seconds since the epoch; None: unknown, or absurd."""
    if not re.fullmatch(r"[0-9]{1,12}", text):
        return None
    return float(text) if int(text) < _YEAR_2100_S else None


def _exit_code(code: int, signum: int) -> int:
    return 128 + signum if signum else code


# --- running them -------------------------------------------------------------------


def _until_answered(
    words: Sequence[str],
    patience_s: float,
    again: re.Pattern[str] = _BUSY,
    script: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> _Answer:
    """Run a command; while its error matches `again`, run it again for `patience_s` seconds."""
    deadline, pause_s = time.monotonic() + patience_s, _FIRST_PAUSE_S
    while True:
        answer = _run(words, script, environ)
        left_s = deadline - time.monotonic()
        if answer.code == 0 or not again.search(answer.said) or left_s <= 0:
            return answer
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _MAX_PAUSE_S)


def _run(words: Sequence[str], script: str | None, environ: Mapping[str, str]) -> _Answer:
    try:
        done = subprocess.run(
            words,
            input=os.fsencode(script or ""),
            capture_output=True,
            timeout=_COMMAND_LIMIT_S,
            env={**environ, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"},
            start_new_session=True,  # Ctrl-C is the launcher's
        )
    except subprocess.TimeoutExpired:
        return _Answer(124, "", f"{words[0]} did not answer within {_COMMAND_LIMIT_S:g} s")
    except OSError as error:
        raise MachineError(
            f"--on slurm needs {words[0]}: {error.strerror}",
            "run distrun on a machine of the cluster",
        ) from None
    lines = (_printable(line) for line in done.stderr.decode(errors="replace").splitlines())
    prefix = re.compile(rf"({words[0]}: )?((fatal|error): )?")
    said = "; ".join(prefix.sub("", line, count=1) for line in lines if line.strip())
    return _Answer(done.returncode, done.stdout.decode(errors="replace"), said)


def _without_overrides(script: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables that would override the script's options."""
    options = re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)
    named = {_VARIABLES.get(key, key.upper().replace("-", "_")) for key in options}
    if named & {"REQUEUE", "NO_REQUEUE"}:
        named |= {"REQUEUE", "NO_REQUEUE"}
    if named & {"MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"}:
        named |= {"MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"}
    overrides = {f"SBATCH_{name}" for name in named}
    return {name: value for name, value in environ.items() if name not in overrides}


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _words(answer: _Answer) -> str:
    return answer.said[:2000] or f"no words, exit code {answer.code}"


def _cure(said: str) -> str:
    if _BUSY.search(said):
        return (
            "`scontrol ping` shows whether the controller answers; `squeue --me` shows whether"
            " the job was submitted"
        )
    return next((cure for words, cure in _CURES if words in said.lower()), "")


def _no_answer(words: Sequence[str], answer: _Answer) -> MachineError:
    return MachineError(
        f"`{' '.join(words)}` failed: {_words(answer)}",
        "`scontrol ping` shows whether Slurm's controller answers",
    )
