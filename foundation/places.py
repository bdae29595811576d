"""What was found at a place: where the files of a run answered elsewhere, with what, and how they answered.

A place is another processor, another runtime or a device. Each has a file of its own beside the run's measurements,
`validate/places/NAME.json`, so that a run that is resumed keeps what was measured elsewhere. The history of its
formats:

- 1: as `PlaceRecord` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field

from foundation.errors import UsageError
from foundation.files import write_json
from foundation.measurements import Measurement, read_measurements
from foundation.record import RunRecord
from foundation.run_folder import RunFolder
from foundation.typed_files import CLOSED, read_typed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

PLACE_NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
"""How a place may be called: it is part of the path of its file."""

PlaceName = Annotated[str, Field(pattern=PLACE_NAME)]
PlaceKind = Literal["real", "emulated", "yardstick"]
"""real: the processor itself, whose times count; emulated: evidence of the answers, never of a time; yardstick: this
machine computing otherwise, what a difference is held against."""

_MEND = "Delete it and ask the place again."


@dataclass(frozen=True)
class PlaceRecord:
    """What was found at one place.

    Attributes:
        place: its name, as `where.place` of its measurements has it.
        kind: whether its times count.
        what: the place in words: "x86-64 without VNNI, by qemu-x86_64 7.2".
        data_sha256: of the run's images, some of which were answered there.
        files: variant → sha256 of the file that answered; twins among them, under "VARIANT.saliency".
        versions: what ran there, name → version.
        measurements: each with `where.place`.
        reason: why nothing was measured there, as a sentence; None where something was.
        placements: variant → provider → operator → nodes that ran on it, where the runtime tells.
        notes: variant → sentences that its numbers must be read with: "saturates", a fallback and its cost.
        format_version: of the file.
    """

    place: PlaceName
    kind: PlaceKind
    what: str
    data_sha256: str | None
    files: Mapping[str, str]
    versions: Mapping[str, str]
    measurements: tuple[Measurement, ...]
    reason: str | None = None
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    placements: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    format_version: Literal[1] = 1

    __pydantic_config__ = CLOSED


def with_earlier(found: PlaceRecord, earlier: PlaceRecord) -> PlaceRecord:
    """Return what was found at a place, and what it said before of files that it was not asked about now."""
    others = earlier.files.keys() - found.files.keys()
    if not others or found.data_sha256 != earlier.data_sha256:
        return found

    def kept(values: Mapping[str, T]) -> dict[str, T]:
        return {name: value for name, value in values.items() if name in others}

    return replace(
        found,
        files={**found.files, **kept(earlier.files)},
        versions={**earlier.versions, **found.versions},
        measurements=(*found.measurements, *(one for one in earlier.measurements if one.variant in others)),
        notes={**found.notes, **kept(earlier.notes)},
        placements={**found.placements, **kept(earlier.placements)},
    )


def place_path(run: RunFolder, place: str) -> Path:
    """Return the path of what was found at a place."""
    return run.places / f"{place}.json"


def write_place(run: RunFolder, found: PlaceRecord) -> Path:
    """Write what was found at a place, atomically, and return the file; the run's record does not know it yet."""
    path = place_path(run, found.place)
    write_json(path, _adapter().dump_python(found, mode="json"))
    return path


def read_place(path: Path) -> PlaceRecord:
    """Return what `write_place` wrote.

    Raises:
        UsageError: the file is missing, damaged, or says something of another place.
    """
    found = read_typed(path, _adapter(), "what was found at a place, of format_version 1", _MEND)
    strays = {one.where.place for one in found.measurements} - {found.place}
    if found.place != path.stem or strays:
        named = ", ".join(sorted(str(one) for one in {found.place, *strays} - {path.stem}))
        raise UsageError(f"{path}: expected measurements of the place {path.stem}, found some of {named}. {_MEND}")
    return found


def read_places(run: RunFolder, record: RunRecord) -> tuple[PlaceRecord, ...]:
    """Return what was found at each place about the files and the images that the run has now, by name.

    What another file of the same name answered, or what was answered to other images, is left out.

    Raises:
        UsageError: a file is damaged.
    """
    paths = sorted(run.places.glob("*.json")) if run.places.is_dir() else ()
    found = (_still_true(read_place(path), record) for path in paths)
    return tuple(one for one in found if one is not None)


def measured_everywhere(run: RunFolder, record: RunRecord) -> tuple[Measurement, ...]:
    """Return every measurement of a run, here first, then those of each place; none where it was not validated.

    Raises:
        UsageError: a file is damaged.
    """
    here = read_measurements(run.measurements) if run.measurements.exists() else ()
    return (*here, *of_places(read_places(run, record)))


def of_places(places: Iterable[PlaceRecord]) -> tuple[Measurement, ...]:
    """Return the measurements of several places."""
    return tuple(measurement for place in places for measurement in place.measurements)


def _still_true(found: PlaceRecord, record: RunRecord) -> PlaceRecord | None:
    """Return a place without what is not about the run's files of today; None where nothing is left."""
    if found.data_sha256 not in (None, record.data_sha256):
        return None
    today = {variant.variant: variant.sha256 for variant in record.variants}
    current = {name for name, sha256 in today.items() if found.files.get(name) == sha256}
    kept = tuple(one for one in found.measurements if one.variant in current or one.variant not in found.files)
    if found.reason is None and not kept:
        return None
    notes = {name: told for name, told in found.notes.items() if name in current}
    placements = {name: where for name, where in found.placements.items() if name in current}
    return replace(found, measurements=kept, notes=notes, placements=placements)


@cache
def _adapter() -> TypeAdapter[PlaceRecord]:
    from pydantic import TypeAdapter

    return TypeAdapter(PlaceRecord)
