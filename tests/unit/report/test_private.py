"""What a report that is passed on must not contain."""

from __future__ import annotations

import pytest

from distrun.report.private import cleaner, command_line, shown_environment


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("/home/alice/train.py:3", "~/train.py:3"),
        ("at /Users/bob", "at ~"),
        ('File "/root/x.py", line 3', 'File "~/x.py", line 3'),
        ("/rooted/x.py", "/rooted/x.py"),
        ("/srv/home/x", "/srv/home/x"),
        ("/work/dir/sub/train.py", "sub/train.py"),
        ("/opt/a b/lib/site-packages/torch/x.py", "/opt/a b/lib/site-packages/torch"),
        ("/venv/lib/python3.11/site-packages/torch/x.py", "site-packages/torch/x.py"),
        ("https://bob:hunter2@host/x", "https://***@host/x"),
        ("token hf_abcdefghijklmnopqrst used", "token *** used"),
        ("api_key=hunter2 rest", "api_key=*** rest"),
        ("'password': 'hunter2'", "'password': ***'"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
        ("sorted(x, key=len)", "sorted(x, key=len)"),
        ("tokens: 2048", "tokens: 2048"),
        ("", ""),
    ],
)
def test_a_text_is_cleaned(text: str, cleaned: str) -> None:
    assert cleaner("/work/dir")(text).startswith(cleaned)
    assert "hunter2" not in cleaner("/work/dir")(text)


def test_the_value_of_an_option_named_like_a_secret_is_hidden() -> None:
    words = ["launch", "t.py", "--api-key", "a", "--lr", "1", "--hf-token=b", "-x"]
    hidden = ["launch", "t.py", "--api-key", "***", "--lr", "1", "--hf-token=***", "-x"]
    assert command_line(words, str) == hidden


def test_the_environment_is_shown_by_an_allow_list() -> None:
    environ = {"NCCL_DEBUG": "INFO", "HOME": "/x", "DB_URL": "s", "TORCH_API_KEY": "s", "OMP": "1"}
    assert shown_environment(environ, str) == {"NCCL_DEBUG": "INFO", "TORCH_API_KEY": "***"}
