"""What flows between the stages, and how it reaches the disk: typed artifacts, hashes, atomic writes, the run folder.

Every write is atomic: a temporary file in the same folder, fsync, rename, fsync of the folder. A reader therefore
sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UsageError

JSON = Any
"""A value that `json` can write: dictionaries with string keys, lists, strings, numbers, booleans and None."""

Task = Literal["multi_class", "multi_label"]
"""multi_class: an image has exactly one class; multi_label: any number of them, none included."""


# --- hashes ---


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(value: JSON) -> str:
    """Return the sha256 of a value's canonical JSON (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- atomic writes ---


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it there when the block ends well, delete it otherwise.

    Args:
        path: the final file; its folder is created.

    Raises:
        UsageError: the file system refused the write (full, read-only); `path` is as it was before.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise write_refused(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        raise write_refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed process left below a folder which nobody else is writing to."""
    for path in folder.rglob(".*.tmp*"):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: JSON) -> None:
    """Write JSON atomically, indented, with sorted keys and a final newline; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> JSON:
    """Read a JSON file.

    Raises:
        UsageError: the file is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: expected a file, found nothing. Run the stage that writes it first.") from error
    except (ValueError, OSError) as error:
        raise UsageError(
            f"{path}: expected JSON, found something else ({error}). Delete it and run again."
        ) from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_refused(path: Path, error: OSError) -> UsageError:
    """Return the sentence for a write that the file system refused."""
    return UsageError(
        f"{path}: could not be written ({error.strerror or error}). "
        "Free some space or choose another folder; what stood there before is untouched."
    )


# --- artifacts ---


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
    method: str
    parent_sha256: str | None
    settings: Mapping[str, JSON] = field(default_factory=dict)
    notes: Mapping[str, JSON] = field(default_factory=dict)
    """What the method found out: nodes left in float, clipped constants, versions of a worker environment…"""

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
        write_json(
            self.record_path,
            {
                "variant": self.variant,
                "sha256": self.sha256,
                "size_bytes": self.size_bytes,
                "method": self.method,
                "parent_sha256": self.parent_sha256,
                "settings": dict(self.settings),
                "notes": dict(self.notes),
            },
        )

    @classmethod
    def read(cls, path: Path) -> OnnxModel:
        """Return the artifact of a file and its record.

        Raises:
            UsageError: the file's bytes are not those that the record describes.
        """
        record = read_json(path.with_suffix(".json"))
        sha256 = sha256_of_file(path)
        if sha256 != record["sha256"]:
            raise UsageError(
                f"{path}: expected sha256 {record['sha256'][:12]}…, found {sha256[:12]}…. "
                "The file was changed after it was made; delete it and run again."
            )
        return cls(
            record["variant"],
            path,
            sha256,
            record["method"],
            record["parent_sha256"],
            record["settings"],
            record["notes"],
        )


RANDOM_MAP = "random-map"
CENTRE_PRIOR = "centre-prior"
UNINFORMED = (RANDOM_MAP, CENTRE_PRIOR)
"""The names under which maps that know nothing of the image are measured beside the variants: a floor to read their
saliency against, not variants that could pass, fail or get worse."""


@dataclass(frozen=True)
class Measurement:
    """One number with its unit, its sample size and its 95 % interval; `value` None means not measured."""

    metric: str
    value: float | None
    unit: str
    variant: str
    provider: str | None = None
    split: str | None = None
    n: int | None = None
    ci95: tuple[float, float] | None = None
    settings: Mapping[str, JSON] = field(default_factory=dict)
    """What tells two measurements of the same metric apart: threads, saliency method, reason of an absence…"""

    def as_json(self) -> dict[str, JSON]:
        """Return the measurement as it stands in `measurements.json` and `report.json`."""
        record = asdict(self)
        record["ci95"] = list(self.ci95) if self.ci95 else None
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, JSON]) -> Measurement:
        """Return the measurement that `as_json` wrote."""
        values = dict(record)
        values["ci95"] = tuple(values["ci95"]) if values["ci95"] else None
        return cls(**values)


@dataclass(frozen=True)
class Verdict:
    """What one gate says of the measurements; `missing` means that its number was not measured."""

    gate: str
    status: Literal["passed", "failed", "missing"]
    value: float | None
    limit: float
    detail: str


@dataclass(frozen=True)
class StageRecord:
    """How one stage of a run went, as it stands in `run.json`."""

    name: str
    status: Literal["done", "reused", "failed", "not_measured"]
    key: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    """Path relative to the run folder → sha256."""
    seconds: float | None
    error: str | None


# --- the run folder ---


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run; nothing outside `root` is ever written."""

    root: Path

    @property
    def record(self) -> Path:
        """`run.json`, written last after each stage."""
        return self.root / "run.json"

    @property
    def data(self) -> Path:
        """The decoded, split images and their manifest."""
        return self.root / "data"

    @property
    def checkpoint(self) -> Path:
        """The best network by validation data."""
        return self.root / "train" / "checkpoint.safetensors"

    @property
    def history(self) -> Path:
        """Loss and validation metric of each epoch."""
        return self.root / "train" / "history.json"

    @property
    def fp32(self) -> Path:
        """The plain float export, the baseline of every comparison."""
        return self.root / "export" / "fp32.onnx"

    def model(self, variant: str) -> Path:
        """Return the path of a variant's ONNX file."""
        return self.fp32 if variant == "fp32" else self.root / "quantize" / f"{variant}.onnx"

    def predictions(self, variant: str) -> Path:
        """Return the path of a variant's logits on the test images."""
        return self.root / "validate" / "predictions" / f"{variant}.npz"

    def maps(self, variant: str, method: str) -> Path:
        """Return the path of a variant's saliency maps by a method."""
        folder = {"occlusion": "saliency", "gradient": "gradients"}.get(method, method)
        return self.root / "validate" / folder / f"{variant}.npz"

    @property
    def measurements(self) -> Path:
        """Every measurement, latency included."""
        return self.root / "validate" / "measurements.json"

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.root / "report"
