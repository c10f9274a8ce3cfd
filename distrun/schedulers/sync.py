"""Sends the project to the nodes of a job, and tells what was sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from distrun.errors import MachineError
from distrun.nodes.project import Project, shown_size
from distrun.nodes.sending import Sent, Target, send_project
from distrun.schedulers.place import Place

_RECEIVER = "distrun.agent.receive"
_MOST_LINES = 16


class Reaches(Protocol):
    """What is needed of a scheduler."""

    def command(self, place: Place, module: str, arguments: Sequence[str]) -> list[str]:
        """See `registry.Scheduler`."""

    def shell(self, place: Place) -> list[str]:
        """See `registry.Scheduler`."""

    def cure(self, name: str, problem: str) -> str:
        """See `registry.Scheduler`."""


def sync(
    project: Project,
    places: Sequence[Place],
    chosen: Reaches,
    workdir: str,
    tell: Callable[[str], None],
) -> None:
    """Send the project to all nodes.

    Raises:
        MachineError: A node did not get it.
    """
    for sentence in project.left_out:
        tell(sentence)
    targets = {_target(place, chosen): place for place in places}
    results: list[Sent] = []

    def told(sent: Sent) -> None:
        results.append(sent)
        if len(places) <= _MOST_LINES and not sent.problem:
            tell(line(sent, project))

    send_project(list(targets), project, workdir, told)
    failed = [sent for sent in results if sent.problem]
    if failed:
        each = "; ".join(f"{sent.target.name}: {sent.problem}" for sent in failed[:_MOST_LINES])
        first = failed[0]
        advice = ""
        if first.of_the_way:
            advice = chosen.cure(targets[first.target].target, first.problem)
        raise MachineError(
            f"the project cannot be sent to {str(project.into)!r} on {each}",
            advice or "--workdir names another directory there",
        )
    if len(places) > _MOST_LINES:
        nbytes = sum(sent.nbytes for sent in results)
        count = sum(sent.count for sent in results)
        tell(f"{len(places)} hosts: {count} files, {shown_size(nbytes)} sent in all")


def line(sent: Sent, project: Project) -> str:
    """Return what is told of one node."""
    if sent.here:
        return f"{sent.target.name}: {str(project.into)!r} is the project itself: nothing is sent"
    files = "1 file" if sent.count == 1 else f"{sent.count} files"
    return (
        f"{sent.target.name}: {files}, {shown_size(sent.nbytes)} sent, {sent.unchanged} unchanged"
    )


def _target(place: Place, chosen: Reaches) -> Target:
    user, _, host = place.target.rpartition("@")
    host = f"[{host}]" if ":" in host else host
    return Target(
        place.name,
        tuple(chosen.command(place, _RECEIVER, ())),
        place.bootstrap,
        tuple(chosen.shell(place)),
        f"{user}@{host}" if user else host,
    )
