"""Torchrun's variables as one object, what is scrubbed, what is secret, whose pipe it is."""

from __future__ import annotations

import os

import pytest

from distrun import env
from distrun.env import TorchrunEnv, is_secret, report_fd, scrubbed


def test_without_a_launcher_the_world_is_one_process() -> None:
    assert TorchrunEnv.read({}) == TorchrunEnv(0, 0, 0, 1, 1, 1, "127.0.0.1", 29500)


def test_what_torchrun_says_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "GROUP_RANK": "2",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_WORLD_SIZE": "4",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "1234",
    }
    expected = TorchrunEnv(5, 1, 2, 8, 2, 4, "10.0.0.1", 1234)
    assert TorchrunEnv.read(said) == expected
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert TorchrunEnv.read() == expected


@pytest.mark.parametrize(
    "name",
    [
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"),
        *("PET_NNODES", "PET_RDZV_ENDPOINT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE"),
        *(env.STRATEGY, env.RUN_DIR, env.TAG, env.RUN, env.REPORT, env.RECORDS),
    ],
)
def test_what_an_outer_launcher_left_is_scrubbed(name: str) -> None:
    assert scrubbed({name: "1", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "name", ["PATH", "OMP_NUM_THREADS", "NCCL_DEBUG", "PETS", "RANKS", "MY_RANK", "DISTRUN_DEBUG"]
)
def test_what_is_the_users_own_stays(name: str) -> None:
    assert scrubbed({name: "1"}) == {name: "1"}


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True),
        ("wandb_api_key", True),
        ("AWS_SECRET_ACCESS", True),
        ("DB_PASSWORD", True),
        ("PASSPHRASE", True),
        ("OPENAI_APIKEY", True),
        ("API_KEY_2", True),
        ("AWS_ACCESS_KEY_ID", True),
        ("PGPASSWORD", True),
        ("SSHPASS", True),
        ("DB_PASSWD", True),
        ("MYSQL_PWD", True),
        ("REDISCLI_AUTH", True),
        ("NPM_CONFIG__AUTH", True),
        ("PROXY_AUTHORIZATION", True),
        ("AUTHTOKEN", True),
        ("AWS_CRED", True),
        ("GCP_CREDS_JSON", True),
        ("GOOGLE_APPLICATION_CREDENTIALS", True),
        ("HF_TOKENS", True),
        ("apiKey", True),
        ("myTokenFile", True),
        ("npm_config_//registry/:_authToken", True),
        ("PWD", False),
        ("OLDPWD", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("TOKENIZER", False),
        ("GIT_AUTHOR_NAME", False),
        ("KEYBOARD_LAYOUT", False),
        ("PASSIVE_FTP", False),
        ("SACRED_RUN", False),
        ("PROXY_BYPASS", False),
        ("ACCREDITED", False),
        ("PATH", False),
        ("LR", False),
    ],
)
def test_names_tell_what_is_secret(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


def test_the_report_pipe_is_known_by_its_inode() -> None:
    read, write = os.pipe()
    other, _ = os.pipe()
    inode = os.fstat(write).st_ino
    assert report_fd({env.REPORT: f"{write}:{inode}"}) == write
    # A child has another file under that number, or none at all.
    assert report_fd({env.REPORT: f"{other}:{inode}"}) is None
    for fd in (read, write, other, _):
        os.close(fd)
    assert report_fd({env.REPORT: f"{write}:{inode}"}) is None


@pytest.mark.parametrize("value", ["", ":", "3", "3:", ":7", "x:7", "3:x", "-1:0", "9999:1"])
def test_a_broken_report_variable_is_no_pipe(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert report_fd({env.REPORT: value}) is None
    assert report_fd({}) is None
    monkeypatch.setenv(env.REPORT, value)
    assert report_fd() is None


@pytest.mark.parametrize("before", [None, ""])
def test_an_empty_pythonpath_does_not_become_the_current_directory(before: str | None) -> None:
    given = {} if before is None else {"PYTHONPATH": before}
    path = env.booted(given, role="rank")["PYTHONPATH"]
    assert path.endswith("/boot") and ":" not in path
