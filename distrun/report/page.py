"""Renders the pages. Every text is escaped (jinja2, https://jinja.palletsprojects.com/)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from distrun.report.contents import contents
from distrun.report.facts import Facts, read_facts
from distrun.runs.directory import RunDirectory


def rendered(template: str, variables: Mapping[str, Any]) -> str:
    """Return a page.

    Args:
        template: `run.html` or `compare.html`.
        variables: What it shows.
    """
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    pages = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.globals["tuple"] = tuple
    text = pages.get_template(template).render(variables)
    return text.encode(errors="replace").decode()  # file names may hold bytes that are no text


def run_page(facts: Facts) -> str:
    """Return the report of one run."""
    return rendered("run.html", contents(facts))


def write_report(run: RunDirectory) -> None:
    """Write `report.html` into a run directory.

    Raises:
        OSError: It cannot be written, or the run cannot be read.
        ValueError: The record of the run is not one.
    """
    run.report.replace_text(run_page(read_facts(run)))
