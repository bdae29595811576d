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
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedData, Task
from foundation.errors import EdgeproofError
from foundation.measurements import UNINFORMED, Measurement, read_measurements
from foundation.record import RunRecord, read_record
from foundation.run_folder import RunFolder
from foundation.typed_files import read_typed

BASELINE = "fp32"
METHOD_NAME = re.compile(r"[a-z_]{1,40}")

Epoch = Mapping[str, float | None]
"""The numbers of one epoch of training by name."""

T = TypeVar("T")


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
        record: of the run.
        measurements: every measurement, the absent ones included.
        data: the prepared images; None where the run holds none.
        saliency_method: how the maps in `saliency` were made.
        history: the numbers of each training epoch by name; empty where nothing was trained.
        unreadable: one sentence for each file that exists but could not be used.
    """

    record: RunRecord
    measurements: tuple[Measurement, ...] = ()
    data: PreparedData | None = None
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    saliency: Mapping[str, SaliencyMaps] = field(default_factory=dict)
    saliency_method: str = "occlusion"
    history: tuple[Epoch, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """Whether an image has one class or any number of labels; one class where the run has not read its images."""
        return self.record.task or "multi_class"

    @property
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
    predictions: dict[str, Predictions] = {}
    saliency: dict[str, SaliencyMaps] = {}
    method = _shown_method(run, measurements)
    for variant in record.variants:
        answers = _optional(run.predictions(variant.variant), _predictions, unreadable)
        if answers is not None:
            predictions[variant.variant] = answers
        maps = _optional(run.maps(variant.variant, method), _saliency, unreadable)
        if maps is not None:
            saliency[variant.variant] = maps
    return Facts(record, measurements, data, predictions, saliency, method, history, tuple(unreadable))


def _shown_method(run: RunFolder, measurements: tuple[Measurement, ...]) -> str:
    """Return the first saliency method by which the baseline has maps; "occlusion" where it has none."""
    measured = [m.where.method for m in measurements if m.where.method is not None]
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


def _prepared(path: Path) -> PreparedData:
    from calibration_data.prepared_folder import read_prepared

    return read_prepared(path.parent)


def _history(path: Path) -> tuple[Epoch, ...]:
    from pydantic import TypeAdapter

    return read_typed(path, TypeAdapter(tuple[Epoch, ...]), "a list of epochs", "Train again.")


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
