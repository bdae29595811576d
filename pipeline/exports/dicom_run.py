"""`edgeproof export-dicom`: a run's saliency maps as DICOM objects that a PACS files beside their source images.

These files name the patient, as everything in a PACS does: they are written by this command alone, from the source
images that the user hands it, and never into the run's folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration_data.datasets.dicom_pixels import read_dicom_pixels
from calibration_data.datasets.dicom_window import Window
from calibration_data.fitting import ImageForm, unfit_map
from foundation.errors import UsageError
from foundation.explanations import Explanations
from foundation.files import JSON, write_bytes, write_refused
from foundation.progress import Progress, no_progress
from foundation.run_files import refuse_changed
from foundation.run_folder import RunFolder
from pipeline.exports.dicom_objects import MapOfImage, parametric_map, secondary_capture
from pipeline.exports.dicom_source import SourceImage, dicom_settings, find_source
from pipeline.exports.outside import refuse_inside_a_run
from reports.facts import Facts, read_facts
from reports.measured import method_name


@dataclass(frozen=True)
class ExportedObjects:
    """What was written.

    Attributes:
        folder: that holds one folder per image.
        images: how many source images.
        files: the paths below the folder, in their order.
    """

    folder: Path
    images: int
    files: tuple[str, ...]


def export_dicom(
    run: RunFolder,
    images: Path,
    output: Path,
    variant: str | None = None,
    every_image: bool = False,
    progress: Progress = no_progress,
) -> ExportedObjects:
    """Write the maps of a run on DICOM files, each as a picture and as numbers.

    Args:
        run: the folder.
        images: the folder that the run read its images from.
        output: where the objects go, a folder per image; it is made for its user alone.
        variant: whose maps; None for every variant's.
        every_image: all images with a map; otherwise those that the report shows.
        progress: called with the images done and all of them.

    Raises:
        UsageError: highdicom is missing, the run is none on DICOM files or not as it was recorded, it has no maps, or
            a source image is not at hand, not the one that was read, or without identifiers. Nothing is written then.
        StageError: highdicom refused a source image.
    """
    _require_highdicom()
    refuse_inside_a_run(output, "--output")
    facts = read_facts(run)
    settings = dicom_settings(run, facts.record)
    refuse_changed(run, facts.record)
    maps = _maps(run, facts, variant)
    data = facts.data
    assert data is not None  # maps are of its images
    chosen = _chosen(facts, maps, every_image)
    sources = [find_source(images, data.test, index) for index in chosen]
    form = ImageForm(data.image_size, data.channels, settings["fit"], crop_share=settings["crop_share"])
    _make_private(output)
    written: list[str] = []
    for done, source in enumerate(sources):
        progress(done, len(sources))
        written += _write(source, facts, maps, form, _window(settings), output)
    return ExportedObjects(output, len(sources), tuple(written))


def _write(
    source: SourceImage,
    facts: Facts,
    maps: Sequence[Explanations],
    form: ImageForm,
    window: Window | None,
    output: Path,
) -> list[str]:
    shown = read_dicom_pixels(source.path, window)
    height, width = shown.shape[:2]
    method = _method(facts)
    written = []
    for place, of_variant in enumerate(maps):
        record = next(one for one in facts.record.variants if one.variant == of_variant.variant)
        row = int(np.flatnonzero(of_variant.image_index == source.index)[0])
        values = unfit_map(np.nan_to_num(of_variant.maps[row]), width, height, form)
        target = facts.record.classes[int(of_variant.target[row])]
        of = MapOfImage(record.variant, method_name(method), record.sha256, place, target, values, shown)
        for kind, derive in (("picture", secondary_capture), ("numbers", parametric_map)):
            name = f"{source.sha256[:12]}/{record.variant}.{method}.{kind}.dcm"
            write_bytes(output / name, derive(source, of))
            written.append(name)
    return written


def _maps(run: RunFolder, facts: Facts, variant: str | None) -> tuple[Explanations, ...]:
    """Return the maps to export, those of the method that the report shows, in the order of the variants."""
    if facts.data is None or not facts.maps:
        raise UsageError(
            f"{run.root}: expected a run with saliency maps and its prepared images, found none. Ask for maps "
            "(`validation.saliency`) and run again."
        )
    names = [name for name in facts.variant_names if name in facts.maps]
    if variant is not None and variant not in names:
        raise UsageError(f"--variant: expected one of {', '.join(names)}, found {variant[:60]!r}.")
    return tuple(facts.maps[name] for name in names if variant in (None, name))


def _chosen(facts: Facts, maps: Sequence[Explanations], every_image: bool) -> list[int]:
    common = set.intersection(*(set(one.image_index.tolist()) for one in maps))
    shown = facts.image_by_image.maps if facts.image_by_image else None
    if every_image or shown is None:
        return sorted(common)
    return [image.index for image in shown.images if image.index in common]


def _method(facts: Facts) -> str:
    assert facts.image_by_image is not None  # where there are maps, it says by which method
    assert facts.image_by_image.maps is not None
    return facts.image_by_image.maps.method


def _window(settings: Mapping[str, JSON]) -> Window | None:
    source = settings["source"]
    centre, width = source.get("window_center"), source.get("window_width")
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in (centre, width)):
        return None
    return Window(float(centre), float(width))


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise write_refused(folder, error) from error


def _require_highdicom() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "export-dicom: expected the package highdicom, found none. Install it with "
            "`pip install 'edgeproof[dicom-out]'`."
        ) from error
