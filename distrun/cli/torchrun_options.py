"""Options of torchrun before the script, as `distrun launch` takes them: a table and a parser.

An option with a counterpart works. One that asks for what launch does anyway is ignored. For
any other the error says what to use instead. The script and its arguments are not read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distrun.errors import UsageError

_HERE = r"localhost|127\.0\.0\.1|::1|\[::1\]"
_ANY = ".*"
_NODES = (
    "one launch starts every node: `--nodes 2` emulates two on this machine, `--hosts A,B` uses"
    " machines behind ssh, and in an allocation of Slurm it takes that one's nodes"
)
_LOGS = "each rank's output is in a file of its own in the run directory, and on the console"


@dataclass(frozen=True)
class TorchrunOption:
    """How launch handles one option of torchrun."""

    own: str = ""
    """The option of launch with the same meaning."""
    fits: str | None = None
    """A pattern of the values that ask for what launch does anyway."""
    instead: str = ""
    """What to use instead, or why nothing is needed."""
    one_node: bool = False
    """`own` and `fits` hold only for a job of one node."""
    flag: bool = False
    """It takes no value."""


OPTIONS: Mapping[str, TorchrunOption] = {
    "--nnodes": TorchrunOption(own="--nodes"),
    "--nproc-per-node": TorchrunOption(own="--nproc-per-node"),
    "--rdzv-backend": TorchrunOption(fits="static|c10d", instead=_NODES, one_node=True),
    "--rdzv-endpoint": TorchrunOption(fits=rf"(?:{_HERE})(?::\d*)?", instead=_NODES, one_node=True),
    "--rdzv-id": TorchrunOption(fits=_ANY, instead=_NODES, one_node=True),
    "--rdzv-conf": TorchrunOption(
        instead="`--join-timeout TIME` is how long nodes may take to join"
    ),
    "--standalone": TorchrunOption(fits="", flag=True),
    "--max-restarts": TorchrunOption(own="--max-restarts"),
    "--monitor-interval": TorchrunOption(fits=_ANY),  # nothing is polled
    "--start-method": TorchrunOption(own="--start-method"),
    "--event-log-handler": TorchrunOption(
        fits="null",
        instead="every event is in events.jsonl of the run directory, and on stdout with `--json`",
    ),
    "--role": TorchrunOption(
        fits="default", instead="all ranks of a run have the one role default"
    ),
    "--module": TorchrunOption(own="--module", flag=True),
    "--no-python": TorchrunOption(own="--no-python", flag=True),
    "--run-path": TorchrunOption(fits="", flag=True),
    "--log-dir": TorchrunOption(own="--runs-dir"),
    "--redirects": TorchrunOption(fits=_ANY),  # the output is in files in any case
    "--tee": TorchrunOption(fits=_ANY),  # everything is in files, and on the console
    "--local-ranks-filter": TorchrunOption(
        own="--only-rank", instead="`--only-rank 0,3` names ranks of the whole job", one_node=True
    ),
    "--duplicate-stdout-filters": TorchrunOption(
        fits=r"\[\]|", instead="`distrun logs RUN | grep WORD` shows the lines with a word"
    ),
    "--duplicate-stderr-filters": TorchrunOption(
        fits=r"\[\]|", instead="`distrun logs RUN | grep WORD` shows the lines with a word"
    ),
    "--node-rank": TorchrunOption(fits="0", instead=_NODES, one_node=True),
    "--master-addr": TorchrunOption(fits=_HERE, instead=_NODES, one_node=True),
    "--master-port": TorchrunOption(own="--master-port"),
    "--local-addr": TorchrunOption(fits=_HERE, instead=_NODES, one_node=True),
    "--log-line-prefix-template": TorchrunOption(
        instead="`--prefix` and `--no-prefix` say whether a line names its rank"
    ),
    "--print-completion": TorchrunOption(
        instead="`distrun --install-completion` completes words in this shell"
    ),
    "--logs-specs": TorchrunOption(instead=_LOGS),
    "--numa-binding": TorchrunOption(
        instead="it binds no rank to cores; os.sched_setaffinity in the script does"
    ),
    "--signals-to-handle": TorchrunOption(
        fits="SIGTERM,SIGINT,SIGHUP,SIGQUIT",
        instead="it handles every signal: one that would end it stops the ranks first",
    ),
    "--shutdown-timeout": TorchrunOption(own="--grace"),
    "--virtual-local-rank": TorchrunOption(
        flag=True,
        instead="the script can set CUDA_VISIBLE_DEVICES from LOCAL_RANK before it imports torch",
    ),
}
"""Every option of torchrun of torch 2.13 and 2.14, by its name with dashes."""
_EVERY_NODE = "none is needed: one command starts all nodes, --hosts A,B names them"
OF_OTHERS: Mapping[str, str] = {
    "--num-processes": "--nproc-per-node N, the ranks of each node",
    "--num-gpus": "--nproc-per-node N",
    "--num-machines": "--nodes N",
    "--num-nodes": "--nodes N",
    "--gpu-ids": "--gpus 0,2",
    "--include": "--gpus 0,2; with several nodes --hosts A,B",
    "--deepspeed-hostfile": "--hostfile FILE",
    "--machine-rank": _EVERY_NODE,
    "--main-process-ip": _EVERY_NODE,
    "--main-process-port": "--master-port PORT",
    "--mixed-precision": "--env ACCELERATE_MIXED_PRECISION=bf16",
    "--config-file": "--config FILE.toml, with distrun's settings",
    "--enable-each-rank-log": "none is needed: each rank has a log; --runs-dir DIRECTORY",
}
"""What to use in place of options of accelerate and deepspeed, by their names with dashes."""
SHORT = {"-r": "--redirects", "-t": "--tee"}


class Given(NamedTuple):
    """One option of a command line."""

    name: str
    """With dashes."""
    value: str | None
    words: tuple[str, ...]
    """As typed, with dashes in the name."""


def as_own_options(words: Sequence[str], own: Mapping[str, bool]) -> list[str]:
    """Translate the options of torchrun in a command line into those of launch.

    Args:
        words: All arguments after `launch`.
        own: Launch's own options; True for one that takes a value.

    Raises:
        UsageError: An option has no counterpart, or is of another launcher.
    """
    given, rest = split(list(words), own)
    for option in given:
        if option.name in OF_OTHERS and option.name not in own:
            message = f"launch has no option {option.name}: it is of accelerate or deepspeed"
            raise UsageError(message, OF_OTHERS[option.name])
    nnodes = next((g.value for g in reversed(given) if g.name in ("--nnodes", "--nodes")), None)
    one_node = nnodes in (None, "1", "1:1")
    kept: list[str] = []
    refused: dict[str, list[str]] = {}
    for option in given:
        rule = OPTIONS.get(option.name)
        if rule is None or option.name in own:
            kept += option.words
        elif rule.one_node and not one_node:
            refused.setdefault(rule.instead, []).append(option.name)
        elif rule.own:
            kept += [rule.own] if option.value is None else [rule.own, option.value]
        elif rule.fits is None or not re.fullmatch(rule.fits, option.value or ""):
            refused.setdefault(rule.instead, []).append(option.name)
    if refused:
        why = "; ".join(f"{' and '.join(names)}: {text}" for text, names in refused.items())
        command = shlex.join(["distrun", "launch", *kept, *rest])
        raise UsageError(f"launch does not take torchrun's {why}", command)
    return [*kept, *rest]


def split(words: list[str], own: Mapping[str, bool]) -> tuple[list[Given], list[str]]:
    """Return the options before the script, and the script with its arguments."""
    given = []
    while words and words[0] != "--" and words[0].startswith("-") and words[0] != "-":
        given.append(_next(words, own))
    return given, words


def _next(words: list[str], own: Mapping[str, bool]) -> Given:
    """Take one option, with its value, from the arguments."""
    word = words.pop(0)
    if not word.startswith("--"):
        name = SHORT.get(word[:2], word) if word[:2] not in own else word
        value = word[2:].removeprefix("=") if name != word else ""
        equals = value
    else:
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
    if equals:
        return Given(name, value, (f"{name}={value}",))
    if words and (own[name] if name in own else name in OPTIONS and not OPTIONS[name].flag):
        value = words.pop(0)
        return Given(name, value, (name, value))
    return Given(name, None, (name,))
