"""What a run folder's files say, as plain values; nothing here renders.

A run may have stopped anywhere. Only `run.json` must exist; every other file that is missing or unreadable is left
out, and what is unreadable is told in `Facts.unreadable`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from calibration_data.prepared import PreparedData, Task
from foundation.answer_documents import (
    AnswersInDetail,
    ChangesDocument,
    MachineNote,
    ReliabilityDocument,
    read_answers,
    read_changes,
    read_machine,
    read_reliability,
)
from foundation.errors import EdgeproofError
from foundation.explanations import Explanations
from foundation.files import JSON, sha256_of_json
from foundation.image_by_image import ImageByImage, read_image_by_image
from foundation.measurements import UNINFORMED, Measurement, read_measurements
from foundation.placement import Placement, read_placements
from foundation.places import PlaceRecord, read_places
from foundation.record import RunRecord, read_record
from foundation.run_folder import RunFolder
from foundation.typed_files import read_typed

BASELINE = "fp32"

Epoch = Mapping[str, float | None]
"""The numbers of one epoch of training by name."""

T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """Everything that a report may show.

    Attributes:
        record: of the run.
        measurements: every measurement that was made here, the absent ones included.
        data: the prepared images; None where the run holds none.
        image_by_image: changed answers, and the images whose maps are shown; None where the run holds neither.
        maps: variant → its maps by the shown method.
        history: the numbers of each training epoch by name; empty where nothing was trained.
        changes: every changed answer; None of a run that holds none, and likewise below.
        reliability: bins of the reliability diagrams.
        answers: confusion matrices and curves.
        machine: how the machine was while files were timed.
        places: what was found at other places, by name.
        placements: where every file's nodes ran, by provider.
        unreadable: one sentence for each file that exists but could not be used.
    """

    record: RunRecord
    measurements: tuple[Measurement, ...] = ()
    data: PreparedData | None = None
    image_by_image: ImageByImage | None = None
    maps: Mapping[str, Explanations] = field(default_factory=dict)
    history: tuple[Epoch, ...] = ()
    changes: ChangesDocument | None = None
    reliability: ReliabilityDocument | None = None
    answers: AnswersInDetail | None = None
    machine: MachineNote | None = None
    unreadable: tuple[str, ...] = ()
    places: tuple[PlaceRecord, ...] = ()
    placements: tuple[Placement, ...] = ()

    @cached_property
    def by_name(self) -> Mapping[tuple[str, str, str | None], tuple[Measurement, ...]]:
        """The measurements of the test split, or of no split, by metric, variant and subgroup."""
        found: dict[tuple[str, str, str | None], list[Measurement]] = {}
        for one in self.measurements:
            if one.where.split in (None, "test"):
                found.setdefault((one.metric, one.variant, one.where.subgroup), []).append(one)
        return {key: tuple(several) for key, several in found.items()}

    @property
    def measured_everywhere(self) -> tuple[Measurement, ...]:
        """The measurements made here, then those of each place."""
        return (*self.measurements, *(one for place in self.places for one in place.measurements))

    @property
    def show_names(self) -> bool:
        """Whether the run's user wants files' names in the report."""
        return self._report.get("show_names") is True

    @cached_property
    def evidence_sha256(self) -> str:
        """Digest over configuration, gates and every recorded file but the report's, which could not hold its own."""
        files = {path: of.sha256 for path, of in self.record.files.items() if not path.startswith("report/")}
        record = self.record
        return sha256_of_json([record.configuration_sha256, record.gates_sha256, files])

    def words(self, name: str) -> str:
        """Return what the run's user says of intended use, population…; "" where nothing is stated."""
        said = self._report.get(name)
        return said.strip() if isinstance(said, str) else ""

    @property
    def _report(self) -> Mapping[str, JSON]:
        report = self.record.configuration.get("report")
        return report if isinstance(report, dict) else {}

    @cached_property
    def index_of_handle(self) -> Mapping[str, int]:
        """Handle → position in the test split; of equal images the first."""
        if self.data is None:
            return {}
        test = self.data.test
        return {test.handle(index): index for index in reversed(range(len(test)))}

    def image_name(self, index: int) -> str:
        """Return what a test image is called in the report."""
        assert self.data is not None
        return self.data.test.image_ids[index] if self.show_names else self.data.test.handle(index)

    @property
    def task(self) -> Task:
        """Whether an image has one class or any number of labels; one class where the run has not read its images."""
        return self.record.task or "multi_class"

    @cached_property
    def variant_names(self) -> tuple[str, ...]:
        """Compiled variants, the baseline first, then those that could not be compiled."""
        known = [variant.variant for variant in self.record.variants]
        measured = [m.variant for m in self.measurements if m.variant not in UNINFORMED]
        meant = [stage.subject for stage in self.record.stages if stage.kind == "quantize" and stage.subject]
        names = dict.fromkeys([*known, *measured, *meant])
        return tuple(sorted(names, key=lambda name: name != BASELINE))


def read_facts(run: RunFolder) -> Facts:
    """Read a run folder.

    Args:
        run: the folder; only `run.json` must be there.

    Raises:
        UsageError: `run.json` is missing, damaged, or of another format.
    """
    record = read_record(run)
    unreadable: list[str] = []
    measurements = _optional(run.measurements, read_measurements, unreadable) or ()
    data = _optional(run.data / "manifest.json", _prepared, unreadable)
    history = _optional(run.history, _history, unreadable) or ()
    found = _optional(run.image_by_image, read_image_by_image, unreadable)
    maps = _maps(run, record, found.maps.method, unreadable) if found and found.maps else {}
    changes = _optional(run.changes, read_changes, unreadable)
    reliability = _optional(run.reliability, read_reliability, unreadable)
    answers = _optional(run.answers, read_answers, unreadable)
    machine = _optional(run.machine, read_machine, unreadable)
    places = _optional(run.places, lambda _: read_places(run, record), unreadable) or ()
    placements = _optional(run.placement, read_placements, unreadable) or ()
    return Facts(
        record,
        measurements,
        data,
        found,
        maps,
        history,
        changes,
        reliability,
        answers,
        machine,
        tuple(unreadable),
        places,
        placements,
    )


def _maps(run: RunFolder, record: RunRecord, method: str, unreadable: list[str]) -> dict[str, Explanations]:
    maps: dict[str, Explanations] = {}
    for variant in record.variants:
        read = partial(Explanations.read, variant.variant)
        of_variant = _optional(run.maps(variant.variant, method), read, unreadable)
        if of_variant is not None:
            maps[variant.variant] = of_variant
    return maps


def _optional(path: Path, read: Callable[[Path], T], unreadable: list[str]) -> T | None:
    if not path.exists():
        return None
    try:
        return read(path)
    except (EdgeproofError, OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        unreadable.append(f"{path.name} could not be used: {error}")
        return None


def _prepared(path: Path) -> PreparedData:
    from calibration_data.prepared_folder import read_prepared

    return read_prepared(path.parent)


def _history(path: Path) -> tuple[Epoch, ...]:
    from pydantic import TypeAdapter

    return read_typed(path, TypeAdapter(tuple[Epoch, ...]), "a list of epochs", "Train again.")
