"""What one row of the table of places says, and what installing one takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from foundation.cache_folder import cache_folder
from foundation.files import JSON
from foundation.places import PlaceKind
from stages.validate.places.protocol import PlaceAnswer


def _no_check(answer: PlaceAnswer) -> None:
    """Accept whatever answered."""


@dataclass(frozen=True)
class Place:
    """Where a file can be asked beside this process.

    Attributes:
        kind: whether its times count.
        what: the place in words.
        why_not: says what is missing here, as a sentence that ends with how to mend it; None where it can be asked.
        command: from the folder of a job to the command that answers it.
        steps: the exact commands that install it into a folder of its own, which may be empty; each a list of words.
        needs: what this machine must have beside them, in words, with how to get it.
        check: refuses answers that come from another place than meant, by raising NotMeasuredError.
        environment: variables that the command needs besides.
        job: entries of `job.json` that are the same for every question.
        meanings: part of an error there → what it means and what to do, where its own words say neither.
    """

    kind: PlaceKind
    what: str
    why_not: Callable[[], str | None]
    command: Callable[[Path], list[str]]
    steps: Callable[[Path], list[list[str]]] = lambda folder: []
    needs: str = ""
    check: Callable[[PlaceAnswer], None] = _no_check
    environment: Callable[[], Mapping[str, str]] = dict
    job: Mapping[str, JSON] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)

    def told(self, error: str) -> str:
        """Return what an error there means, or the error itself."""
        return next((meaning for part, meaning in self.meanings.items() if part in error), error)


def there(name: str) -> Path:
    """Return a file of what runs at the places."""
    return Path(__file__).with_name("there") / name


def folder_of(name: str) -> Path:
    """Return the folder into which a place is installed."""
    return cache_folder() / "places" / name


MARKER = "installed.txt"
"""Written last into a place's folder, with the commands that made it and how many files they left: a folder without
it is half made, one with other commands was made for other versions, and one with other files lost some since."""


def marker_of(steps: list[list[str]], folder: Path) -> str:
    """Return what the marker of an installation holds, wherever it, this Python and we lie."""
    commands = [" ".join("python" if word == sys.executable else Path(word).name for word in step) for step in steps]
    files = sum(1 for path in folder.rglob("*") if path.is_file() and path.name != MARKER and path.suffix != ".pyc")
    return "".join(f"{line}\n" for line in (*commands, f"{files} files"))


def why_not_installed(name: str, steps: Callable[[Path], list[list[str]]]) -> str | None:
    """Return the sentence that says why a place's folder cannot be used; None where it can."""
    folder = folder_of(name)
    marker = folder / MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8") == marker_of(steps(folder), folder):
        return None
    state = "one that is half made, lost files or was made for other versions" if folder.exists() else "nothing"
    return (
        f"{name}: expected its packages in `edgeproof/places/{name}` of the cache folder, found {state}. Install "
        f"them with `edgeproof places --install {name}`."
    )
