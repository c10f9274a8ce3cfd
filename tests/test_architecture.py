"""The map of the rooms holds: who imports whom, what is heavy where, how long a file is.

The table is DESIGN.md's. When a test complains, move the code, do not widen the table.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES, MAX_RECIPE_LINES = 400, 300
MAX_TEST_LINES = 60
VAGUE_NAMES = {"utils", "helpers", "common", "misc"}

VESTIBULE = {
    *("errors", "env", "bandwidth", "frames", "processes", "peaks", "distrun"),
    *("silence", "signals", "signal_masks", "listen", "streams", "extras", "wire", "agent_start"),
    *("identity", "failures", "cgroups"),
}
"""Modules that everybody may import, and that import nothing but the standard library."""
OF_WORKERS = {"torch_private", "torch_fakes"}
"""Modules that import torch, and that whoever may import torch may import."""
INNER_ROOMS = {"estimate.tracer"}
"""Rooms inside a room, in a world of their own: the outer room may not import them."""
ARROWS: dict[str, set[str]] = {
    "cli": {"api", "plan.show", "spec"},
    "api": {
        *("plan", "schedulers", "checks", "nodes", "probe", "supervise", "runs", "diagnose"),
        *("estimate", "report", "spec"),
    },
    "estimate": {"spec", "probe.snapshot"},
    "estimate.tracer": {"estimate", "comm", "train"},
    "schedulers": {"plan", "supervise", "runs", "nodes", "probe", "spec"},
    "supervise": {"plan.model", "diagnose", "runs", "nodes.conversation", "nodes.handed"},
    "nodes": {"probe", "spec.snapshot"},
    "plan": {"spec", "probe.host", "probe.snapshot"},
    "checks": {"probe.script", "probe.snapshot"},
    "probe": set(),
    "runs": set(),
    "report": {"diagnose", "runs", "spec"},
    "diagnose": set(),
    "spec": set(),
    "agent": set(),
    "train": {"comm", "dcp"},
    "dcp": set(),
    "comm": set(),
    "bench": {"comm", "probe.cgroup"},
    "testing": {"comm", "agent"},
}
"""Room -> the rooms, or modules of rooms, that it may import beside itself and the vestibule."""
THIRD_PARTY = {
    "torch": {
        *("agent", "comm", "bench", "train", "dcp", "testing", "recipes", "estimate.tracer"),
        *OF_WORKERS,
    },
    "numpy": {"train", "dcp", "bench", "testing", "recipes", "estimate.tracer"},
    "safetensors": {"dcp", "recipes"},
    "PIL": {"recipes"},
    "onnxruntime": {"train"},
    "typer": {"cli"},
    "rich": {"cli"},
    "pydantic": {"spec"},
    "tomli": {"spec"},
    "psutil": {"probe", "supervise"},
    "kubernetes": {"schedulers"},
    "urllib3": {"schedulers"},
    "yaml": {"schedulers", "spec"},
    "pynvml": {"probe"},
    "cloudpickle": {"testing"},
    "pytest": {"testing"},
    "matplotlib": {"cli"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "pyarrow": {"report"},
    "wandb": {"train"},
    "mlflow": {"train"},
    "trackio": {"train"},
}
"""Package -> the rooms that may import it."""
PARTS_OF_EVERY_COMMAND = {
    *("assignments", "commands", "debug_rank", "help_groups", "launch_command", "output_file"),
    *("rank_list", "run_to_end", "stdin", "torchrun_options", "resumed_words"),
    *("submit_run", "follow_job", "job_warning", "kubernetes_flags"),
}
"""Modules of cli that are no command, and so may be imported by commands and by one another; in
the rooms of cli, all but `command`."""
PARTS_OF_EVERY_RULE = {"rule", "limits", "each", "nics", "skips", "words", "nodes.compare"}
"""Modules of checks that are no rule, and so may be imported by rules and by one another."""
THEY_PUT_PARTS_TOGETHER = {"registry", "quick", "across", "judge", "site"}
"""Modules of checks and schedulers that import rules, or schedulers."""
PARTS_OF_EVERY_SCHEDULER = {
    *("place", "platforms", "sbatch", "slurm_states", "slurm_commands", "yaml_text"),
    *(f"kubernetes.{part}" for part in ("manifest", "pod", "workloads", "merge", "keys", "text")),
    *("kube_access", "kube_refusals", "kube_server", "kube_streams", "pod_states"),
    *("compose", "container_engine"),
}
"""The same for schedulers."""


class Import(NamedTuple):
    """One import statement, with what it names."""

    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def python_files(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


def module_name(file: Path) -> str:
    """Return `distrun.cli.main` for distrun/cli/main.py, `recipes.ddp` for a recipe."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in python_files("distrun", "recipes")}


def imports_of(file: Path) -> Iterator[Import]:
    """Yield every import of a file, those inside functions and TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: relative imports hide the room"
            assert node.module
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield Import(file, node.lineno, whole if whole in MODULES else node.module)


IMPORTS = [found for file in MODULES.values() for found in imports_of(file)]


def room_of(module: str) -> str:
    """Return `cli` for distrun.cli.main, `errors` for distrun.errors, `recipes` for a recipe."""
    parts = module.split(".")
    if ".".join(parts[1:3]) in INNER_ROOMS:
        return ".".join(parts[1:3])
    return parts[1] if parts[0] == "distrun" and len(parts) > 1 else parts[0]


def test_every_room_has_its_line_in_the_table() -> None:
    rooms = {p.name for p in (ROOT / "distrun").iterdir() if (p / "__init__.py").is_file()}
    assert rooms | INNER_ROOMS == set(ARROWS)
    files = {p.stem for p in (ROOT / "distrun").glob("*.py")}
    assert files - {"__init__", "__main__"} <= VESTIBULE | OF_WORKERS


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    allowed = {room} | VESTIBULE | ARROWS[room]
    if room in THIRD_PARTY["torch"]:
        allowed |= OF_WORKERS
    wrong = [
        str(found)
        for found in IMPORTS
        if room_of(module_name(found.file)) == room
        and found.module.partition(".")[0] == "distrun"
        and room_of(found.module) not in allowed
        and found.module.removeprefix("distrun.") not in allowed
    ]
    assert not wrong


def test_the_vestibule_imports_only_itself_and_the_standard_library() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if room_of(module_name(found.file)) in VESTIBULE - {"distrun"}
        and found.module.partition(".")[0] not in sys.stdlib_module_names
        and room_of(found.module) not in VESTIBULE
    ]
    assert not wrong


def test_a_package_from_elsewhere_is_imported_only_in_its_rooms() -> None:
    wrong = []
    for found in IMPORTS:
        package = found.module.partition(".")[0]
        if package == "distrun" or package in sys.stdlib_module_names:
            continue
        if package in {file.stem for file in found.file.parent.glob("*.py")}:
            continue  # a recipe's neighbour, as a script sees it
        if room_of(module_name(found.file)) not in THIRD_PARTY.get(package, set()):
            wrong.append(str(found))
    assert not wrong


@pytest.mark.parametrize(
    ("room", "parts"),
    [("checks", PARTS_OF_EVERY_RULE), ("schedulers", PARTS_OF_EVERY_SCHEDULER)],
)
def test_rules_and_schedulers_never_import_one_another(room: str, parts: set[str]) -> None:
    wrong = []
    for found in IMPORTS:
        importer, imported = module_name(found.file), found.module
        if room_of(importer) != room or room_of(imported) != room or imported == importer:
            continue
        if importer.removeprefix(f"distrun.{room}.") in THEY_PUT_PARTS_TOGETHER:
            continue
        if imported.removeprefix(f"distrun.{room}.") not in parts:
            wrong.append(str(found))
    assert not wrong


def test_a_command_never_imports_another_command() -> None:
    wrong = []
    for found in IMPORTS:
        importer, imported = module_name(found.file), found.module
        if room_of(importer) != "cli" or room_of(imported) != "cli":
            continue
        if importer in ("distrun.cli.app", "distrun.cli.main", "distrun.cli.man"):
            continue  # they put the commands together
        part = imported.removeprefix("distrun.cli.")
        room, _, name = part.rpartition(".")
        if part not in PARTS_OF_EVERY_COMMAND and (not room or name == "command"):
            wrong.append(str(found))
    assert not wrong


def test_a_recipe_imports_only_its_data_its_model_and_what_works_under_bare_torchrun() -> None:
    wrong = []
    for found in IMPORTS:
        if room_of(module_name(found.file)) != "recipes":
            continue
        if found.module.startswith("distrun"):
            if room_of(found.module) not in {"env", "train", *OF_WORKERS}:
                wrong.append(str(found))
        elif (ROOT / "recipes" / f"{found.module}.py").is_file() and _is_a_program(found.module):
            wrong.append(str(found))
    assert not wrong


def _is_a_program(recipe: str) -> bool:
    return '__name__ == "__main__"' in (ROOT / "recipes" / f"{recipe}.py").read_text()


def test_nobody_imports_the_program_of_a_room() -> None:
    wrong = [str(f) for f in IMPORTS if f.module.endswith("__main__")]
    assert not wrong


def test_no_import_goes_round_in_a_circle() -> None:
    edges: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in IMPORTS:
        if found.module in MODULES:
            edges[module_name(found.file)].add(found.module)
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for imported in sorted(edges[name]):
                visit(imported, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_no_file_is_longer_than_a_reader_bears() -> None:
    long = {}
    for file in python_files("distrun", "recipes", "tests", "benchmarks"):
        count = len(file.read_text(encoding="utf-8", errors="replace").splitlines())
        if count > (MAX_RECIPE_LINES if file.parent == ROOT / "recipes" else MAX_LINES):
            long[str(file.relative_to(ROOT))] = count
    assert not long


def test_no_function_of_a_test_is_longer_than_a_screen() -> None:
    long = {}
    for file in python_files("tests"):
        if file.name == "syntax_error.py":  # broken on purpose
            continue
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                nlines = node.end_lineno - node.lineno + 1
                if nlines > MAX_TEST_LINES:
                    long[f"{file.relative_to(ROOT)}:{node.name}"] = nlines
    assert not long


def test_no_file_has_a_name_that_says_nothing() -> None:
    files = python_files("distrun", "recipes", "tests", "benchmarks")
    assert not [str(f) for f in files if VAGUE_NAMES & {f.stem, f.parent.name}]


# --- what an import really loads -----------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter loads for a statement."""
    code = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "found = sorted(set(sys.modules) - before); import json; print(json.dumps(found))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 0, child.stderr
    return set(json.loads(child.stdout))


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_importing_the_package_loads_nothing_else() -> None:
    assert loaded_by("import distrun") == {"distrun"}


def test_the_command_line_starts_light() -> None:
    loaded = loaded_by("import distrun.cli.main, distrun.cli.app")
    heavy = {"torch", "numpy", "pydantic", "rich", "psutil", "pynvml", "tomllib", "asyncio"}
    assert not packages(loaded) & heavy
    own = {name for name in loaded if name.startswith("distrun.")}
    rooms = {"cli", "env", "errors", "extras", "processes", "streams"}
    assert {room_of(name) for name in own} == rooms
    others = packages(loaded) - sys.stdlib_module_names - {"distrun"}
    assert others <= {"typer", "click", "shellingham", "typing_extensions", "annotated_doc"}


def test_the_supervisor_stays_small() -> None:
    loaded = packages(loaded_by("import distrun.supervise.__main__"))
    assert not loaded & {"torch", "numpy", "typer", "rich", "pydantic", "asyncio"}


@pytest.mark.parametrize("module", ["distrun.train.metrics", "distrun.env", "distrun.processes"])
def test_what_a_worker_imports_brings_nothing_from_elsewhere(module: str) -> None:
    loaded = packages(loaded_by(f"import {module}"))
    assert loaded - sys.stdlib_module_names == {"distrun"}


def test_the_pytest_plugin_brings_no_torch_until_a_test_runs_on_ranks() -> None:
    loaded = packages(loaded_by("import distrun.testing.plugin, distrun.testing"))
    assert not loaded & {"torch", "numpy", "cloudpickle", "typer", "rich", "pydantic", "psutil"}


@pytest.mark.parametrize("room", ["comm", "testing", "train", "dcp", "bench", "agent"])
def test_a_worker_never_brings_what_the_command_line_is_made_of(room: str) -> None:
    modules = [m for m in MODULES if room_of(m) == room and m != "distrun.agent.main"]
    mine = {found.module for found in IMPORTS if room_of(module_name(found.file)) == room}
    assert modules
    assert not {module.partition(".")[0] for module in mine} & {"typer", "rich", "pydantic"}
    assert "schedulers" not in {room_of(module) for module in mine}
