"""Reads a recipe's settings and sizes from its source, without running it and without torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distrun
from distrun.errors import UsageError, did_you_mean

_CONFIG_FILE = Path(distrun.__file__).parent / "train" / "config.py"
_BASES = ("TrainConfig", "WindowConfig", "TextConfig")


@dataclass(frozen=True)
class Setting:
    """One setting, and flag, of a script.

    Attributes:
        kind: bool, int, float or str.
        default: Its value if it is not given.
        choices: The valid values; (): any.
        low: The smallest valid number.
    """

    kind: str
    default: Any
    choices: tuple[str, ...] = ()
    low: float | None = None


@dataclass(frozen=True)
class Script:
    """What the source of a recipe says.

    Attributes:
        path: The file.
        settings: All of its flags.
        own: Names of those that its own Config adds.
        sizes: The models of `--size`, from the model's file.
        calls: Every name, and keyword of a call, that the source uses.
    """

    path: Path
    settings: Mapping[str, Setting]
    own: frozenset[str]
    sizes: Mapping[str, Mapping[str, Any]]
    calls: frozenset[str]


WITHOUT_SCRIPT = {
    "size": Setting("str", ""),
    "tied": Setting("bool", None),
    "seq_len": Setting("int", 2048, (), 2),
    "rows": Setting("int", 1, (), 1),
    "accumulate": Setting("int", 1, (), 1),
    "recompute": Setting("str", "none", ("none", "attention", "selective", "alternate", "full")),
    "compile": Setting("bool", False),
    "replicate": Setting("int", 1, (), 1),
    "shard": Setting("int", None, (), 1),
    "tp": Setting("int", 1, (), 1),
    "pp": Setting("int", 1, (), 1),
    "cp": Setting("int", 1, (), 1),
    "ep": Setting("int", 1, (), 1),
    "zero": Setting("int", 3, ("0", "1", "2", "3")),
    "flow": Setting("str", "1f1b", ("gpipe", "1f1b", "interleaved")),
    "offload": Setting("bool", False),
    "loss_chunks": Setting("int", 1, (), 1),
    "preset": Setting("str", "fsdp"),
}
"""The flags for a model that no recipe trains; `rows` are sequences of a micro-batch on a rank."""


def read_script(path: Path) -> Script:
    """Read a script that is a recipe of the GPT, or a copy of one.

    Raises:
        UsageError: It cannot be read, or has no Config over TextConfig.
    """
    tree = _parsed(path)
    config = next((c for c in _classes(tree) if c.name == "Config"), None)
    bases = [ast.unparse(base) for base in config.bases] if config else []
    if config is None or "TextConfig" not in bases:
        raise UsageError(
            f"{path.name} has no `class Config(TextConfig)`, by which the formula knows a recipe of"
            " the GPT",
            f"distrun estimate {path.name} --trace runs its own step without ranks and GPUs; or"
            " dimensions instead of a script: distrun estimate --dims layers=32,dim=4096,…",
        )
    common = _parsed(_CONFIG_FILE)
    settings: dict[str, Setting] = {}
    for base in _BASES:
        found = next(c for c in _classes(common) if c.name == base)
        settings |= dict(_settings(found, common))
    own = dict(_settings(config, common))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg}
    return Script(path, settings | own, frozenset(own), sizes(path), frozenset(names))


def sizes(script: Path) -> dict[str, dict[str, Any]]:
    """Return the models of `SIZES` in the model.py beside a script; {} without one."""
    file = script.with_name("model.py")
    if not file.is_file():
        return {}
    for node in _parsed(file).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not (isinstance(target, ast.Name) and target.id == "SIZES"):
            continue
        if isinstance(node.value, ast.Dict):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {
                str(_number(file, key)): {
                    word.arg: _number(file, word.value) for word in value.keywords if word.arg
                }
                for key, value in pairs
                if key is not None and isinstance(value, ast.Call)
            }
    return {}


def _number(file: Path, node: ast.expr) -> Any:
    """Return a number or a text of SIZES.

    Raises:
        UsageError: It is an expression, and a script that is estimated is not run.
    """
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise UsageError(
            f"{file.name}, line {node.lineno}: {ast.unparse(node)} in SIZES is not a number",
            "write the number itself: the file is read, not run",
        ) from None


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UsageError(f"{path.name} is not Python{line}: {error}") from None


def _classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in tree.body if isinstance(node, ast.ClassDef))


def _settings(config: ast.ClassDef, common: ast.Module) -> Iterator[tuple[str, Setting]]:
    """Yield the fields of a Config that are made by `option(default, text, low, high)`."""
    alias = {
        node.targets[0].id: ast.unparse(node.value)
        for node in common.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in config.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call)):
            continue
        assert isinstance(node.target, ast.Name)
        annotation = ast.unparse(node.annotation)
        annotation = alias.get(annotation, annotation)
        if not node.value.args:
            continue  # a field of dataclasses, which is no flag
        arguments = [_literal(argument) for argument in node.value.args]
        choices: tuple[str, ...] = ()
        if annotation.startswith("Literal["):
            choices = tuple(ast.literal_eval(f"({annotation[8:-1]},)"))
        kind = "str" if choices else annotation.partition(" ")[0]
        low = arguments[2] if len(arguments) > 2 else None
        yield node.target.id, Setting(kind, arguments[0], choices, low)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None  # such as 2**63 - 1, a limit that no one meets


def values_of(words: Sequence[str], settings: Mapping[str, Setting], whose: str) -> dict[str, Any]:
    """Return the settings that a command line gives, by name.

    Args:
        words: `--batch-size 64 --no-reshard --size=8B`.
        settings: The flags that there are.
        whose: Of what, for errors.

    Raises:
        UsageError: A flag is not known, or its value not valid.
    """
    found: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        negated = name.removeprefix("no_")
        if not word.startswith("--") or (name not in settings and negated not in settings):
            flags = ["--" + each.replace("_", "-") for each in settings]
            raise UsageError(f"{whose} has no flag {word!r}", did_you_mean(flag, flags))
        if name not in settings or settings[name].kind == "bool":
            if equals:
                raise UsageError(f"{flag} takes no value, and {value!r} was given", flag)
            found[negated if name not in settings else name] = name in settings
            continue
        if not equals:
            if not left:
                raise UsageError(f"{flag} lacks its value", f"{flag} {settings[name].default}")
            value = left.pop(0)
        found[name] = _value(flag, value, settings[name])
    return found


def _value(flag: str, text: str, setting: Setting) -> Any:
    if setting.choices and text not in setting.choices:
        raise UsageError(
            f"{flag} {text!r} is not one of {', '.join(setting.choices)}",
            did_you_mean(text, setting.choices),
        )
    try:
        value = {"int": int, "float": float}.get(setting.kind, str)(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a number", f"{flag} {setting.default}") from None
    if setting.low is not None and not isinstance(value, str) and not value >= setting.low:
        raise UsageError(f"{flag} {text} is below {setting.low}", f"{flag} {setting.low}")
    return value
