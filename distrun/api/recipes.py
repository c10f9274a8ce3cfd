"""The recipes that come with distrun: list them, find them, copy them with what they import."""

from __future__ import annotations

import ast
import difflib
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import distrun
from distrun.api import without_links
from distrun.api.without_links import exists, holds
from distrun.errors import MachineError, UsageError, did_you_mean
from distrun.spec.read import recipe_header

NAMES = (
    *("dp", "ddp", "single", "ddp_gpt", "zero1", "fsdp", "tp", "fsdp_tp", "pp", "pp_fsdp_tp"),
    *("cp", "moe"),
)
"""All of them, in the order to read them in."""
_OTHER_NAMES = {"3d": "pp_fsdp_tp", "ep": "moe"}


@dataclass(frozen=True)
class Recipe:
    """What the list tells of one."""

    name: str
    strategy: str
    """"" where nothing is parallel."""
    ranks: str
    """How many it starts by default; "auto" for as many as the machine suggests."""
    title: str
    """The first line of its docstring."""


@dataclass(frozen=True)
class Copied:
    """What `copy` did."""

    script: Path
    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    """Those that were there already, byte for byte the same."""


def folder() -> Path:
    """Return where the recipes are: in the package if it is installed, else beside it.

    Raises:
        MachineError: In neither.
    """
    package = Path(distrun.__file__).parent
    for found in (package / "_recipes", package.parent / "recipes"):
        if (found / "single.py").is_file():
            return found
    raise MachineError(f"the recipes are not in {package / '_recipes'}", "install distrun anew")


def path_of(name: str) -> Path:
    """Return the file of a recipe.

    Raises:
        UsageError: There is none of this name.
    """
    known = _OTHER_NAMES.get(name, name)
    if known not in NAMES:
        raise UsageError(
            f"no recipe is called {name!r}", did_you_mean(name, (*NAMES, *_OTHER_NAMES))
        )
    return folder() / f"{known}.py"


def script_of(word: str) -> Path:
    """Return the file that `word` means: a recipe's, or the user's own, which ends in .py.

    Raises:
        UsageError: There is none.
    """
    own = Path(word)
    if own.suffix != ".py":
        return path_of(word)
    if not own.is_file():
        raise UsageError(
            f"script {word!r} does not exist", "`distrun recipes list` shows names; a path is yours"
        )
    return own


def recipes() -> list[Recipe]:
    """Return all of them, in the order to read them in."""
    return [_recipe(name) for name in NAMES]


def _recipe(name: str) -> Recipe:
    path = path_of(name)
    header = recipe_header(path)
    docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    return Recipe(
        name,
        header.strategy or "",
        str(header.nproc_per_node or "auto"),
        docstring.partition("\n")[0],
    )


def diff(a: str, b: str) -> str:
    """Return the unified diff of two recipes, or of scripts of the user's own.

    Raises:
        UsageError: One of them cannot be read.
    """
    files = script_of(a), script_of(b)
    before, after = (_text(file).splitlines(keepends=True) for file in files)
    return "".join(difflib.unified_diff(before, after, files[0].name, files[1].name))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"{file} cannot be read: {why}") from None


def copy(name: str, target: Path | None, *, force: bool = False) -> Copied:
    """Write a recipe, and the files beside it that it needs, where the user wants it.

    Args:
        name: Of the recipe.
        target: A file, or a directory; None: this one.
        force: Overwrite files that are there.

    Raises:
        UsageError: There is no such recipe or place, or a different file is in the way.
    """
    source = path_of(name)
    script = _place(source, target)
    needed, imported = _needed(source)
    if script.stem in imported | sys.stdlib_module_names | {"distrun"}:
        raise UsageError(
            f"{script} would take the place of the module {script.stem!r} that it imports",
            f"another name, such as my_{script.name}",
        )
    contents = {path.name: path.read_bytes() for path in needed}
    contents[name := script.name] = source.read_bytes()
    try:
        with without_links.directory(script.parent) as fd:
            kept = [each for each, content in contents.items() if holds(fd, each, content)]
            wanted = {each: content for each, content in contents.items() if each not in kept}
            if in_the_way := [each for each in wanted if not force and exists(fd, each)]:
                raise UsageError(
                    f"{script.with_name(in_the_way[0])} is there already, and is another file",
                    "another directory, or --force to overwrite it",
                )
            for name, content in wanted.items():
                without_links.write(fd, name, content, replace=force)
    except OSError as error:
        raise UsageError(f"{script.with_name(name)} cannot be written: {error.strerror}") from None
    return Copied(script, tuple(map(script.with_name, wanted)), tuple(map(script.with_name, kept)))


def _place(source: Path, target: Path | None) -> Path:
    script = Path(source.name) if target is None else target
    if script.is_dir():
        script = script / source.name
    if script.suffix != ".py":
        raise UsageError(
            f"{str(script)!r} is no directory, and no name of a script",
            "a directory that is there, or a name that ends in .py",
        )
    if not script.parent.is_dir():
        raise UsageError(
            f"{str(script)!r}: there is no directory {str(script.parent)!r}",
            f"mkdir -p {shlex.quote(str(script.parent))}",
        )
    return script


def _needed(source: Path) -> tuple[list[Path], set[str]]:
    """Return the files beside a script that it needs, and the top-level modules it imports."""
    needed: list[Path] = []
    imported: set[str] = set()
    left = [source]
    while left:
        for node in ast.walk(ast.parse(left.pop().read_bytes())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module.partition(".")[0]]
            imported.update(names)
            files = [source.with_name(f"{name}.py") for name in names]
            if isinstance(node, ast.Constant) and str(node.value).endswith(".npz"):
                files = [source.with_name(str(node.value))]  # data that it opens
            for file in files:
                if file not in needed and file.is_file():
                    needed.append(file)
                    left += [file] if file.suffix == ".py" else []
    return needed, imported
