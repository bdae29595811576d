"""From a source to decoded, resized and split images on disk: `{train,validation,test}.npz` and `manifest.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from calibration_data.dataset import BadImageError, Dataset, Frame, Record, SourceSettings
from calibration_data.datasets import DATASETS
from calibration_data.prepared import SPLITS, PreparedData, PreparedSplit, SplitName
from calibration_data.splits import Duplicates, SplitSettings, split_records
from pipeline.artifacts import JSON, atomic_path, read_json, sha256_of_file, sha256_of_json, write_json
from pipeline.errors import UsageError
from pipeline.settings import Settings

if TYPE_CHECKING:
    AnySource = SourceSettings
else:  # every row of the table is a choice in the configuration
    AnySource = Annotated[
        Union[tuple(kind.settings for kind in DATASETS.values())],  # noqa: UP007
        Field(discriminator="name"),
    ]

Fit = Literal["pad", "stretch", "crop"]

_FORMAT_VERSION = 1
_SMALLEST_STD = 1e-3


class DataSettings(Settings):
    """Which images, in which size, and how they are divided."""

    source: AnySource = Field(description="where the images come from")
    image_size: int = Field(64, ge=8, le=1024, description="height and width of the network's input, in pixels")
    channels: Literal[1, 3] = Field(3, description="1: gray, 3: RGB")
    fit: Fit = Field("pad", description="how an image becomes square: black borders, stretched, or cropped")
    mean: Annotated[tuple[float, ...], Field(strict=False)] | None = Field(
        None, description="per channel, of pixels scaled to 0…1; default: computed from the training images"
    )
    std: Annotated[tuple[float, ...], Field(strict=False)] | None = Field(None, description="per channel, likewise")
    split: SplitSettings = Field(SplitSettings(), description="how the images are divided")
    bad_images: Literal["error", "skip"] = Field("error", description="what to do with an image that cannot be read")
    duplicates: Duplicates = Field(
        "error", description="equal images in two splits: an error, or merge: keep them on one side"
    )

    @model_validator(mode="after")
    def _normalisation_fits(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: set both or neither")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{key} must have {self.channels} values, one per channel; it has {len(values)}")
        if self.std is not None and min(self.std) < _SMALLEST_STD:
            raise ValueError(f"std must be at least {_SMALLEST_STD}")
        return self


def source_fingerprint(settings: DataSettings) -> str:
    """Return a sha256 over the source's content, wherever its files lie; with the settings it is a cache's key.

    Raises:
        UsageError: the source is missing.
    """
    name = settings.source.name
    return sha256_of_json({"source": name, "content": DATASETS[name].fingerprint(settings.source)})


def prepare(
    settings: DataSettings, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> PreparedData:
    """Decode, resize and split the source's images and write them into `folder`, the manifest last.

    Args:
        settings: what to prepare.
        folder: where `train.npz`, `validation.npz`, `test.npz` and `manifest.json` go.
        progress: called with the images done and all images.

    Returns:
        What `read_prepared(folder)` would return.

    Raises:
        UsageError: the source is missing, an image is bad and `bad_images` is "error", or the images cannot be
            divided (see `split_records`).
    """
    dataset = DATASETS[settings.source.name].open(settings.source)
    decoded = _decode_all(dataset, settings, progress)
    assignment = split_records(decoded.records, dataset.classes, settings.split, settings.duplicates)
    splits = {name: _select(decoded, [side == name for side in assignment]) for name in SPLITS}
    mean, std = _mean_and_std(splits["train"].images)
    if settings.mean is not None and settings.std is not None:
        mean, std = settings.mean, settings.std
    data = PreparedData(
        dataset=dataset.name,
        classes=dataset.classes,
        mean=mean,
        std=std,
        synthetic=dataset.synthetic,
        skipped=decoded.skipped,
        sha256=_digest(dataset.classes, splits),
        **splits,
    )
    _write(data, dataset.ignored, folder)
    return data


def read_prepared(folder: Path) -> PreparedData:
    """Read what `prepare` wrote.

    Raises:
        UsageError: a file is missing, damaged, or not the one that the manifest describes.
    """
    path = folder / "manifest.json"
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format_version") != _FORMAT_VERSION:
        raise UsageError(f"{path}: expected a manifest of format {_FORMAT_VERSION}. Delete {folder} and run again.")
    try:
        return _read(manifest, folder)
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: expected a whole manifest, {error!r}. Delete {folder} and run again.") from error


def _read(manifest: dict[str, JSON], folder: Path) -> PreparedData:
    return PreparedData(
        dataset=manifest["dataset"],
        classes=tuple(manifest["classes"]),
        mean=tuple(manifest["mean"]),
        std=tuple(manifest["std"]),
        synthetic=manifest["synthetic"],
        skipped=tuple(manifest["skipped"]),
        sha256=manifest["sha256"],
        **{name: _read_split(folder, name, manifest["splits"][name]) for name in SPLITS},
    )


# --- decoding ---


@dataclass(frozen=True)
class _Decoded:
    records: list[Record]
    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    skipped: tuple[str, ...]


def _decode_all(dataset: Dataset, settings: DataSettings, progress: Callable[[int, int], None]) -> _Decoded:
    """Decode and resize every image that can be read; raise or note the others."""
    total, size = len(dataset.records), settings.image_size
    images = np.zeros((total, settings.channels, size, size), dtype=np.uint8)
    masks = np.zeros((total, size, size), dtype=np.bool_)
    has_mask = np.zeros(total, dtype=np.bool_)
    records: list[Record] = []
    skipped: list[str] = []
    for done, record in enumerate(dataset.records, start=1):
        try:
            frame = dataset.load(record)
        except BadImageError as error:
            if settings.bad_images == "error":
                raise UsageError(
                    f"{record.image_id}: {error}. Replace or remove it, or set `bad_images: skip` to leave it out."
                ) from error
            skipped.append(f"{record.image_id}: {error}")
        else:
            index = len(records)
            images[index], mask = fit_frame(frame, size, settings.channels, settings.fit)
            if mask is not None:
                masks[index], has_mask[index] = mask, True
            records.append(record)
        progress(done, total)
    kept = len(records)
    return _Decoded(records, images[:kept], masks[:kept], has_mask[:kept], tuple(skipped))


def fit_frame(frame: Frame, size: int, channels: int, fit: Fit) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Bring a frame to a square of `size` pixels; the mask takes the image's geometry, without interpolation.

    Args:
        frame: any height and width, 1 or 3 channels.
        size: height and width of the result, in pixels.
        channels: 1 (brightness by ITU-R 601) or 3.
        fit: "pad": whole image, black borders; "stretch": whole image, distorted; "crop": the central square.

    Returns:
        uint8 [channels, size, size] and bool [size, size] or None.
    """
    from PIL import Image

    pixels = frame.pixels[:, :, 0] if frame.pixels.shape[2] == 1 else frame.pixels
    image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box, shown = (left, top, left + side, top + side), (size, size)
    else:
        box = (0, 0, width, height)
        scale = size / max(width, height)
        shown = (max(1, round(width * scale)), max(1, round(height * scale))) if fit == "pad" else (size, size)
    left, top = (size - shown[0]) // 2, (size - shown[1]) // 2
    inside = (slice(top, top + shown[1]), slice(left, left + shown[0]))

    square = np.zeros((size, size, channels), dtype=np.uint8)
    resized = np.asarray(image.resize(shown, Image.Resampling.BILINEAR, box=box))
    square[inside] = resized.reshape(shown[1], shown[0], channels)
    if frame.mask is None:
        return np.ascontiguousarray(square.transpose(2, 0, 1)), None
    mask = np.zeros((size, size), dtype=np.bool_)
    lesion = Image.fromarray(frame.mask.astype(np.uint8) * 255)
    mask[inside] = np.asarray(lesion.resize(shown, Image.Resampling.NEAREST, box=box)) > 0
    return np.ascontiguousarray(square.transpose(2, 0, 1)), mask


def _select(decoded: _Decoded, chosen: Sequence[bool]) -> PreparedSplit:
    records = [record for record, is_chosen in zip(decoded.records, chosen, strict=True) if is_chosen]
    keep = np.array(chosen)
    return PreparedSplit(
        images=decoded.images[keep],
        labels=np.array([record.label for record in records], dtype=np.int64),
        masks=decoded.masks[keep],
        has_mask=decoded.has_mask[keep],
        mask_class=np.full(len(records), -1),
        image_ids=tuple(record.image_id for record in records),
        groups=tuple(record.group for record in records),
        subgroups=tuple(record.subgroup for record in records),
        sha256=tuple(record.sha256 for record in records),
    )


def _mean_and_std(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel; from counts of gray values, so that they are exact."""
    values = np.arange(256)
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].reshape(-1), minlength=256)
        n, total, squares = int(counts.sum()), int(counts @ values), int(counts @ values**2)
        means.append(total / n / 255)
        stds.append(max(((squares * n - total * total) ** 0.5) / n / 255, _SMALLEST_STD))
    return tuple(means), tuple(stds)


# --- the folder ---

_ARRAYS = ("images", "labels", "masks", "has_mask", "mask_class")
_COLUMNS = ("image_ids", "groups", "subgroups", "sha256")


def _write(data: PreparedData, ignored: Sequence[str], folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.unlink(missing_ok=True)  # without a manifest, a half-written folder cannot be taken for a whole one
    splits: dict[str, JSON] = {}
    for name in SPLITS:
        split = data.split(name)
        path = folder / f"{name}.npz"
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            # Uncompressed: the bytes depend on no version of zlib, and photographs hardly shrink.
            np.savez(stream, **{key: getattr(split, key) for key in _ARRAYS})
        splits[name] = {"file_sha256": sha256_of_file(path), "n": len(split)}
        splits[name].update({key: list(getattr(split, key)) for key in _COLUMNS})
    write_json(
        manifest,
        {
            "format_version": _FORMAT_VERSION,
            "dataset": data.dataset,
            "classes": list(data.classes),
            "mean": list(data.mean),
            "std": list(data.std),
            "synthetic": data.synthetic,
            "skipped": list(data.skipped),
            "ignored_files": list(ignored),
            "sha256": data.sha256,
            "splits": splits,
        },
    )


def _read_split(folder: Path, name: SplitName, record: JSON) -> PreparedSplit:
    path = folder / f"{name}.npz"
    if not path.is_file():
        raise UsageError(f"{path}: expected a file, found nothing. Delete {folder} and run again.")
    if sha256_of_file(path) != record["file_sha256"]:
        raise UsageError(
            f"{path}: expected the sha256 {record['file_sha256'][:12]}… of the manifest, found another. "
            f"The file was changed after it was made; delete {folder} and run again."
        )
    with np.load(path, allow_pickle=False) as arrays:
        values: dict[str, Any] = {key: arrays[key] for key in _ARRAYS}
    values.update((key, tuple(record[key])) for key in _COLUMNS)
    return PreparedSplit(**values)


def _digest(classes: Sequence[str], splits: dict[SplitName, PreparedSplit]) -> str:
    """Return a sha256 over every image, mask and label, what the labels mean, and whose images they are."""
    return sha256_of_json(
        {
            "classes": list(classes),
            **{
                f"{name}/{key}": hashlib.sha256(getattr(split, key).tobytes()).hexdigest()
                for name, split in splits.items()
                for key in _ARRAYS
            },
            **{f"{name}/{key}": list(getattr(split, key)) for name, split in splits.items() for key in _COLUMNS},
        }
    )
