"""Reads config files, a recipe's header, env files, and flags that override them."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from distrun.env import is_secret
from distrun.errors import UsageError, did_you_mean
from distrun.spec.base import Refused
from distrun.spec.config_files import config_files
from distrun.spec.fields import STRATEGIES, is_variable
from distrun.spec.hostfile import read_hostfile
from distrun.spec.job import Header, Job, Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Tell = Callable[[str], None]
_Model = TypeVar("_Model", bound=BaseModel)
_Settings = TypeVar("_Settings", bound=Settings)
_DURATION = "for example 90, 90s, 5m, 2h or 1d"
_HINTS = {
    "nodes": "for example 2, or 1:4 for as many as join",
    "nproc_per_node": "auto, gpu, cpu, or a number from 1",
    "gpus": "for example 0,2 or free:4",
    "max_restarts": "a number from 0",
    "master_port": "a number from 1 to 65535; without it a free port is picked",
    "start_method": "forkserver or spawn",
    "env": "a name of letters, digits and _, and its value",
    **dict.fromkeys(("check", "strict"), "true or false; or a table `ignore` and limits for check"),
    **dict.fromkeys(
        (
            "time_limit",
            "grace",
            "linger",
            "join_timeout",
            "straggler_notice",
            "hang_timeout",
            "metrics_every",
        ),
        _DURATION,
    ),
    "on_hang": "stop or observe",
    "spare": "a number from 0",
    "track": "tensorboard, wandb, mlflow or trackio",
    "slurm.time": _DURATION,
    "kubernetes.ttl": _DURATION,
    "kubernetes.kind": "job, jobset or trainjob",
    "kubernetes.retries": "a number from 0 to 1000",
}
"""Setting -> valid values, for hints."""
_SCHEMA = "`distrun config schema` shows the valid values"
_VARIABLES = {"DISTRUN_GRACE": "grace"}
"""Variable -> the setting that it is the default of: what an image knows of its surroundings."""
_FLAGS = {"on_failure": "--on"}
"""Setting -> its flag, if that has another name."""
_TABLES = ("env", "check", "slurm", "kubernetes", "on_failure")
"""Settings that are tables: the keys of several files are merged."""
_HOSTS = ("hosts", "hostfile")
"""Settings of which the last source that has one counts alone."""
_WITHOUT_HOSTS = ("local", "slurm", "kubernetes", "compose")
_OF_SCHEDULERS = ("slurm", "kubernetes")
"""Tables whose keys are flags."""
_BEFORE_COMMENT = re.compile(r"""((?:[^\s'"\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*")*)\s+#""")
# The block as PEP 723 defines it.
_BLOCK = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


class ConfigTable(NamedTuple):
    """The `[tool.distrun]` table of a config file."""

    path: Path
    source: str
    """Its name in messages."""
    values: dict[str, Any]


def _tell_nobody(_: str) -> None:
    pass


def job(
    flags: Mapping[str, Any], config: Path | None = None, tell: Tell = _tell_nobody
) -> tuple[Job, dict[str, str], Header]:
    """Merge flags over the config file over the recipe's header over variables over the defaults.

    Args:
        flags: Fields of `Job` that were given on the command line.
        config: The file named with `--config`; the nearest pyproject.toml is read before it.
        tell: Called with a line about the files that were read, and about each that was not.

    Returns:
        The job, the source of each field that is not a default, and the header.

    Raises:
        UsageError: A file cannot be read, or a key or a value is wrong.
    """
    header = _header(flags)
    in_header = _settings_in(header)
    tables = config_tables(config, tell)
    merged, sources = _merged(in_header, flags, tables)
    found = with_hosts(validated(Job, merged, "flag"))
    if found.hostfile is not None:
        sources["hosts"] = f"hostfile {found.hostfile.name}"
    _tell_what_was_read(tables, tell)
    return found, sources, header


def with_header(found: Job) -> tuple[Job, dict[str, str], Header]:
    """Merge a job that was made in Python over the header of its script; see `job`."""
    header = _header(found.model_dump(include={"script", "module", "no_python"}))
    sources = dict.fromkeys(found.model_fields_set, "argument")
    update: dict[str, Any] = {}
    for source, values in (*_in_variables(), ("recipe header", _settings_in(header))):
        missing = {name: value for name, value in values.items() if name not in sources}
        update |= missing
        sources |= dict.fromkeys(missing, source)
    return found.model_copy(update=update), sources, header


def _in_variables(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the source and the settings of each variable that is set.

    Raises:
        UsageError: Its value is wrong.
    """
    for name, field in _VARIABLES.items():
        if value := environ.get(name, "").strip():
            source = f"variable {name}"
            found = validated(Settings, {field: value}, source)
            yield source, {field: getattr(found, field)}


def _header(program: Mapping[str, Any]) -> Header:
    if program.get("module") or program.get("no_python"):
        return Header()
    return recipe_header(Path(program["script"]))


def _settings_in(header: Header) -> dict[str, Any]:
    return header.model_dump(include={"strategy", "nproc_per_node"}, exclude_none=True)


def settings(
    flags: Mapping[str, Any], config: Path | None = None, tell: Tell = _tell_nobody
) -> Settings:
    """Merge flags over the config file over the defaults, without a program.

    Raises:
        UsageError: A file cannot be read, or a key or a value is wrong.
    """
    tables = config_tables(config, tell)
    found = with_hosts(validated(Settings, _merged({}, flags, tables)[0], "flag"))
    _tell_what_was_read(tables, tell)
    return found


def with_hosts(found: _Settings) -> _Settings:
    """Return settings with the hosts of their hostfile, if they name one that is not read yet.

    Raises:
        UsageError: The hostfile cannot be read, or a line is wrong.
    """
    if found.hostfile is None or found.hosts:
        return found
    return found.model_copy(update={"hosts": read_hostfile(found.hostfile)})


def _merged(
    header: Mapping[str, Any], flags: Mapping[str, Any], tables: Sequence[ConfigTable]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields that are not defaults, and the source of each."""
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in (
        *_in_variables(),
        ("recipe header", header),
        *((table.source, table.values) for table in tables),
        ("flag", dict(flags)),
    ):
        if source != "flag":
            validated(Settings, values, source)
        if any(field in values for field in _HOSTS):
            _drop_hosts(merged, sources)
        for name, value in values.items():
            field = name.replace("-", "_")
            if field in _TABLES and isinstance(value, Mapping):
                if field in _OF_SCHEDULERS:
                    value = {key.replace("-", "_"): each for key, each in value.items()}
                before = merged.get(field)
                value = {**(before if isinstance(before, Mapping) else {}), **value}
            merged[field] = value
            sources[field] = source
    if flags.get("on") in _WITHOUT_HOSTS and not any(field in flags for field in _HOSTS):
        _drop_hosts(merged, sources)  # those of a config file
    return merged, sources


def _drop_hosts(merged: dict[str, Any], sources: dict[str, str]) -> None:
    for field in _HOSTS:
        merged.pop(field, None)
        sources.pop(field, None)


def config_tables(named: Path | None, tell: Tell) -> list[ConfigTable]:
    """Return the `[tool.distrun]` table of pyproject.toml and of the named file."""
    files = config_files(named, tell)
    read = [ConfigTable(f.path, *_table(f.path, required=f.named)) for f in files]
    return [_with_own_hostfile(table) for table in read if table.values]


def _with_own_hostfile(table: ConfigTable) -> ConfigTable:
    """Return the table with its hostfile relative to the directory of the config file."""
    if not isinstance(name := table.values.get("hostfile"), str):
        return table
    return table._replace(values={**table.values, "hostfile": str(table.path.parent / name)})


def _tell_what_was_read(tables: Sequence[ConfigTable], tell: Tell) -> None:
    if paths := dict.fromkeys(str(table.path.resolve()) for table in tables):
        tell(f"settings from {', '.join(paths)}")


def _table(path: Path, *, required: bool) -> tuple[str, dict[str, Any]]:
    source = f"config file {path.name}"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"config file {str(path)!r}: {error.strerror}",
            "--config names a TOML file with a table [tool.distrun]",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if not required and b"tool.distrun" not in path.read_bytes():
            return source, {}  # a broken pyproject.toml of another project is ignored
        raise UsageError(
            f"config file {str(path)!r} is not TOML: {error}", "https://toml.io shows the format"
        ) from None
    tool = data.get("tool")
    table = tool.get("distrun") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        if not required:
            return source, {}
        raise UsageError(
            f"config file {str(path)!r} has no table [tool.distrun]",
            "`distrun config schema` shows its keys",
        )
    return source, table


def recipe_header(script: Path) -> Header:
    """Return the recipe's own `[tool.distrun]` table, or an empty one."""
    try:
        if not script.is_file():
            return Header()  # a pipe or a device may have no end, and has no header
        text = script.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return Header()  # the checks report errors of the script itself
    match = _BLOCK.search(text)
    if match is None and re.search(r"(?m)^# /// script$", text) and "tool.distrun" in text:
        raise UsageError(f"the header of {script.name} has no end", "end it with a line `# ///`")
    if match is None:
        return Header()
    lines = match["content"].splitlines()
    body = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)
    source = f"header of {script.name}"
    try:
        tool = tomllib.loads(body).get("tool", {})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{source} is not TOML: {error}",
            "the block must be TOML, with `# ` before each line (PEP 723)",
        ) from None
    table = tool.get("distrun", {}) if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise UsageError(f"[tool.distrun] in the {source} is not a table")
    return validated(Header, table, source)


def env_file(path: Path) -> dict[str, str]:
    """Read KEY=VALUE lines, quoted as in a shell; `#` starts a comment.

    Raises:
        UsageError: The file cannot be read, or a line is not an assignment.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UsageError(
            f"env file {str(path)!r}: {reason}", "--env-file names a file of KEY=VALUE lines"
        ) from None
    environ: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        try:
            words = _words(re.sub(r"^export\s+", "", line.strip()))
        except ValueError:
            words = ["", ""]
        if not words:
            continue
        name, equals, value = words[0].partition("=")
        if len(words) > 1 or not equals or not is_variable(name) or "\0" in value:
            # The line may contain a secret: only its number is shown.
            raise UsageError(
                f"env file {str(path)!r}, line {number} is not KEY=VALUE",
                "put quotes around a value with spaces",
            )
        environ[name] = value
    return environ


def _words(line: str) -> list[str]:
    """Return the words of a line as a shell reads them: `#` begins a comment only before a word.

    Raises:
        ValueError: A quotation has no end.
    """
    if line.startswith("#"):
        return []
    found = _BEFORE_COMMENT.match(line)
    return shlex.split(found[1] if found else line)


def validated(model: type[_Model], values: Mapping[str, Any], source: str) -> _Model:
    """Build a model, or raise a UsageError that names key, value and valid values."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # the tags of unions
        keys = [str(key) for key in first["loc"] if not str(key).startswith("<")]
        raise _usage_error(model, keys, first, source) from None


def _usage_error(model: type[BaseModel], keys: list[str], error: Any, source: str) -> UsageError:
    where = "" if source == "flag" else f" in the {source}"
    key = ".".join([keys[0].replace("_", "-"), *keys[1:]])
    if error["type"] == "extra_forbidden":
        inner: Any = model  # down to the table of the key
        for outer in keys[:-1]:
            if get_origin(inner) is dict:  # keys are free names
                inner = get_args(inner)[1]
            else:
                inner = inner.model_fields[outer.replace("-", "_")].annotation
        known = [name.replace("_", "-") for name in inner.model_fields]
        return UsageError(f"unknown key {key!r}{where}", did_you_mean(keys[-1], known))
    named = keys[1] if keys[0] in _OF_SCHEDULERS and len(keys) > 1 else keys[0]
    flag = _FLAGS.get(named, f"--{named.replace('_', '-')}") if source == "flag" else key
    own = error.get("ctx", {}).get("error")
    if isinstance(own, Refused):
        return UsageError(f"{flag}{where}: {own}", own.hint)
    value = error["input"]
    short = isinstance(value, (str, int, float, bool, list))
    shown = repr(value) if short and not _may_hold_secret(keys) else ""
    if keys[0] == "strategy" and isinstance(value, str):
        return UsageError(f"unknown strategy {value!r}{where}", did_you_mean(value, STRATEGIES))
    said = str(error["msg"]).removeprefix("Value error, ")
    reason = said if error["type"] == "value_error" else f"is refused: {said}"
    hint = _HINTS.get(key if keys[0] in _OF_SCHEDULERS else keys[0].replace("-", "_"), _SCHEMA)
    return UsageError(" ".join(f"{flag} {shown}{where} {reason}".split()), hint)


def _may_hold_secret(keys: list[str]) -> bool:
    """Return whether a value belongs to a secret variable, or to a table of variables."""
    of_variables = keys[0] in ("env", "env_file", "env-file")
    return of_variables and (len(keys) == 1 or is_secret(keys[-1]))
