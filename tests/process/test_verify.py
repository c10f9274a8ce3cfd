"""`distrun verify` as a user runs it: it passes what trains alike, and nothing else."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(180)

TRAINS = """\
# /// script
# [tool.distrun.verify.layouts]
# "two" = { ranks = 2 }
# "two, bent" = { ranks = 2, args = ["--bend", "1e-4"] }
# "three" = { ranks = 3, args = ["--nan"] }
# "dies" = { ranks = 2, args = ["--die"] }
# ///
import argparse, os, sys, time
from pathlib import Path
from distrun.train import metrics

parser = argparse.ArgumentParser()
for flag in ("--steps", "--log-every", "--eval-every"):
    parser.add_argument(flag, type=int)
for flag in ("--precision", "--resume"):
    parser.add_argument(flag)
for flag in ("--no-save", "--deterministic", "--nan", "--die", "--wait"):
    parser.add_argument(flag, action="store_true")
parser.add_argument("--bend", type=float, default=0.0)
flags = parser.parse_args()
if os.environ["RANK"] == "0":
    for step in range(1, flags.steps + 1):
        loss = 5.0 / step + (flags.bend if step == 3 else 0)
        metrics.log(step, loss=float("nan") if flags.nan else loss)
Path(f"ran{os.environ['WORLD_SIZE']}").touch()
if Path("wait").exists():
    time.sleep(600)
sys.exit(9 if flags.die else 0)
"""
"""Trains nothing, and says what a training would."""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "train.py").write_text(TRAINS)
    return tmp_path / "train.py"


def verify(distrun: Run, directory: Path, words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "TMPDIR": str(directory / "tmp")}
    return distrun("verify", *shlex.split(words), env=environ, timeout_s=170)


@pytest.mark.usefixtures("script")
def test_equal_layouts_pass_and_leave_nothing_behind(distrun: Run, tmp_path: Path) -> None:
    result = verify(distrun, tmp_path, "train.py --strategy two --steps 5")
    assert result.returncode == 0, result.stderr
    heads, reference, layout = (line.split() for line in result.stdout.splitlines())
    assert heads[0] == "layout" and heads[-1] == "verdict"
    assert reference[:5] == ["train,", "one", "rank", "train.py", "1"]
    assert layout[:3] == ["two", "train.py", "2"]
    assert layout[-4:] == ["1.0000000", "0.0e+00", "1", "equal"]
    assert result.stderr.splitlines() == [
        "distrun: 1 of 2: train, one rank, train.py on 1 rank",
        "distrun: 2 of 2: two, train.py on 2 ranks",
    ]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("script")
def test_what_is_off_or_fails_is_told_and_its_run_is_kept(distrun: Run, tmp_path: Path) -> None:
    files = "-o v.json -o v.csv --output v.md"
    result = verify(distrun, tmp_path, f"train.py --steps 4 --json {files}")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert json.loads((tmp_path / "v.json").read_text()) == report
    head, *losses = (tmp_path / "v.csv").read_text().splitlines()
    assert (head, len(losses)) == ("layout,script,ranks,step,loss", 4 * 4)
    assert '"two, bent",train.py,2,1,5.0' in losses and "three,train.py,3,2,nan" in losses
    table = (tmp_path / "v.md").read_text().splitlines()
    assert table[-1].startswith("| dies | train.py | 2 | ") and table[-1].endswith("| FAILED |")
    assert [row["equal"] for row in report["rows"]] == [True, True, False, False, False]
    assert (report["equal"], report["steps"], report["tolerance"]) == (False, 4, 1e-5)
    bent, nan, dead = report["rows"][2:]
    assert bent["max_difference"] == pytest.approx(1e-4) and bent["at_step"] == 3
    assert (nan["losses"], nan["max_difference"]) == (["nan"] * 4, "nan")
    assert (dead["losses"], dead["max_difference"]) == ([], None)
    assert "failed first: exited with 9" in result.stderr
    for row in (bent, nan, dead):
        assert f"distrun: {row['layout']}: see {row['run_dir']}" in result.stderr
        assert (Path(row["run_dir"]) / "run.json").is_file()
    table = verify(distrun, tmp_path, "train.py --steps 4 --strategy 'two, bent'").stdout
    assert table.splitlines()[-1].split("  ")[-1].strip() == "OFF by more than 1e-05"


@pytest.mark.usefixtures("script")
def test_runs_are_kept_where_they_are_told_to_be(distrun: Run, tmp_path: Path) -> None:
    result = verify(distrun, tmp_path, "train.py --strategy two --runs-dir mine")
    assert result.returncode == 0
    assert "the runs are kept in mine" in result.stderr
    assert len(list((tmp_path / "mine").glob("*/metrics.jsonl"))) == 2


def test_ctrl_c_ends_the_run_at_hand_and_leaves_nothing(
    script: Path, command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "wait").touch()
    child = subprocess.Popen(
        [*command, "verify", "train.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "ran1").exists, 60)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, ""), err
    assert not (tmp_path / "ran2").exists(), "the next one was not begun"
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("none.py", "script 'none.py' does not exist"),
        ("fdsp", "no recipe has the name 'fdsp'"),
        ("silent.py", "silent.py logged no loss on 1 rank: there is nothing to compare"),
        ("plain.py", "plain.py lists no layouts to compare"),
        ("train.py --strategy four", "--strategy 'four' is no layout"),
        ("train.py --precision bfloat16", "--precision 'bfloat16' is not one of float32, float64"),
        ("train.py --tolerance nan", "--tolerance nan is not a finite number >= 0"),
        ("train.py --tolerance inf", "--tolerance inf is not a finite number >= 0"),
        ("bad.py", "verify.layouts.two.ranks 0 in the header of bad.py is refused"),
        ("broken.py", "script 'broken.py' has a syntax error in line 4"),
    ],
)
@pytest.mark.usefixtures("script")
def test_what_cannot_be_compared_is_refused_in_a_sentence(
    distrun: Run, tmp_path: Path, words: str, said: str
) -> None:
    header = "# /// script\n# tool.distrun.verify.layouts = {two = {ranks = 2}}\n# ///\n"
    files = {
        "silent.py": header,
        "plain.py": "",
        "bad.py": header.replace("ranks = 2", "ranks = 0"),
        "broken.py": header + "retrun 1\n",
    }
    if (name := words.split()[0]) in files:
        (tmp_path / name).write_text(files[name])
    result = verify(distrun, tmp_path, words)
    errors = [line for line in result.stderr.splitlines() if line.startswith("distrun: error: ")]
    assert len(errors) == 1 and errors[0].startswith(f"distrun: error: {said}")
    assert (result.returncode, result.stdout) == (2, "")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.long
def test_fsdp_trains_as_one_rank_and_a_copy_with_a_scaled_gradient_does_not(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    distrun("recipes", "copy", "single")
    distrun("recipes", "copy", "fsdp", "mine.py")
    source = (tmp_path / "mine.py").read_text()
    after_backward = "            mean_loss = progress.agree("
    assert source.count(after_backward) == 1
    scaled = "            for p in model.parameters(): p.grad.mul_(1.001)\n"
    (tmp_path / "off.py").write_text(source.replace(after_backward, scaled + after_backward))
    result = verify(distrun, tmp_path, "mine.py off.py --strategy 'fsdp 2' --steps 5")
    assert result.returncode == 1, result.stderr
    reference, mine, off = result.stdout.splitlines()[1:]
    assert reference.startswith("single  single.py") and reference.split()[-1] == "reference"
    assert mine.split()[2:4] == ["mine.py", "2"] and mine.split()[-1] == "equal"
    assert "OFF: the first gradient's norm by 1.0e-03 of itself" in off
