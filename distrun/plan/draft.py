"""Records the choices of a plan while it is being made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from distrun.plan.model import Setting
from distrun.plan.site import Site
from distrun.spec.job import Job


@dataclass
class Draft:
    """The choices made so far."""

    job: Job
    sources: Mapping[str, str]
    site: Site
    settings: list[Setting] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def source(self, name: str, fallback: str = "default") -> str:
        """Return where a field of the job came from."""
        return self.sources.get(name, fallback)

    def choose(self, name: str, value: object, source: str, why: str) -> None:
        """Record a choice; a later one replaces an earlier one."""
        self.settings = [setting for setting in self.settings if setting.name != name]
        self.settings.append(Setting(name, str(value), source, why))

    def note(self, text: str) -> None:
        """Add a note for the user, once."""
        if text not in self.notes:
            self.notes.append(text)
