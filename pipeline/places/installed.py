"""Which places can be asked here, and installing the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from foundation.errors import EdgeproofError, UsageError
from foundation.files import JSON
from foundation.progress import Observer
from stages.validate.places import PLACES
from stages.validate.places.installing import install
from stages.validate.places.place import folder_of

if TYPE_CHECKING:
    from rich.table import Table

ALL = "all"


@dataclass(frozen=True)
class InstalledPlace:
    """One place as this machine has it.

    Attributes:
        place: its name.
        kind: whether its times count.
        what: it in words.
        needs: what this machine must have.
        commands: the exact commands that install the rest, into a folder of its own.
        why_not: why it cannot be asked, and how to mend that; None where it can.
    """

    place: str
    kind: str
    what: str
    needs: str
    commands: tuple[str, ...]
    why_not: str | None

    def as_json(self) -> dict[str, JSON]:
        """Return it as `--json` prints it."""
        return {**asdict(self), "installed": self.why_not is None}


def installed() -> tuple[InstalledPlace, ...]:
    """Return every place with what it lacks here."""
    found = []
    for name, place in PLACES.items():
        try:
            why_not = place.why_not()
        except UsageError as error:
            why_not = str(error)
        commands = tuple(" ".join(step) for step in place.steps(folder_of(name)))
        found.append(InstalledPlace(name, place.kind, place.what, place.needs, commands, why_not))
    return tuple(found)


def install_places(names: Sequence[str], observer: Observer) -> bool:
    """Install places, tell which cannot be, and return whether one failed.

    Raises:
        UsageError: a name is none of a place.
    """
    unknown = [name for name in names if name not in (*PLACES, ALL)]
    if unknown:
        raise UsageError(f"--install: expected one of {', '.join((*PLACES, ALL))}, found {unknown[0]!r}.")
    failed = False
    for name in PLACES if ALL in names else names:
        try:
            with observer.stage(f"install {name}"):
                install(name, PLACES[name], observer.say)
        except EdgeproofError as error:
            observer.say(f"✗ {error}")
            failed = True
    return failed


def places_overview(found: Sequence[InstalledPlace]) -> Table:
    """Return the places as a table."""
    from rich.table import Table

    table = Table("place", "here", "times", "what")
    for one in found:
        table.add_row(
            one.place, "yes" if one.why_not is None else "no", "count" if one.kind == "real" else "–", one.what
        )
    return table
