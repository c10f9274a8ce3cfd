"""The sbatch script: recorded scripts, values that mean something to sbatch or bash, refusals."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrun.errors import UsageError
from distrun.schedulers import sbatch
from distrun.schedulers.sbatch import Batch, render
from tests.unit.schedulers.batches import BATCHES, GOLDEN

PLAIN = BATCHES["whole_nodes"]


@pytest.fixture(autouse=True)
def version_of_the_golden_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbatch.distrun, "__version__", "0.0.0")


def directives(script: str) -> list[str]:
    """What sbatch reads: the lines before the first command."""
    lines = script.splitlines()
    return [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]


def options(**changes: object) -> list[str]:
    return directives(render(replace(PLAIN, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", BATCHES)
def test_the_script_is_the_recorded_one(case: str) -> None:
    assert render(BATCHES[case]) == (GOLDEN / f"{case}.sh").read_text(encoding="utf-8")


def test_every_recorded_script_has_its_case() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(BATCHES)


@pytest.mark.parametrize("case", BATCHES)
def test_bash_reads_the_script(case: str) -> None:
    subprocess.run(["bash", "-n", GOLDEN / f"{case}.sh"], check=True, timeout=20)


@pytest.mark.parametrize(
    ("asked_s", "shown"),
    [
        (1, "00:01:00"),
        (60, "00:01:00"),
        (61, "00:02:00"),
        (3600, "01:00:00"),
        (86399, "1-00:00:00"),
        (86400, "1-00:00:00"),
        (36 * 3600 + 90, "1-12:02:00"),
    ],
)
def test_a_time_limit_is_whole_minutes_as_slurm_counts_them(asked_s: int, shown: str) -> None:
    assert f"--time={shown}" in options(time_limit_s=asked_s, warn_s=0)


def test_slurm_warns_the_batch_shell_alone_or_not_at_all() -> None:
    assert "--signal=B:USR2@90" in options()
    assert not [line for line in options(warn_s=0) if "signal" in line]


def test_a_job_is_put_back_only_if_asked_whatever_the_cluster_does_by_default() -> None:
    assert "--no-requeue" in options() and "--requeue" in options(requeue=True)


def test_whole_nodes_unless_a_share_is_asked_for() -> None:
    assert {"--exclusive", "--mem=0"} <= set(options())
    share = options(gpus_per_node=2, cpus_per_task=8)
    assert {"--gpus-per-node=2", "--cpus-per-task=8"} <= set(share)
    assert not {"--exclusive", "--mem=0"} & set(share)


@pytest.mark.parametrize(
    ("option", "leaves_out"),
    [
        (("mem", "64G"), {"--mem=0"}),
        (("mem-per-gpu", "64G"), {"--mem=0"}),
        (("exclusive", "user"), {"--exclusive"}),
        (("oversubscribe", ""), {"--exclusive"}),
        (("job-name", "other"), {f"--job-name={PLAIN.name}"}),
        (("comment", "x"), set()),
    ],
)
def test_an_option_of_the_user_takes_the_place_of_ours(
    option: tuple[str, str], leaves_out: set[str]
) -> None:
    key, value = option
    without, with_it = options(), options(options=(option,))
    assert set(without) - set(with_it) == leaves_out
    assert with_it[-1] == (f"--{key}={value}" if value else f"--{key}")


def test_named_variables_alone_still_reach_every_step() -> None:
    script = render(replace(PLAIN, environ=("HOME", "PATH")))
    assert "--export=HOME,PATH" in directives(script)
    assert "\nexport SLURM_EXPORT_ENV=ALL" in script
    assert "--export=NONE" in options(environ=())


# --- values that mean something to sbatch, to bash, or to both ------------------------

HOSTILE = [
    "a b",
    "a#b",
    "--wrap=reboot",
    "it's",
    'say "hi"',
    "back\\slash",
    "$HOME",
    "`reboot`",
    "$(reboot)",
    "a;b|c&d>e",
    "naïve 漢字",
    "x JobState=COMPLETED",
    "100%j",
    "'",
    "\\",
    "",
]


def as_sbatch_reads(line: str) -> list[str]:
    """The words of a #SBATCH line by the rules of sbatch 22.05: no variables, no commands."""
    words, word, quote, escaped = [], "", "", False
    for char in line + " ":
        if escaped:
            word, escaped = word + char, False
        elif char == "\\":
            escaped = True
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif not quote and char == "#":
            return [*words, word] if word else words
        elif not quote and char.isspace():
            words, word = ([*words, word] if word else words), ""
        else:
            word += char
    assert not quote and not escaped
    return words


@pytest.mark.parametrize("value", [value for value in HOSTILE if value])
def test_sbatch_reads_a_hostile_value_as_it_is(value: str) -> None:
    lines = directives(render(replace(PLAIN, name=value, options=(("comment", value),))))
    read = [as_sbatch_reads(line) for line in lines]
    assert all(len(words) == 1 for words in read)
    assert [f"--job-name={value}"] in read and [f"--comment={value}"] in read


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200))
def test_sbatch_reads_any_value_as_it_is(value: str) -> None:
    lines = directives(render(replace(PLAIN, options=(("comment", value),))))
    assert as_sbatch_reads(lines[-1]) == [f"--comment={value}"]


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "a\tb", "\x1b[31m", "\x7f", "a\x85b"])
@pytest.mark.parametrize("field", ["name", "partition", "account", "qos", "constraint"])
def test_a_control_character_is_refused(field: str, bad: str) -> None:
    with pytest.raises(UsageError, match="control character"):
        render(replace(PLAIN, **{field: bad}))  # type: ignore[arg-type]


def test_a_value_that_slurm_would_cut_or_refuse_is_refused() -> None:
    assert options(name="é" * 500)
    with pytest.raises(UsageError, match="1002 bytes; the limit of a value is 1000"):
        options(name="é" * 501)


def test_a_percent_sign_in_the_path_of_the_log_is_no_pattern() -> None:
    assert "--output=/runs/100%%j/batch.log" in options(output="/runs/100%j/batch.log")


WORDS = [*HOSTILE, "two\nlines", "dos\r\n", "\x1b[31m", "\udcff\udcfe", "a\x0b0", "-n"]


@pytest.mark.parametrize("word", WORDS)
def test_the_command_gets_its_words_byte_for_byte(tmp_path: Path, word: str) -> None:
    folder = tmp_path / (word.replace("/", "").replace("\0", "") or "x")
    folder.mkdir()
    show = ("/bin/sh", "-c", 'pwd -P; printf "%s\\0" "$@"', "sh", word, "end")
    script = render(replace(PLAIN, workdir=str(folder), command=show, made_by=("distrun", word)))
    assert "\r" not in script and "\0" not in script
    done = subprocess.run(
        ["bash"], input=os.fsencode(script), capture_output=True, timeout=20, check=True
    )
    where, _, words = done.stdout.rpartition(os.fsencode(folder.resolve()) + b"\n")
    assert words.split(b"\0")[:-1] == [os.fsencode(word), b"end"] and not where


@pytest.mark.parametrize("word", WORDS)
def test_the_command_named_at_the_top_stays_a_comment(word: str) -> None:
    script = render(replace(PLAIN, made_by=("distrun", "launch", word)))
    second = script.splitlines()[1]
    assert second.startswith("# Written by distrun 0.0.0: distrun launch ")
    assert directives(script) == options()
    if word.isprintable():
        assert shlex.split(second.partition(": ")[2]) == ["distrun", "launch", word]


def test_the_process_that_slurm_started_is_the_launcher(tmp_path: Path) -> None:
    script = tmp_path / "s.sh"
    command = ("/bin/sh", "-c", "echo $$")
    script.write_text(render(replace(PLAIN, workdir=str(tmp_path), command=command)))
    shell = subprocess.Popen(["bash", script], stdout=subprocess.PIPE, text=True)
    assert int(shell.communicate(timeout=20)[0]) == shell.pid


def test_a_working_directory_that_the_node_lacks_is_3(tmp_path: Path) -> None:
    script = render(replace(PLAIN, workdir=str(tmp_path / "none"), command=("/bin/true",)))
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=20)
    assert done.returncode == 3 and "none" in done.stderr


# --- refusals -----------------------------------------------------------------------


def refused() -> Iterator[tuple[Batch, str, str]]:
    def asking(**changes: object) -> Batch:
        return replace(PLAIN, **changes)  # type: ignore[arg-type]

    for key, said, cure in (
        ("nodes", "distrun sets nodes itself", "--nodes"),
        ("time", "distrun sets time itself", "--time"),
        ("no-requeue", "distrun sets", "--requeue"),
        ("array", "a run cannot have array", "job array"),
        ("arr", "a run cannot have array", "job array"),
        ("wra", "a run cannot have wrap", "script"),
        ("-p", "'-p' is not the name of an option", "--sbatch KEY=VALUE"),
        ("--comment", "'--comment' is not the name", "without dashes"),
        ("p", "'p' is not the name", "long name"),
        ("", "'' is not the name", "KEY=VALUE"),
        ("a b", "'a b' is not the name", "KEY=VALUE"),
        ("x\n#SBATCH --array", "is not the name", "KEY=VALUE"),
    ):
        yield asking(options=((key, "1"),)), said, cure
    yield asking(workdir="here"), "'here' is not an absolute path", "/"
    yield asking(output="log"), "'log' is not an absolute path", "/"
    yield asking(time_limit_s=90), "the time limit of 90 s leaves no time", "150 s"
    yield asking(warn_s=65536), "limit of 65535 s", "later"
    yield asking(environ=("A=1",)), "'A=1' is not the name of a variable", "letters"
    yield asking(environ=("A,B",)), "'A,B' is not the name of a variable", "letters"


@pytest.mark.parametrize(("batch", "said", "cure"), list(refused()))
def test_what_does_not_fit_is_refused_with_its_cure(batch: Batch, said: str, cure: str) -> None:
    with pytest.raises(UsageError) as caught:
        render(batch)
    assert said in caught.value.message and cure in caught.value.hint


@pytest.mark.parametrize(
    "key", ["nodelist", "exclude", "mem", "time-min", "wait-all-nodes", "gres"]
)
def test_other_options_of_sbatch_are_passed_on(key: str) -> None:
    assert f"--{key}=x" in options(options=((key, "x"),))
