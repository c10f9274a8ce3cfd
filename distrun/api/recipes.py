"""Lists, finds and copies the recipes that come with distrun."""

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
    *("cp", "moe", "image", "finetune"),
)
"""All recipes, in reading order."""
_OTHER_NAMES = {"3d": "pp_fsdp_tp", "ep": "moe"}


@dataclass(frozen=True)
class Recipe:
    """The entry of a recipe in the list."""

    name: str
    strategy: str
    """"" if nothing is parallel."""
    ranks: str
    """Number of ranks per node by default; "auto": chosen for the machine."""
    title: str
    """The first line of its docstring."""


@dataclass(frozen=True)
class Copied:
    """The result of `copy`."""

    script: Path
    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    """Files that existed with the same contents."""


def folder() -> Path:
    """Return the directory of the recipes: in the installed package, or beside it in a checkout.

    Raises:
        MachineError: There is none in either place.
    """
    package = Path(distrun.__file__).parent
    for found in (package / "_recipes", package.parent / "recipes"):
        if (found / "single.py").is_file():
            return found
    raise MachineError(f"the recipes are not in {package / '_recipes'}", "install distrun again")


def path_of(name: str) -> Path:
    """Return the file of a recipe.

    Raises:
        UsageError: There is no recipe of this name.
    """
    known = _OTHER_NAMES.get(name, name)
    if known not in NAMES:
        raise UsageError(
            f"no recipe has the name {name!r}", did_you_mean(name, (*NAMES, *_OTHER_NAMES))
        )
    return folder() / f"{known}.py"


def script_of(word: str) -> Path:
    """Return the file that `word` names: a recipe, or a user's script, which ends in .py.

    Raises:
        UsageError: There is none.
    """
    own = Path(word)
    if own.suffix != ".py":
        return path_of(word)
    if not own.is_file():
        raise UsageError(
            f"script {word!r} does not exist",
            "`distrun recipes list` shows the names; other scripts need a path",
        )
    return own


def recipes() -> list[Recipe]:
    """Return all recipes, in reading order."""
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
    """Return the unified diff of two recipes or scripts.

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
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{file} cannot be read: {why}") from None


def copy(name: str, target: Path | None, *, force: bool = False) -> Copied:
    """Copy a recipe, and the files that it imports, to a place of the user's choice.

    Args:
        name: Name of the recipe.
        target: A file or a directory; None: the current directory.
        force: Overwrite existing files.

    Raises:
        UsageError: There is no such recipe or place, or a different file exists there.
    """
    source = path_of(name)
    script = _place(source, target)
    needed, imported = _needed(source)
    if script.stem in imported | sys.stdlib_module_names | {"distrun"}:
        raise UsageError(
            f"{script} would replace the module {script.stem!r} that it imports",
            f"use another name, such as my_{script.name}",
        )
    contents = {path.name: path.read_bytes() for path in needed}
    contents[name := script.name] = source.read_bytes()
    try:
        with without_links.directory(script.parent) as fd:
            kept = [each for each, content in contents.items() if holds(fd, each, content)]
            wanted = {each: content for each, content in contents.items() if each not in kept}
            if in_the_way := [each for each in wanted if not force and exists(fd, each)]:
                raise UsageError(
                    f"{script.with_name(in_the_way[0])} exists and is a different file",
                    "choose another directory, or overwrite it with --force",
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
            f"{str(script)!r} is neither a directory nor the name of a script",
            "give an existing directory, or a name that ends in .py",
        )
    if not script.parent.is_dir():
        raise UsageError(
            f"{str(script)!r}: there is no directory {str(script.parent)!r}",
            f"mkdir -p {shlex.quote(str(script.parent))}",
        )
    return script


def _needed(source: Path) -> tuple[list[Path], set[str]]:
    """Return the files that a script needs, and the top-level modules that it imports."""
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
