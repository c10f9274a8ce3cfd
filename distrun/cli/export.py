"""`distrun export`."""

from __future__ import annotations

from pathlib import Path

import typer

from distrun.cli import output_file
from distrun.errors import UsageError


def export(
    run: str = typer.Argument("latest", help="Its name, any part of it, a path, or latest."),
    csv: Path = typer.Option(None, "--csv", metavar="FILE", help="Write a CSV file."),
    parquet: Path = typer.Option(
        None, "--parquet", metavar="FILE", help="Write a Parquet file (needs pyarrow)."
    ),
    output: list[Path] = typer.Option(
        None, "--output", "-o", metavar="FILE", help="Write a .csv or .parquet file; repeatable."
    ),
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
) -> None:
    """Write the metrics of a run as a table: a row for each step of a rank, or sample of a node."""
    from distrun.api.export_metrics import export_metrics
    from distrun.cli.screen.console import say

    output_file.require(output, (".csv", ".parquet"))
    for path in output or ():
        is_csv = path.suffix.lower() == ".csv"
        if other := csv if is_csv else parquet:
            raise UsageError(f"-o {path}: {other} is such a file already", "one of each suffix")
        csv, parquet = (path, parquet) if is_csv else (csv, path)
    if not (csv or parquet):
        hint = "-o run.csv, or -o run.parquet; models: distrun recipes export"
        raise UsageError("export: no file is named", hint)
    for path in filter(None, (csv, parquet)):
        output_file.require_writable(path)
    found = export_metrics(run, csv=csv, parquet=parquet, runs_dir=runs_dir, tell=say)
    for path in filter(None, (csv, parquet)):
        say(f"{path}: {found.rows} rows of {len(found.columns)} columns, of run {found.run_id}")
