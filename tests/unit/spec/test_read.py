"""Flags over --config over pyproject.toml over the recipe's header over the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distrun.errors import UsageError
from distrun.spec import read
from distrun.spec.fields import NodeRange
from distrun.spec.job import Header, Layout, Settings

HEADER = """\
# /// script
# dependencies = ["torch"]
#
# [tool.distrun]
# strategy = "fsdp"
# nproc-per-node = 3
# [tool.distrun.constraints]
# world-size = {min = 2, multiple-of = 2}
# strategy = ["ddp", "fsdp"]
# ///
print("train")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print('train')\n")
    return tmp_path


def toml(path: Path, body: str) -> Path:
    path.write_text("[tool.distrun]\n" + body)
    return path


def refusal(*arguments: Any) -> UsageError:
    with pytest.raises(UsageError) as refused:
        read.job(*arguments)
    return refused.value


# --- who wins ------------------------------------------------------------------------


def test_without_anything_all_are_defaults_and_no_source_is_told() -> None:
    job, sources, header = read.job({"script": "train.py"})
    assert (job.nodes, job.nproc_per_node, job.strategy) == (NodeRange(1, 1), "auto", None)
    assert sources == {"script": "flag"}
    assert header == Header()


def test_each_place_wins_over_the_one_before_it(here: Path) -> None:
    (here / "train.py").write_text(HEADER)
    flags: dict[str, object] = {"script": "train.py"}
    seen = []
    for change in (
        lambda: None,
        lambda: toml(here / "pyproject.toml", 'strategy = "tp"'),
        lambda: toml(here / "mine.toml", 'strategy = "pp"'),
        lambda: flags.update(strategy="ddp"),
    ):
        change()
        config = here / "mine.toml" if (here / "mine.toml").exists() else None
        job, sources, _ = read.job(flags, config)
        seen.append((job.strategy, sources["strategy"]))
    assert seen == [
        ("fsdp", "recipe header"),
        ("tp", "config file pyproject.toml"),
        ("pp", "config file mine.toml"),
        ("ddp", "flag"),
    ]


def test_variables_of_all_places_come_together_and_the_flag_wins(here: Path) -> None:
    toml(here / "pyproject.toml", 'env = {A = "project", B = "project"}')
    config = toml(here / "mine.toml", 'env = {B = "config", C = "config"}')
    job, _, _ = read.job({"script": "train.py", "env": {"C": "flag"}}, config)
    assert job.env == {"A": "project", "B": "config", "C": "flag"}


def test_the_nearest_pyproject_above_is_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml(here / "pyproject.toml", "nodes = 2")
    below = here / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    job, sources, _ = read.job({"script": "x.py"})
    assert (job.nodes.max, sources["nodes"]) == (2, "config file pyproject.toml")
    (here / "a" / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert read.job({"script": "x.py"})[0].nodes.max == 1


@pytest.mark.parametrize("key", ["nproc-per-node", "nproc_per_node"])
def test_keys_may_be_written_with_hyphens_or_underscores(here: Path, key: str) -> None:
    job, sources, _ = read.job({"script": "train.py"}, toml(here / "c.toml", f"{key} = 2"))
    assert (job.nproc_per_node, sources["nproc_per_node"]) == (2, "config file c.toml")


def test_a_key_that_only_the_command_line_has_stands_in_no_file(here: Path) -> None:
    error = refusal({"script": "train.py"}, toml(here / "c.toml", 'script = "other.py"'))
    assert error.message == "unknown key 'script' in the config file c.toml"


# --- hosts ------------------------------------------------------------------------------


def hosts_file(path: Path, *lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def labels(found: Settings) -> list[str]:
    return [host.label for host in found.hosts]


def test_a_hostfile_of_the_command_line_is_relative_to_here(here: Path) -> None:
    hosts_file(here / "h", "a slots=4", "ada@b")
    job, sources, _ = read.job({"script": "train.py", "hostfile": "h"})
    assert (labels(job), job.hosts[0].slots) == (["a", "ada@b"], 4)
    assert (sources["hosts"], sources["hostfile"]) == ("hostfile h", "flag")


def test_a_hostfile_of_a_config_file_is_relative_to_that_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts_file(here / "conf" / "h", "a", "b:0")
    config = toml(here / "conf" / "c.toml", 'hostfile = "h"')
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    error = refusal({"script": "train.py"}, Path("../conf/c.toml"))
    assert error.message.startswith("../conf/h:2:1: 'b:0' is not a number of ranks")
    hosts_file(here / "conf" / "h", "a", "b")
    assert labels(read.settings({}, config)) == ["a", "b"]
    toml(config, f'hostfile = "{here}/conf/h"')
    assert labels(read.settings({}, config)) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "said"), [("''", "is a directory"), (r'"a\u0000"', r"a\x00': its name has a NUL")]
)
def test_a_hostfile_that_cannot_be_read_is_refused(here: Path, name: str, said: str) -> None:
    error = refusal({"script": "train.py"}, toml(Path("c.toml"), f"hostfile = {name}"))
    assert error.message.startswith("hostfile '") and error.message.endswith(said)


def test_of_hosts_and_hostfiles_the_last_source_counts_alone(here: Path) -> None:
    hosts_file(here / "h", "of-the-file")
    toml(here / "pyproject.toml", 'hosts = "of-the-project"')
    config = toml(here / "c.toml", 'hostfile = "h"')
    assert labels(read.settings({})) == ["of-the-project"]
    assert labels(read.settings({}, config)) == ["of-the-file"]
    by_flag = read.settings({"hosts": "of-the-flag"}, config)
    assert (labels(by_flag), by_flag.hostfile) == (["of-the-flag"], None)
    error = refusal({"script": "train.py", "hosts": "a", "hostfile": "h"}, config)
    assert error.message == "--hostfile: 'h' and hosts exclude each other"


def test_a_place_without_hosts_leaves_those_of_the_config_unread(here: Path) -> None:
    config = toml(here / "c.toml", 'hostfile = "missing"')
    found = read.settings({"on": "local"}, config)
    assert (found.hosts, found.hostfile) == ((), None)


def test_settings_that_are_built_directly_get_the_hosts_of_their_file(here: Path) -> None:
    found = read.with_hosts(Settings(hostfile=hosts_file(here / "h", "a", "b")))
    assert labels(found) == ["a", "b"]
    (here / "h").unlink()
    assert read.with_hosts(found) is found


# --- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        ("nodez = 2", "unknown key 'nodez' in the config file c.toml", "did you mean 'nodes'?"),
        ("nproc_per_nod = 2", "unknown key 'nproc-per-nod' in the", "did you mean 'nproc-per-node"),
        ('strategy = "fdsp"', "unknown strategy 'fdsp' in the config file c.toml", "did you mean"),
        ('nodes = "two"', "nodes 'two' in the config file c.toml is neither a number", ""),
        ("hosts = 5", "hosts in the config file c.toml: 5 is not a list of hosts", "for example a"),
        ("hosts = [{name = 'a', slot = 2}]", "hosts in the config file c.toml: unknown key", "did"),
        ("hosts = 'a'\nhostfile = 'h'", "hostfile in the config file c.toml: ", "leave one"),
        ("hostfile = 5", "hostfile 5 in the config file c.toml is refused", ""),
        ("env = {MY_VAR = 1}", "env.MY_VAR 1 in the config file c.toml is refused", ""),
        ('env = "A=1"', "env in the config file c.toml is refused", ""),
        ("strategy = 5", "strategy 5 in the config file c.toml is refused", ""),
        ("master-port = 70000", "master-port 70000 in the config file c.toml is refused", ""),
    ],
)
def test_a_wrong_line_of_a_config_file_is_named(
    here: Path, body: str, message: str, hint: str
) -> None:
    error = refusal({"script": "train.py"}, toml(here / "c.toml", body))
    assert error.message.startswith(message)
    assert error.hint.startswith(hint)


@pytest.mark.parametrize(
    "body",
    [
        "env = {MY_TOKEN = 8273}",
        "env = {MY_TOKEN = ['hunter 8273']}",
        "env = {MY_TOKEN = true, DB_PWD = 8273}",
        "env = {MY_TOKEN = {value = 8273}}",
        "env = 'MY_TOKEN=8273'",
        "env = ['MY_TOKEN=8273']",
        "env = {'MY_TOKEN=8273' = ''}",
        "env-file = ['MY_TOKEN=8273']",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_printed(here: Path, body: str) -> None:
    error = refusal({"script": "train.py"}, toml(here / "c.toml", body))
    assert "env" in error.message and "c.toml" in error.message
    assert "8273" not in error.message + error.hint


def test_a_variable_that_is_no_secret_is_told_with_its_value(here: Path) -> None:
    error = refusal({"script": "train.py"}, toml(here / "c.toml", "env = {LR = 5}"))
    assert error.message.startswith("env.LR 5 in the config file c.toml is refused")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes = 2\n", "has no table [tool.distrun]"),
        ("tool = 5\n", "has no table [tool.distrun]"),
        ("[tool]\ndistrun = 5\n", "has no table [tool.distrun]"),
        ("[tool.distrun\n", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
    ],
)
def test_a_config_file_without_a_table_is_refused(here: Path, text: str | bytes, said: str) -> None:
    (here / "c.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    error = refusal({"script": "train.py"}, here / "c.toml")
    assert error.message.startswith("config file ")
    assert said in error.message


@pytest.mark.parametrize(("name", "said"), [("none.toml", "No such file"), (".", "Is a directory")])
def test_a_config_file_that_cannot_be_read_is_named(name: str, said: str) -> None:
    error = refusal({"script": "train.py"}, Path(name))
    assert error.message.startswith(f"config file '{name}': {said}")


@pytest.mark.parametrize("text", ["[tool.ruff", "tool = 5", "[tool]\ndistrun = 5", ""])
def test_a_pyproject_that_is_nobody_elses_business_is_left_alone(here: Path, text: str) -> None:
    (here / "pyproject.toml").write_text(text)
    assert read.job({"script": "train.py"})[1] == {"script": "flag"}


def test_a_broken_pyproject_that_speaks_of_us_is_refused(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.distrun\nnodes = 2\n")
    assert "is not TOML" in refusal({"script": "train.py"}).message


def test_a_header_without_an_end_is_refused(here: Path) -> None:
    (here / "train.py").write_text("# /// script\n# [tool.distrun]\n# strategy = 'ddp'\n")
    error = refusal({"script": "train.py"})
    assert error.message == "the header of train.py has no end"
    assert "# ///" in error.hint


def test_an_unknown_key_in_pyproject_is_told_with_the_nearest_name(here: Path) -> None:
    toml(here / "pyproject.toml", "max-restart = 1")
    error = refusal({"script": "train.py"})
    assert error.message == "unknown key 'max-restart' in the config file pyproject.toml"
    assert error.hint == "did you mean 'max-restarts'?"


def test_a_value_that_is_no_utf_8_never_breaks_the_message(here: Path) -> None:
    error = refusal({"script": "train.py", "nodes": "\udcff"})
    assert error.message == r"--nodes '\udcff' is neither a number nor MIN:MAX"


# --- the recipe's header ------------------------------------------------------------------


def header_of(here: Path, text: str | bytes) -> Header:
    path = here / "recipe.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read.recipe_header(path)


@pytest.mark.parametrize(
    "text",
    [
        HEADER,
        "#!/usr/bin/env python\n\nimport os\n" + HEADER,
        HEADER.replace("\n", "\r\n"),
        "\ufeff" + HEADER,
        '"""Doc."""\n' + HEADER + "# caf\u00e9\n",
    ],
    ids=["plain", "after code", "CRLF", "byte order mark", "accents"],
)
def test_a_header_gives_strategy_ranks_and_constraints(here: Path, text: str) -> None:
    header = header_of(here, text)
    assert (header.strategy, header.nproc_per_node) == ("fsdp", 3)
    assert header.constraints.world_size.broken_by(3) == "a multiple of 2"
    assert header.constraints.strategy == ("ddp", "fsdp")


def test_a_comment_in_a_header_is_one(here: Path) -> None:
    commented = HEADER.replace("# [tool.distrun]", "# # a comment\n#\n# [tool.distrun]", 1)
    assert commented != HEADER
    assert header_of(here, commented) == header_of(here, HEADER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# /// other\n# [tool.distrun]\n# strategy = 'ddp'\n# ///\n",
        "    # /// script\n    # [tool.distrun]\n    # ///\n",
        "# /// script\n# dependencies = []\n# ///\n",
        "# /// script\n# ///\n",
        b"\xff\xfe\x00 not text",
    ],
    ids=["empty", "another block", "indented", "no table", "nothing in it", "binary"],
)
def test_what_is_no_header_is_none(here: Path, text: str | bytes) -> None:
    assert header_of(here, text) == Header()


@pytest.mark.parametrize(
    ("lines", "said", "hint"),
    [
        ("[tool.distrun\n", "header of recipe.py is not TOML", ""),
        ("[tool.distrun]\nstrategi = 'ddp'", "unknown key 'strategi' in the header of", "did you"),
        ("[tool.distrun]\nstrategy = 'dppp'", "unknown strategy 'dppp' in the header of", "did"),
        ("[tool.distrun]\nnodes = 2", "unknown key 'nodes' in the header of recipe.py", ""),
        ("[tool.distrun]\nnproc-per-node = 0", "nproc-per-node 0 in the header of", ""),
        (
            "[tool.distrun.constraints]\nworld-sise = {min = 2}",
            "unknown key 'constraints.world-sise' in the header of",
            "did you mean 'world-size'?",
        ),
        ("[tool.distrun.verify]\nalon = []", "unknown key 'verify.alon' in", "did you mean 'alone"),
        ("[tool.distrun.verify]\nreference = '../x'", "verify.reference '../x' in the", ""),
        (
            "[tool.distrun.verify.layouts]\n'tp 2' = {ranks = 2, arg = []}",
            "unknown key 'verify.layouts.tp 2.arg' in the header of",
            "did you mean 'args'?",
        ),
        (
            "[tool.distrun.verify.layouts]\n'tp 2' = {ranks = 0}",
            "verify.layouts.tp 2.ranks 0 in the header of",
            "",
        ),
        ("[tool]\ndistrun = 5", "[tool.distrun] in the header of recipe.py is not a table", ""),
        ("tool = 5", "[tool.distrun] in the header of recipe.py is not a table", ""),
    ],
)
def test_a_malformed_header_is_refused_by_name(
    here: Path, lines: str, said: str, hint: str
) -> None:
    block = "".join(f"# {line}\n" for line in lines.splitlines())
    with pytest.raises(UsageError) as refused:
        header_of(here, f"# /// script\n{block}# ///\n")
    assert refused.value.message.startswith(said)
    assert refused.value.hint.startswith(hint)


def test_a_header_lists_the_layouts_that_verify_compares(here: Path) -> None:
    (here / "train.py").write_text(
        "# /// script\n# [tool.distrun.verify]\n# reference = 'single'\n# alone = ['--tp', '1']\n"
        "# [tool.distrun.verify.layouts]\n"
        "# 'hsdp 2x2' = { ranks = 4, args = ['--replicate', '2'] }\n# tp = { ranks = 2 }\n# ///\n"
    )
    verify = read.recipe_header(here / "train.py").verify
    assert (verify.reference, verify.alone) == ("single", ("--tp", "1"))
    assert verify.layouts == {
        "hsdp 2x2": Layout(ranks=4, args=("--replicate", "2")),
        "tp": Layout(ranks=2),
    }


def test_a_module_or_a_program_has_no_header(here: Path) -> None:
    (here / "train.py").write_text(HEADER)
    for way in ("module", "no_python"):
        job, _, header = read.job({"script": "train.py", way: True})
        assert (job.strategy, header) == (None, Header())


def test_a_header_is_not_looked_for_in_what_is_no_file(here: Path) -> None:
    assert read.recipe_header(here) == Header()
    assert read.recipe_header(here / "none.py") == Header()
    assert read.recipe_header(Path("/dev/zero")) == Header()
