"""Where a shipped file looks: occlusion maps through ONNX Runtime, and how faithful they are.

Every variant's map of an image explains the same class, see `explained.explained_classes`, so that two maps explain
the same statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.prepared import PreparedSplit, Task
from pipeline.artifacts import JSON, Measurement, OnnxModel
from pipeline.settings import Settings
from stages.validate import METRICS, Definition, resampling, statistics
from stages.validate.arrays import read_arrays, write_arrays
from stages.validate.evidence import measured, not_measured
from stages.validate.explained import images_to_explain
from stages.validate.maps.occlusion import occlusion_maps
from stages.validate.sessions import open_session, preprocessing_of

Maps = NDArray[np.float32]
Indices = NDArray[np.int64]
Progress = Callable[[int, int], None]
Method = Literal["occlusion", "gradient"]

RANDOM_MAP = "random-map"
"""The variant name under which a random map's scores stand beside the real ones."""


def _silent(done: int, total: int) -> None:
    pass


class SaliencySettings(Settings):
    """Which test images are explained, and how finely."""

    images: int = Field(64, ge=1, le=10_000, description="test images to explain, spread over the classes")
    # Shares of the image's side, so that the number of queries per image doesn't depend on its resolution.
    patch_share: float = Field(0.2, gt=0.0, le=1.0, description="side of the occluding patch over the image's side")
    stride_share: float = Field(0.1, gt=0.0, le=1.0, description="step between patches over the image's side")
    batch_size: int = Field(32, ge=1, le=4096, description="occluded images per query")
    threads: int = Field(1, ge=1, le=256, description="threads of the session")
    resamples: int = Field(2000, ge=1000, le=100_000, description="bootstrap resamples behind an interval")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the choice of images, random maps and bootstrap")

    def patch(self, image_size: int) -> int:
        """Return the patch's side in pixels."""
        return max(1, round(self.patch_share * image_size))

    def stride(self, image_size: int) -> int:
        """Return the step between patches in pixels; never more than a patch, or pixels would stay uncovered."""
        return min(self.patch(image_size), max(1, round(self.stride_share * image_size)))


@dataclass(frozen=True)
class Explanations:
    """The maps of a variant.

    Attributes:
        variant: its name.
        maps: float32 [m, h, w], higher = more important.
        image_index: int64 [m], into the test split.
        target: int64 [m], the class that is explained.
        path: the `.npz` that holds the three.
    """

    variant: str
    maps: Maps
    image_index: Indices
    target: Indices
    path: Path

    def write(self) -> None:
        """Write the maps to their path."""
        write_arrays(self.path, {"maps": self.maps, "image_index": self.image_index, "target": self.target})

    @classmethod
    def read(cls, variant: str, path: Path) -> Explanations:
        """Return what `write` wrote."""
        maps, image_index, target = read_arrays(path, ("maps", "image_index", "target"))
        return cls(variant, maps, image_index, target, path)


# --- maps ---


def explain_variant(
    model: OnnxModel,
    data: PreparedSplit,
    targets: Indices,
    task: Task,
    settings: SaliencySettings,
    target: Path,
    progress: Progress = _silent,
) -> Explanations:
    """Explain the chosen images of a split with a shipped file on the CPU provider, and write the maps.

    The patch has the mean colour of the model's normalisation, which its first layer sees as 0.

    Args:
        model: the file.
        data: the split, usually test; only the chosen images are read.
        targets: int64 [n], the class to explain on every image of the split, see `explained.explained_classes`.
        task: the kind of task.
        settings: images, patch and stride.
        target: the `.npz` to write.
        progress: called with (images done, images in all).

    Raises:
        StageError: a logit is not finite.
    """
    session = open_session(model.path, "cpu", settings.threads)
    chosen = images_to_explain(data, settings.images, settings.seed)
    size = int(data.images.shape[2])
    fill = np.clip(np.rint(np.multiply(preprocessing_of(session).mean, 255.0)), 0, 255).astype(np.uint8)
    maps = occlusion_maps(
        session,
        data.images[chosen],
        targets[chosen],
        task,
        settings.patch(size),
        settings.stride(size),
        fill,
        settings.batch_size,
        progress,
    )
    explanations = Explanations(model.variant, maps, chosen, targets[chosen], target)
    explanations.write()
    return explanations


# --- scores ---


def measure_saliency(
    variant: str,
    maps: Maps,
    reference_maps: Maps | None,
    masks: NDArray[np.bool_],
    has_mask: NDArray[np.bool_],
    groups: Sequence[str],
    task: Task,
    method: Method,
    settings: SaliencySettings,
) -> list[Measurement]:
    """Return every row of `METRICS` that is computed from maps: likeness to fp32's, and how they meet the masks.

    Args:
        variant: its name, or `RANDOM_MAP`.
        maps: float32 [m, h, w].
        reference_maps: fp32's maps of the same images; None for fp32 itself.
        masks: bool [m, h, w], True on the lesion.
        has_mask: bool [m].
        groups: m names of what images belong together by; intervals come from resamples of whole groups.
        task: the kind of task.
        method: how the maps were made; it tells two measurements of a metric apart.
        settings: resamples and seed.
    """
    tag: dict[str, JSON] = {"method": method}
    usable = has_mask & masks.any(axis=(1, 2))
    reasons = {
        "maps": f"{variant} is the reference itself" if reference_maps is None else "",
        "masks": "" if usable.any() else "none of the explained images has a mask",
    }
    rows = []
    for name, metric in METRICS.items():
        definition = metric.definitions.get(task)
        if definition is None or definition.function is None or metric.inputs not in reasons:
            continue
        if reasons[metric.inputs]:
            rows.append(not_measured(name, variant, reasons[metric.inputs], "cpu", "test", tag))
            continue
        counted = np.ones(len(maps), dtype=np.bool_) if metric.inputs == "maps" else usable
        others = reference_maps if metric.inputs == "maps" else masks[usable]
        values = definition.function(maps[counted], others)
        in_sample = resampling.units_of([groups[index] for index in np.flatnonzero(counted).tolist()])
        described = dict(tag)
        if resampling.come_in_groups(in_sample):
            described["resampled"] = f"{int(in_sample.max()) + 1} groups"
        estimate = _mean(definition, values, in_sample, settings)
        rows.append(measured(name, variant, estimate, "cpu", "test", described))
    return rows


def unmeasured_saliency(variant: str, reason: str, task: Task, method: Method) -> list[Measurement]:
    """Return every saliency measurement without a value, with the reason."""
    return [
        not_measured(name, variant, reason, "cpu", "test", {"method": method})
        for name, metric in METRICS.items()
        if task in metric.definitions and metric.inputs in ("maps", "masks")
    ]


def _mean(
    definition: Definition, values: NDArray[np.float64], units: Indices, settings: SaliencySettings
) -> statistics.Estimate:
    """Return the mean of one value per map with the interval that the table names."""
    return statistics.mean_estimate(
        values,
        settings.resamples,
        settings.seed,
        units,
        is_share=definition.interval == "bootstrap_or_wilson",
        wilson=definition.interval == "wilson",
    )
