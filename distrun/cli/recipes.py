"""`distrun recipes`."""

from __future__ import annotations

import json as json_format
import shlex
import sys
from pathlib import Path

import typer

from distrun.cli.commands import Commands

app = typer.Typer(
    help="Training scripts, one a parallel strategy, to read and to copy.",
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Commands,
)
_NAME = typer.Argument(..., metavar="NAME", help="As in `distrun recipes list`.")


@app.command("list")
def show_list(json: bool = typer.Option(False, "--json", help="Print a JSON list.")) -> None:
    """List them, in the order in which to read them."""
    from distrun.api.recipes import recipes
    from distrun.cli.screen import render

    if json:
        typer.echo(json_format.dumps([vars(recipe) for recipe in recipes()]))
        return
    rows = [(r.name, r.strategy or "-", r.ranks, r.title) for r in recipes()]
    render.table(["name", "strategy", "ranks", "what it shows"], rows, right=["ranks"])


@app.command("show")
def show(name: str = _NAME) -> None:
    """Print the source of a recipe."""
    from distrun.api.recipes import path_of
    from distrun.cli.screen import render

    render.source(path_of(name).read_text(encoding="utf-8"), "python")


@app.command("path")
def path(name: str = _NAME) -> None:
    """Print the path of a recipe."""
    from distrun.api.recipes import path_of

    typer.echo(path_of(name))


@app.command("copy")
def copy(
    name: str = _NAME,
    target: Path = typer.Argument(None, metavar="[TARGET.py|DIR]", help="Where to [NAME.py]."),
    force: bool = typer.Option(False, "--force", "-f", help="Overwrite files that are there."),
) -> None:
    """Copy a recipe, and the files that it imports, for you to change."""
    from distrun.api.recipes import copy as copy_recipe

    copied = copy_recipe(name, target, force=force)
    for written in copied.written:
        typer.echo(f"wrote {written}")
    for kept in copied.kept:
        typer.echo(f"{kept} is there already")
    typer.echo(f"run it: distrun launch {shlex.quote(str(copied.script))}")


@app.command("diff")
def diff(
    a: str = typer.Argument(..., metavar="A", help="A recipe, or a script of your own."),
    b: str = typer.Argument(..., metavar="B", help="Another."),
) -> None:
    """Print how two recipes differ: what the second strategy adds to the first."""
    from distrun.api.recipes import diff as diff_of
    from distrun.cli.screen import render

    render.source(diff_of(a, b), "diff")


@app.command("export")
def export(
    run: str = typer.Argument(
        ..., metavar="RUN", help="A run, as in `distrun logs`, or a directory of checkpoints."
    ),
    output: Path = typer.Option(
        ..., "-o", "--output", metavar="FILE", help="The file to write; its ending is the format."
    ),
    file_format: str = typer.Option(
        None,
        "--format",
        metavar="FORMAT",
        help="safetensors, onnx or torch-export [by the ending: .safetensors, .onnx, .pt2].",
    ),
    script: Path = typer.Option(
        None, "--script", help="For onnx and torch-export: the recipe [that of the run]."
    ),
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    json: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> None:
    """Write the model of a run's last good checkpoint as one file.

    safetensors: the tensors, with the names of the plain model, whatever the parallelism was.
    onnx and torch-export: a program that needs no recipe. For these the recipe is imported, and the
    program is run beside the model (onnx: by onnxruntime) before the file gets its name. Exit
    code 1: no checkpoint is whole, or the model is no such program.
    """
    from distrun.api.export import FORMATS, checkpoints_of
    from distrun.api.export import export as export_model
    from distrun.cli import output_file
    from distrun.cli.screen.console import plain, report_error, say
    from distrun.errors import UsageError, did_you_mean

    if file_format is not None and file_format not in FORMATS:
        raise UsageError(
            f"--format {file_format!r} is not known", did_you_mean(file_format, FORMATS)
        )
    endings = FORMATS.values() if file_format is None else [FORMATS[file_format]]
    output_file.require([output], tuple(endings))
    exported = export_model(checkpoints_of(runs_dir, run), output, script)
    if json:
        typer.echo(json_format.dumps({**vars(exported), "file": str(output)}))
    for problem in exported.passed_over:
        say(f"passed over: {problem}")
    if exported.broken:
        report_error(exported.broken)
        sys.exit(1)
    if not json:
        written = f"{exported.tensors} tensors, {exported.parameters:,} numbers"
        source = f"{exported.checkpoint} after step {exported.step}"
        typer.echo(plain(f"wrote {output}: {written}, of {source}"))
        if exported.largest_difference is not None:
            shape = f"[{', '.join(map(str, exported.input))}]"
            off = f"{exported.largest_difference:.1e} of {exported.largest_result:.3g}"
            typer.echo(f"input {shape}; its results differ from the model's by at most {off}")
