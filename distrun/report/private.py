"""Takes out of a text what a report that is passed on must not contain: secrets and home paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from distrun.env import is_secret
from distrun.runs.record import MASK

Clean = Callable[[str], str]

_HOMES = re.compile(r"(?<![\w.-])/(?:home|Users)/[^/\s'\":,;<>]+|(?<![\w.-])/root(?![\w.-])")
_PACKAGES = re.compile(r"(?<![^\s'\":,;<>(=])(?:/[^/\s'\":,;<>]+)+/(?=(?:site|dist)-packages/)")
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_TOKENS = re.compile(
    r"\b(?:hf_\w{16,}|sk-[\w-]{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|AKIA[A-Z\d]{12,}|xox[abp]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
"""Shapes of keys of Hugging Face, OpenAI, GitHub, GitLab, AWS, Slack, and of JSON Web Tokens."""
_ASSIGNED = re.compile(
    r"(\b[\w-]*(?:secret|passw|credential|token\b|api[_-]?key|access[_-]?key)\w*['\"]?\s*[=:]\s*)"
    r"['\"]?[^\s,;'\"]+",
    re.IGNORECASE,
)
_ALLOWED = re.compile(
    r"(OMP|MKL|NCCL|GLOO|TORCH|PYTORCH|CUDA|HSA|HIP|ROCR|UCX|FI|TRITON|DISTRUN)_\w+"
    r"|PYTHONHASHSEED|CUBLAS_WORKSPACE_CONFIG|KMP_AFFINITY|LOGLEVEL"
)
"""Variables of the environment that a report shows."""


def cleaner(workdir: str = "") -> Clean:
    """Return the function that cleans a text.

    Args:
        workdir: The working directory of the run; paths below it become relative.
    """
    own = [re.compile(rf"(?<![\w.-]){re.escape(place)}(?![\w.-])") for place in _own_homes()]
    below = workdir.rstrip("/") + "/"

    def clean(text: str) -> str:
        if len(below) > 1:
            text = text.replace(below, "")
        text = _PACKAGES.sub("", text)
        for pattern in (*own, _HOMES):
            text = pattern.sub("~", text)
        text = _TOKENS.sub(MASK, _LOGIN.sub(f"{MASK}@", text))
        return _ASSIGNED.sub(rf"\1{MASK}", text)

    return clean


def _own_homes() -> list[str]:
    try:
        home = str(Path.home())
    except RuntimeError:
        return []
    return [home] if home.count("/") > 1 else []


def command_line(words: Iterable[str], clean: Clean) -> list[str]:
    """Return the words of a command line, without the values of options named like secrets."""
    told, hides = [], False
    for word in words:
        name, sign, _ = word.partition("=")
        secret = name.startswith("-") and is_secret(name.strip("-").replace("-", "_"))
        if hides:
            told.append(MASK)
        elif secret and sign:
            told.append(f"{name}={MASK}")
        else:
            told.append(clean(word))
        hides = secret and not sign and not hides
    return told


def shown_environment(environ: Mapping[str, Any], clean: Clean) -> dict[str, str]:
    """Return the variables that may be shown, by an allow-list."""
    return {
        name: MASK if is_secret(name) else clean(str(value))
        for name, value in sorted(environ.items())
        if _ALLOWED.fullmatch(name)
    }
