"""What flows between the stages: a trained network and a compiled ONNX file, each with its digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.errors import UsageError
from foundation.files import JSON, sha256_of_file, write_json
from foundation.notes import ExportNotes, Notes
from foundation.settings import Settings
from foundation.typed_files import read_typed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Task = Literal["multi_class", "multi_label"]
"""multi_class: an image has exactly one class; multi_label: any number of them, none included."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network on disk: weights and clips in safetensors, its architecture in the metadata.

    Attributes:
        path: the file.
        sha256: of its bytes.
        own_network: the user's own `module:function` that the configuration names, None where it names none. Building
            such a network runs that module, so its name in the file alone is not enough.
    """

    path: Path
    sha256: str
    own_network: str | None = None

    @classmethod
    def at(cls, path: Path, own_network: str | None = None) -> Checkpoint:
        """Return the artifact for a file that exists."""
        return cls(path, sha256_of_file(path), own_network)


@dataclass(frozen=True)
class OnnxModel:
    """One compiled ONNX file and where it comes from."""

    variant: str
    path: Path
    sha256: str
    parent_sha256: str | None
    settings: Mapping[str, JSON] = field(default_factory=dict)
    notes: Notes = field(default_factory=ExportNotes)
    """The method, and what it found out: nodes left in float, clipped constants, versions of a worker environment…"""

    @property
    def size_bytes(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    @property
    def record_path(self) -> Path:
        """The `.json` beside the file that says how it was made."""
        return self.path.with_suffix(".json")

    def write_record(self) -> None:
        """Write the `.json` beside the file."""
        record = _Record(
            variant=self.variant,
            sha256=self.sha256,
            size_bytes=self.size_bytes,
            parent_sha256=self.parent_sha256,
            settings=dict(self.settings),
            notes=self.notes,
        )
        write_json(self.record_path, record.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> OnnxModel:
        """Return the artifact of a file and its record.

        Raises:
            UsageError: there is no record, it is damaged, or the file's bytes are not those that it describes.
        """
        record = read_typed(
            path.with_suffix(".json"), _adapter(), "the record of a compiled file", "Delete it and run again."
        )
        sha256 = sha256_of_file(path)
        if sha256 != record.sha256:
            raise UsageError(
                f"{path}: expected sha256 {record.sha256[:12]}…, found {sha256[:12]}…. "
                "The file was changed after it was made; delete it and run again."
            )
        return cls(record.variant, path, sha256, record.parent_sha256, record.settings, record.notes)


class _Record(Settings):
    """The `.json` beside a file."""

    variant: str
    sha256: str
    size_bytes: int
    parent_sha256: str | None
    settings: dict[str, JSON]
    notes: Notes


@cache
def _adapter() -> TypeAdapter[_Record]:
    from pydantic import TypeAdapter

    return TypeAdapter(_Record)
