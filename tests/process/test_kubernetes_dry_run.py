"""`distrun launch --on kubernetes --dry-run` prints a job; its pods run what this launch would."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(150)
ON = ("--on", "kubernetes", "--image", "distrun:1", "--dry-run")
WORDS = (
    *("--nodes", "2", "--nproc-per-node", "2", "--time-limit", "90s", "--hang-timeout", "7m"),
    *("--env", "GREETING=it's $(HOME) $$", "--start-method", "spawn", "--strategy", "ddp"),
    "--no-check",  # of this machine, which is no pod
    *("my train.py", "--text", "$(HOME)", "--lr", "0.1", "", "- x", "a: b\nc"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> None:
    (tmp_path / "my train.py").write_text("print('hi')\n")
    (tmp_path / "train.py").write_text("print('hi')\n")


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def expanded(word: str, variables: Mapping[str, str]) -> str:
    """Expand a word as the kubelet does: `$$` is `$`, and `$(NAME)` a variable that is known."""
    parts = word.split("$$")
    for name, value in variables.items():
        parts = [part.replace(f"$({name})", value) for part in parts]
    return "$".join(parts)


def in_pod(job: dict[str, Any], index: int) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of a pod of a Job, as the kubelet makes them."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environ = {"JOB_COMPLETION_INDEX": str(index)}
    for each in container["env"]:
        environ[each["name"]] = each.get("value", "secret" * 8)
    words = [expanded(word, environ) for word in (*container["command"], *container["args"])]
    return words, environ


def plan_in_pod(distrun: Run, job: dict[str, Any], index: int) -> str:
    """Return what the launch of a pod would run, as it prints it."""
    words, environ = in_pod(job, index)
    assert words[:2] == ["distrun", "launch"]
    mine = {name: value for name, value in os.environ.items() if not name.startswith("JOB_")}
    done = distrun("launch", "--dry-run", *words[2:], env={**mine, **environ, "HOME": mine["HOME"]})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_runs_what_the_same_launch_would_run_on_its_node(
    distrun: Run, index: int, tmp_path: Path
) -> None:
    job = objects(distrun("launch", *ON, "--runs-dir", tmp_path / "r", *_runs_in(tmp_path)))[-1]
    environ = {"JOB_COMPLETION_INDEX": str(index), "MASTER_ADDR": "my-train-0.my-train"}
    environ["DISTRUN_DIAL_KEY"] = "secret" * 8
    here = distrun("launch", "--dry-run", *WORDS, env={**os.environ, **environ})
    assert plan_in_pod(distrun, job, index) == here.stdout, here.stderr
    assert f"# node {index} (node{index}): ranks {2 * index}-{2 * index + 1} of 4" in here.stdout
    assert "\nenv OMP_NUM_THREADS=" in here.stdout and " torchrun --nnodes=2" in here.stdout


def _runs_in(tmp_path: Path) -> list[str]:
    """Return the words of a launch whose pods record into the test's own directory."""
    (tmp_path / "v").mkdir()
    return ["--volume", f"data:{tmp_path / 'v'}", *WORDS]


def test_a_config_file_and_flags_give_the_same_pods(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        '[tool.distrun]\non = "kubernetes"\nimage = "distrun:1"\nnodes = 2\ngrace = "45s"\n'
        'hang-timeout = "7m"\nenv = { A = "x", HF_TOKEN = "hunter2" }\n'
        '[tool.distrun.kubernetes]\nkind = "jobset"\nqueue = "q"\nvolume = ["data:/data"]\n'
        'resource = { cpu = 8 }\ntoleration = ["a:NoSchedule"]\n'
    )
    by_file = distrun("launch", "--config", "c.toml", "--dry-run", "train.py")
    words = (
        *("--nodes", "2", "--grace", "45s", "--hang-timeout", "7m", "--env", "A=x"),
        *("--env", "HF_TOKEN=hunter2", "--kind", "jobset", "--queue", "q", "--volume"),
        *("data:/data", "--resource", "cpu=8", "--toleration", "a:NoSchedule", "train.py"),
    )
    by_flags = distrun("launch", *ON, *words)
    assert by_file.returncode == by_flags.returncode == 0, by_file.stderr + by_flags.stderr
    assert by_file.stdout.splitlines()[1:] == by_flags.stdout.splitlines()[1:]
    assert "hunter2" not in by_file.stdout + by_flags.stdout
    assert "settings from" in by_file.stderr and "hunter2" not in by_file.stderr


def test_the_text_is_the_same_again_and_nothing_is_made(distrun: Run, tmp_path: Path) -> None:
    one, two = (distrun("launch", *ON, "--nodes", "2", "train.py") for _ in range(2))
    assert one.stdout == two.stdout and "name: train\n" in one.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "my train.py"}


def test_secrets_are_named_and_never_shown(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "e.env").write_text("WANDB_API_KEY=hunter2\nPLAIN='hunter3'\n")
    done = distrun(
        *("launch", *ON, "--nodes", "2", "--env-file", "e.env", "--env", "HF_TOKEN=hunter4"),
        "train.py",
    )
    made = objects(done)
    assert "hunter" not in done.stdout
    assert '--from-literal=WANDB_API_KEY="$WANDB_API_KEY"' in done.stdout
    (container,) = made[-1]["spec"]["template"]["spec"]["containers"]
    names = {each["name"] for each in container["env"] if "valueFrom" in each}
    assert names == {"WANDB_API_KEY", "PLAIN", "HF_TOKEN", "DISTRUN_DIAL_KEY"}
    assert not any(each["kind"] == "Secret" for each in made)


def test_a_configmap_brings_the_script(distrun: Run) -> None:
    config_map, job = objects(distrun("launch", *ON, "--configmap", "my train.py"))
    assert config_map["data"] == {"my_train.py": "print('hi')\n"}
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "/script/my train.py"


def test_a_patch_changes_the_job(distrun: Run, tmp_path: Path) -> None:
    patch = {"spec": {"template": {"spec": {"priorityClassName": "high"}}}}
    (tmp_path / "p.json").write_text(json.dumps(patch))
    (job,) = objects(distrun("launch", *ON, "--patch", "p.json", "train.py"))
    assert job["spec"]["template"]["spec"]["priorityClassName"] == "high"


BAD: dict[str, tuple[list[str], str]] = {
    "no image": (["--dry-run", "train.py"], "--on kubernetes needs --image"),
    "a bad image": (["--image", "A b", "train.py"], "'A b' is not the name of an image"),
    "a kind": (["--image", "a", "--kind", "pod", "train.py"], "--kind 'pod' is refused"),
    "a name": (["--image", "a", "--job-name", "A_b", "train.py"], "is not the name of a job"),
    "a long name": (["--image", "a", "--job-name", "a" * 64, "train.py"], "the limit is 48"),
    "a namespace": (["--image", "a", "--namespace", "A", "train.py"], "--namespace: 'A'"),
    "no script": (["--image", "a", "none.py"], "script 'none.py' does not exist"),
    "a large script": (["--image", "a", "--configmap", "large.py"], "has 1048577 bytes"),
    "a program": (["--image", "a", "--configmap", "-m", "json.tool"], "brings a Python file"),
    "an import": (["--image", "a", "--configmap", "imports.py"], "it imports train.py beside it"),
    "a patch": (["--image", "a", "--patch", "large.py", "train.py"], "--patch 'large.py': it is"),
    "no patch": (["--image", "a", "--patch", "x", "train.py"], "No such file or directory"),
    "a key": (["--image", "a", "--patch", "key.json", "train.py"], "'spek' is no key of Job"),
    "a volume": (["--image", "a", "--volume", "x", "train.py"], "'x' is not CLAIM:/PATH"),
    "a resource": (["--image", "a", "--resource", "cpu", "train.py"],
                   "--resource 'cpu' is not NAME=VALUE"),
    "GPUs": (["--image", "a", "--gpus", "0,3", "train.py"], "--gpus free:2"),
    "hosts": (["--image", "a", "--hosts", "a", "train.py"], "does not use --hosts"),
    "a debugger": (["--image", "a", "--debug-rank", "0", "train.py"], "exclude each other"),
    "the project": (["--image", "a", "--sync", "train.py"], "--sync does not reach a pod"),
    "many nodes": (["--image", "a", "--nodes", "9999999999", "train.py"],
                   "--nodes 9999999999 is above the limit of 10000 pods"),
    "no Unicode": (["--image", "a", "--env", "A=\udcff", "train.py"], "is not Unicode"),
    "a secret": (["--image", "a", "--env", "A_TOKEN=\udcff", "train.py"],
                 "the value of A_TOKEN is not Unicode"),
    "a variable": (["--image", "a", "--env", "é_TOKEN=1", "train.py"],
                   "the variable 'é_TOKEN' cannot be in a Secret"),
    "a range": (["--image", "a", "--kind", "trainjob", "--nodes", "2:4", "train.py"],
                "a TrainJob has a fixed number of nodes"),
    "a directory": (["--image", "a", "--kind", "trainjob", "--workdir", "/x", "train.py"],
                    "a TrainJob has that of the image"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_sentence_and_makes_nothing(distrun: Run, tmp_path: Path, case: str) -> None:
    (tmp_path / "large.py").write_text("#" * ((1 << 20) + 1))
    (tmp_path / "imports.py").write_text("import train\n")
    (tmp_path / "key.json").write_text('{"spek": {}}')
    words, says = BAD[case]
    done = distrun("launch", "--on", "kubernetes", *words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert says in done.stderr and "hint:" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flag", ["--configmap", "--kind=job", "--ttl=1h"])
def test_flags_for_kubernetes_need_it(distrun: Run, flag: str) -> None:
    done = distrun("launch", flag, "train.py")
    assert done.returncode == 2
    assert f"{flag.partition('=')[0]} asks Kubernetes for a job" in done.stderr
    assert "add --on kubernetes" in done.stderr


@pytest.mark.parametrize(
    ("on", "says"),
    [
        ([], "--image is what containers run, and a launch on local starts none"),
        (["--on=ssh", "--hosts=a"], "a launch on ssh starts none"),
        (["--on=kubernets"], "did you mean 'kubernetes'?"),
    ],
)
def test_an_image_needs_containers(distrun: Run, on: list[str], says: str) -> None:
    done = distrun("launch", *on, "--image=a", "train.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_the_other_commands_say_that_no_node_is_reached(distrun: Run) -> None:
    done = distrun("check", "--on", "kubernetes")
    assert done.returncode == 2 and "no node can be reached from here" in done.stderr
