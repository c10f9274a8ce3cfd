"""Batch jobs on a real Slurm: its own reading of our scripts, and its own words."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from distrun.errors import MachineError, UsageError
from distrun.schedulers.sbatch import Batch, render
from distrun.schedulers.slurm_commands import (
    JobStatus,
    cancel,
    end_launcher,
    status,
    submit,
)
from distrun.schedulers.slurm_states import ending_of, explain
from tests.cluster.slurm import Slurm
from tests.conftest import wait_until
from tests.unit.schedulers.batches import BATCHES, GOLDEN

NOT_READ = ("Invalid directive", "unrecognized option", "ambiguous", "Unable to", "does not look")
"""Words of sbatch about a script that it cannot read."""
LAUNCHER = """
import json, os, signal, sys, time
def note(signum, frame):
    with open("signals", "a") as signals:
        print(signum, flush=True, file=signals)
for signum in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(signum, note)
child = os.fork()  # as a rank: in the same group, and deaf
if child == 0:
    def heard(signum, frame):
        open("child_heard", "a").write(f"{signum} ")
    for signum in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(signum, heard)
json.dump([sys.argv[1:], os.getcwd(), os.environ["SLURM_JOB_NODELIST"], dict(os.environ)],
          open(f"started{'_child' * (child == 0)}.json.new", "w"))
os.rename(f"started{'_child' * (child == 0)}.json.new", f"started{'_child' * (child == 0)}.json")
deadline = time.monotonic() + 200
while time.monotonic() < deadline and os.path.exists("go_on"):
    time.sleep(0.05)
if os.path.exists("signals"):
    sys.exit(143)
sys.exit(int(open("code").read()) if os.path.exists("code") else 0)
"""


@pytest.fixture
def cluster(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A cluster that Slurm's commands find from here."""
    for name, value in slurm.environ().items():
        monkeypatch.setenv(name, value)
    yield slurm


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """A job of two nodes that waits for the end of the file go_on, in a folder with a bad name."""
    folder = tmp_path / 'it\'s 100% #1 "$HOME"'
    folder.mkdir()
    (folder / "go_on").touch()
    command = (sys.executable, "-IS", "-c", LAUNCHER, "a b", "it's", "two\nlines", "dos\r\n", "")
    log = str(folder / "100%j.log")
    return Batch("na me", command, str(folder), log, nodes=2, warn_s=0)


def folder_of(batch: Batch) -> Path:
    return Path(batch.workdir)


def begun(batch: Batch) -> str:
    """Submit a job, wait until its program runs, and return its id."""
    job_id = submit(render(batch))
    for name in ("started.json", "started_child.json"):
        wait_until(lambda name=name: (folder_of(batch) / name).exists(), 60, name)
    return job_id


def known(job_id: str) -> JobStatus:
    found = status(job_id)
    assert found is not None
    return found


def ended(job_id: str) -> JobStatus:
    wait_until(lambda: ending_of(known(job_id).state, 0), 60, f"the end of {job_id}")
    return known(job_id)


@pytest.mark.parametrize("case", BATCHES)
def test_slurm_reads_every_recorded_script(cluster: Slurm, case: str) -> None:
    done = cluster.run("sbatch", "--test-only", GOLDEN / f"{case}.sh")
    assert not [words for words in NOT_READ if words in done.stderr], done.stderr
    if case in ("whole_nodes", "hostile_names", "named_variables"):
        assert done.returncode == 0, done.stderr


def test_a_job_gets_whole_nodes_its_words_its_directory_and_its_log(
    cluster: Slurm, batch: Batch
) -> None:
    job_id = begun(batch)
    running = known(job_id)
    assert (running.state, running.nodes) == ("RUNNING", "n[1-2]")
    assert running.start_estimate and abs(running.start_estimate - time.time()) < 60
    words, where, nodes, environ = json.loads((folder_of(batch) / "started.json").read_text())
    assert words == list(batch.command[4:])
    assert (Path(where), nodes) == (folder_of(batch), "n[1-2]")
    assert environ["SLURM_JOB_NAME"] == batch.name and "SLURM_EXPORT_ENV" not in environ
    assert cluster.job(job_id)["OverSubscribe"] == "NO"
    (folder_of(batch) / "go_on").unlink()
    assert ending_of(ended(job_id).state, known(job_id).exit_code) == ("succeeded", 0)
    assert Path(batch.output).exists()


def test_the_exit_code_of_the_launcher_is_that_of_the_job(cluster: Slurm, batch: Batch) -> None:
    (folder_of(batch) / "code").write_text("7")
    (folder_of(batch) / "go_on").unlink()
    job_id = submit(render(batch))
    over = ended(job_id)
    assert ending_of(over.state, over.exit_code) == ("failed", 7)


def test_a_directory_that_the_node_lacks_is_3_and_nothing_runs(
    cluster: Slurm, batch: Batch, tmp_path: Path
) -> None:
    over = ended(submit(render(replace(batch, workdir=str(tmp_path / "none")))))
    assert ending_of(over.state, over.exit_code) == ("failed", 3)
    assert not (folder_of(batch) / "started.json").exists()


def test_a_running_job_is_asked_to_end_and_its_ranks_are_not(cluster: Slurm, batch: Batch) -> None:
    job_id = begun(batch)
    assert end_launcher(job_id)
    signals = folder_of(batch) / "signals"
    wait_until(lambda: signals.exists() and signals.read_text() == "15\n", 30, "SIGTERM")
    assert not (folder_of(batch) / "child_heard").exists()
    (folder_of(batch) / "go_on").unlink()
    over = ended(job_id)
    assert (over.state, over.exit_code) == ("FAILED", 143)


def test_a_cancelled_job_ends(cluster: Slurm, batch: Batch) -> None:
    job_id = begun(batch)
    cancel(job_id)
    over = ended(job_id)
    assert ending_of(over.state, over.exit_code) == ("cancelled", 143)
    cancel(job_id)
    assert not end_launcher(job_id)


def test_the_warning_reaches_the_launcher_alone(cluster: Slurm, batch: Batch) -> None:
    """A minute is Slurm's shortest limit, and the warning may come early by up to a minute."""
    job_id = begun(replace(batch, time_limit_s=60, warn_s=50))
    signals = folder_of(batch) / "signals"
    wait_until(lambda: signals.exists() and signals.read_text() == "12\n", 60, "the warning")
    assert not (folder_of(batch) / "child_heard").exists()
    cancel(job_id)
    ended(job_id)


def test_a_waiting_job_says_why_and_since_when(cluster: Slurm, batch: Batch) -> None:
    begun(replace(batch, time_limit_s=600))
    second = submit(render(replace(batch, time_limit_s=600)))
    wait_until(lambda: known(second).start_estimate, 60, "an estimate")
    waiting = known(second)
    assert waiting.state == "PENDING" and waiting.nodes == ""
    assert waiting.start_estimate and 0 < waiting.start_estimate - time.time() < 700
    assert "free nodes" in explain(waiting.reason, second).sentence
    assert not end_launcher(second)
    cancel(second)
    assert ending_of(ended(second).state, 0) == ("cancelled", 143)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((("begin", "now+1hour"),), "begin time"),
        ((("hold", ""),), "held by its user"),
        ((("dependency", "afterok:1"),), "another job"),
    ],
)
def test_why_a_job_waits_is_explained(
    cluster: Slurm, batch: Batch, options: tuple[tuple[str, str], ...], sentence: str
) -> None:
    if options[0][0] == "dependency":
        other = submit(render(replace(batch, options=(("hold", ""),))))
        options = (("dependency", f"afterok:{other}"),)
    job_id = submit(render(replace(batch, options=options)))
    wait_until(lambda: sentence in explain(known(job_id).reason, job_id).sentence, 30, sentence)


def test_a_name_that_looks_like_a_state_is_a_name(cluster: Slurm, batch: Batch) -> None:
    name = "x JobState=COMPLETED Reason=None Dependency=(null)"
    held = replace(batch, name=name, options=(("hold", ""), ("comment", f"   {name}")))
    job_id = submit(render(held))
    assert known(job_id) == JobStatus("PENDING", "JobHeldUser")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": "nope"}, "invalid partition specified: nope"),
        ({"constraint": "nope"}, "Invalid feature specification"),
        ({"gpus_per_node": 8}, "Requested node configuration is not available"),
        ({"options": (("gres", "nosuch:1"),)}, "Invalid generic resource"),
        ({"options": (("nosuch", "1"),)}, "unrecognized option '--nosuch=1'"),
        ({"options": (("contiguous", "x"),)}, "doesn't allow an argument"),
        ({"options": (("mem", "9999G"),)}, "Memory specification can not be satisfied"),
    ],
)
def test_slurm_refuses_in_its_own_words(
    cluster: Slurm, batch: Batch, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(MachineError) as caught:
        submit(render(replace(batch, **changes)))  # type: ignore[arg-type]
    assert words in caught.value.message and caught.value.hint
    assert cluster.squeue() == {}


def test_a_lost_node_ends_the_job(cluster: Slurm, batch: Batch) -> None:
    job_id = begun(batch)
    cluster.down("n2")
    over = ended(job_id)
    assert ending_of(over.state, over.exit_code) == ("node lost", 5)


@pytest.mark.parametrize("requeue", [True, False])
def test_a_preempted_job_is_put_back_only_if_it_asked(
    cluster: Slurm, batch: Batch, requeue: bool
) -> None:
    job_id = begun(replace(batch, partition="spot", requeue=requeue))
    other = submit(render(replace(batch, command=("/bin/true",))))
    if requeue:
        wait_until(lambda: known(job_id).restarts == 1, 60, "the requeue")
    else:
        over = ended(job_id)
        assert ending_of(over.state, over.exit_code) == ("preempted", 143)
    assert ended(other).state == "COMPLETED"


def test_a_job_that_slurm_does_not_know_is_none(cluster: Slurm) -> None:
    assert status("999999") is None
    cancel("999999")
    assert not end_launcher("999999")


def test_an_array_is_no_run(cluster: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "array.sh"
    script.write_text("#!/bin/sh\n#SBATCH --array=0-3\n#SBATCH --hold\ntrue\n")
    job_id = cluster.sbatch(script)
    with pytest.raises(UsageError, match="array"):
        status(job_id)


def test_a_controller_that_is_busy_for_a_while_is_waited_for(cluster: Slurm, batch: Batch) -> None:
    job_id = submit(render(replace(batch, options=(("hold", ""),))))
    with cluster.busy_controller(), pytest.raises(MachineError, match=r"timed out|contact"):
        status(job_id, patience_s=0)
    assert known(job_id).state == "PENDING"
