"""What a run folder's files say, as plain values; nothing here renders.

A run may have stopped anywhere. Only `run.json` must exist; every other file that is missing or unreadable is left
out, and what is unreadable is told in `Facts.unreadable`.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedData, Task
from foundation.errors import EdgeproofError, UsageError
from foundation.files import JSON, read_json
from foundation.notes import Notes, notes_from_json
from foundation.record import UNINFORMED, Measurement, StageRecord, Verdict
from foundation.run_folder import RunFolder

FORMAT_VERSION = 1
BASELINE = "fp32"
METHOD_NAME = re.compile(r"[a-z_]{1,40}")

T = TypeVar("T")


@dataclass(frozen=True)
class VariantRecord:
    """One compiled file: what it is, how it was made and from which parent."""

    variant: str
    method: str
    path: str
    sha256: str
    size_bytes: int
    parent_sha256: str | None
    settings: Mapping[str, JSON]
    notes: Notes


@dataclass(frozen=True)
class Predictions:
    """A variant's answers on the test images.

    Attributes:
        logits: float32 [n, classes].
        labels: int64 [n], the true classes; of a multi-label task int64 [n, classes], 0 or 1.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def task(self) -> Task:
        """The kind of task that the labels belong to."""
        return "multi_class" if self.labels.ndim == 1 else "multi_label"

    @property
    def top1(self) -> NDArray[np.int64]:
        """The class with the largest logit, int64 [n]."""
        return np.asarray(np.argmax(self.logits, axis=1), dtype=np.int64)

    @property
    def decisions(self) -> NDArray[np.bool_]:
        """Which labels are answered with yes (probability above 0.5), bool [n, classes]."""
        return np.asarray(self.logits > 0, dtype=np.bool_)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, or each label's sigmoid, float64 [n, classes]."""
        logits = self.logits.astype(np.float64)
        if self.task == "multi_label":
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


@dataclass(frozen=True)
class SaliencyMaps:
    """A variant's saliency maps.

    Attributes:
        maps: float32 [m, h, w].
        image_index: int64 [m], into the test split.
        target: int64 [m], the class explained.
    """

    maps: NDArray[np.float32]
    image_index: NDArray[np.int64]
    target: NDArray[np.int64]


@dataclass(frozen=True)
class Facts:
    """Everything that a report may show.

    Attributes:
        record: `run.json` as it stands.
        data: the prepared images; None where the run holds none.
        saliency_method: how the maps in `saliency` were made.
        history: one dictionary per training epoch; empty where nothing was trained.
        unreadable: one sentence for each file that exists but could not be used.
    """

    record: Mapping[str, JSON]
    stages: tuple[StageRecord, ...] = ()
    variants: tuple[VariantRecord, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    data: PreparedData | None = None
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    saliency: Mapping[str, SaliencyMaps] = field(default_factory=dict)
    saliency_method: str = "occlusion"
    history: tuple[Mapping[str, JSON], ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.record.get("name", "unnamed run"))

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.record.get("dataset") or "unknown")

    @property
    def synthetic(self) -> bool:
        """Whether the images were generated."""
        return bool(self.record.get("synthetic", False))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(str(name) for name in self.record.get("classes") or ())

    @property
    def task(self) -> Task:
        """Whether an image has one class or any number of labels; from the answers where the images are gone."""
        if self.data is not None:
            return self.data.task
        return next((answers.task for answers in self.predictions.values()), "multi_class")

    @property
    def configuration(self) -> Mapping[str, JSON]:
        """The configuration that the run was started with."""
        return dict(self.record.get("configuration") or {})

    @property
    def environment(self) -> Mapping[str, JSON]:
        """Machine, versions and providers."""
        return dict(self.record.get("environment") or {})

    @property
    def variant_names(self) -> tuple[str, ...]:
        """Compiled variants, the baseline first, then those that could not be compiled."""
        known = [record.variant for record in self.variants]
        measured = [m.variant for m in self.measurements if m.variant not in UNINFORMED]
        meant = [s.name.removeprefix("quantize/") for s in self.stages if s.name.startswith("quantize/")]
        names = dict.fromkeys([*known, *measured, *meant])
        return tuple(sorted(names, key=lambda name: name != BASELINE))


def read_facts(run: RunFolder) -> Facts:
    """Read a run folder.

    Args:
        run: the folder; only `run.json` must be there.

    Raises:
        UsageError: `run.json` is missing, is no JSON, or has another format version.
    """
    record = read_json(run.record)
    if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
        found = record.get("format_version") if isinstance(record, dict) else type(record).__name__
        raise UsageError(
            f"{run.record}: expected a run record of format_version {FORMAT_VERSION}, found {found!r}. "
            "Run again with this version of edgeproof."
        )
    try:
        stages = tuple(_stage(entry) for entry in record.get("stages") or ())
        variants = tuple(_variant(entry) for entry in record.get("variants") or ())
        verdicts = tuple(Verdict(**entry) for entry in record.get("verdicts") or ())
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{run.record}: expected the keys of a run record, found another shape ({error!r}). Run again."
        ) from error

    unreadable: list[str] = []
    measurements = _optional(run.measurements, _measurements, unreadable) or ()
    data = _optional(run.data / "manifest.json", _prepared, unreadable)
    history = _optional(run.history, _history, unreadable) or ()
    predictions: dict[str, Predictions] = {}
    saliency: dict[str, SaliencyMaps] = {}
    method = _shown_method(run, measurements)
    for variant in variants:
        answers = _optional(run.predictions(variant.variant), _predictions, unreadable)
        if answers is not None:
            predictions[variant.variant] = answers
        maps = _optional(run.maps(variant.variant, method), _saliency, unreadable)
        if maps is not None:
            saliency[variant.variant] = maps
    return Facts(
        record,
        stages,
        variants,
        measurements,
        verdicts,
        data,
        predictions,
        saliency,
        method,
        history,
        tuple(unreadable),
    )


def _shown_method(run: RunFolder, measurements: tuple[Measurement, ...]) -> str:
    """Return the first saliency method by which the baseline has maps; "occlusion" where it has none."""
    measured = [str(m.settings["method"]) for m in measurements if "method" in m.settings]
    # The names become a path, and the file may say anything.
    methods = dict.fromkeys([*(name for name in measured if METHOD_NAME.fullmatch(name)), "occlusion", "gradient"])
    return next((method for method in methods if run.maps(BASELINE, method).exists()), "occlusion")


def _optional(path: Path, read: Callable[[Path], T], unreadable: list[str]) -> T | None:
    if not path.exists():
        return None
    try:
        return read(path)
    except (EdgeproofError, OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        unreadable.append(f"{path.name} could not be used: {error}")
        return None


def _stage(entry: Mapping[str, Any]) -> StageRecord:
    return StageRecord(
        str(entry["name"]),
        entry["status"],
        str(entry.get("key") or ""),
        dict(entry.get("inputs") or {}),
        dict(entry.get("outputs") or {}),
        entry.get("seconds"),
        entry.get("error"),
    )


def _variant(entry: Mapping[str, Any]) -> VariantRecord:
    return VariantRecord(
        str(entry["variant"]),
        str(entry["method"]),
        str(entry.get("path") or ""),
        str(entry["sha256"]),
        int(entry["size_bytes"]),
        entry.get("parent_sha256"),
        dict(entry.get("settings") or {}),
        notes_from_json(entry["notes"]),
    )


def _measurements(path: Path) -> tuple[Measurement, ...]:
    return tuple(Measurement.from_json(entry) for entry in read_json(path))


def _prepared(path: Path) -> PreparedData:
    from calibration_data.prepared_folder import read_prepared

    return read_prepared(path.parent)


def _history(path: Path) -> tuple[Mapping[str, JSON], ...]:
    return tuple(dict(entry) for entry in read_json(path))


def _predictions(path: Path) -> Predictions:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        logits, labels = arrays["logits"], arrays["labels"]
    if logits.ndim != 2 or labels.shape not in (logits.shape[:1], logits.shape):
        raise ValueError(
            f"expected logits [n, classes] and labels [n] or [n, classes], found {logits.shape} and {labels.shape}"
        )
    return Predictions(logits, labels)


def _saliency(path: Path) -> SaliencyMaps:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        maps, image_index, target = arrays["maps"], arrays["image_index"], arrays["target"]
    if maps.ndim != 3 or image_index.shape != maps.shape[:1] or target.shape != maps.shape[:1]:
        raise ValueError(
            f"expected maps [m, h, w], image_index [m] and target [m], found {maps.shape}, {image_index.shape} "
            f"and {target.shape}"
        )
    return SaliencyMaps(maps, image_index, target)
