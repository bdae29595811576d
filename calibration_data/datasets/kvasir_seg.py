"""Kvasir-SEG: real colonoscopy, one class of image; two crops of each make a task of two classes.

"polyp" is the smallest square around the largest lesion box with 5 % to spare on each side, with its mask; "mucosa" a
square of the same image that touches no box, where one fits. Two things would give the classes away without a look
at the tissue, and are matched:

- Scale. Large lesions leave little room, so mucosa crops would be smaller. The sides (relative to the image's short
  side) of the mucosa crops are therefore the polyp crops' own, handed out by rank: the image with the k-th least
  room gets the k-th smallest polyp side, as far as it has room. Of the 736 images that were at hand, 709 have room
  for a mucosa crop; the two distributions agree up to the median (0.51 and 0.53), and the side alone tells polyps
  from mucosa with an AUC of 0.56.
- Black borders. No crop reaches beyond its image, and of all places with room one is taken whose black share is
  nearest to that of the image's polyp crop, the most central among equals. The mean shares are 4.6 % (mucosa) and
  3.6 % (polyp); the share alone has an AUC of 0.40.

Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020 (arXiv 1911.07069).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.dataset import BadImageError, Dataset, Frame, Record, SourceSettings
from calibration_data.image_files import (
    fingerprint_of_files,
    read_mask,
    read_pixels,
    read_thumbnail,
    require_folder,
    require_inside,
)
from calibration_data.prepared import SplitName
from pipeline.artifacts import JSON, read_json, sha256_of_file
from pipeline.errors import UsageError

CLASSES = ("mucosa", "polyp")

_LISTS: tuple[tuple[str, SplitName], ...] = (("train.txt", "train"), ("val.txt", "test"))
"""The authors' validation images are the test split; train and validation are divided among their training images."""
_BOXES = "kavsir_bboxes.json"  # the authors' spelling

_MARGIN = 1.1
_SMALLEST_SIDE = 0.2
"""Of a crop, relative to the image's short side."""
_SMALLEST_IMAGE = 16
"""Height and width, in pixels."""
_LIT = 24
"""Gray value above which a pixel is no black border."""
_SMALLEST_LIT_SHARE = 0.7
_REDUCTION = 8
"""Room is looked for in steps of so many pixels."""


class KvasirSegSettings(SourceSettings):
    """Kvasir-SEG as its authors pack it."""

    name: Literal["kvasir_seg"] = Field("kvasir_seg", description="polyps and lesion-free mucosa from Kvasir-SEG")
    root: Annotated[Path, Field(strict=False)] = Field(
        description=f"the folder with images/, masks/, {_BOXES}, train.txt and val.txt"
    )


@dataclass(frozen=True)
class _Crop:
    """A square: its upper left corner and its side, in pixels."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class _Image:
    """A listed image, its lesion boxes and how much of each place of it is lit."""

    name: str
    width: int
    height: int
    boxes: NDArray[np.int64]
    """int64 [n, 4]: left, top, right, bottom, in pixels."""
    lit_sums: NDArray[np.int64]
    """Summed-area table of lit pixels, in the reduced image."""

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)

    def polyp_crop(self) -> _Crop:
        extent = self.boxes[:, 2:] - self.boxes[:, :2]
        largest = int(np.argmax(extent.prod(axis=1)))
        left, top, right, bottom = self.boxes[largest].tolist()
        wanted = round(_MARGIN * int(extent[largest].max()))
        side = min(max(wanted, math.ceil(_SMALLEST_SIDE * self.short_side)), self.short_side)
        return _Crop(
            left=min(max((left + right - side) // 2, 0), self.width - side),
            top=min(max((top + bottom - side) // 2, 0), self.height - side),
            side=side,
        )

    def lit_share(self, left: NDArray[np.int64], top: NDArray[np.int64], side: int) -> NDArray[np.float64]:
        """Return the lit share of squares at these places."""
        height, width = (length - 1 for length in self.lit_sums.shape)
        cells = min(max(side // _REDUCTION, 1), height, width)
        x, y = np.minimum(left // _REDUCTION, width - cells), np.minimum(top // _REDUCTION, height - cells)
        sums = self.lit_sums
        lit = sums[y + cells, x + cells] - sums[y, x + cells] - sums[y + cells, x] + sums[y, x]
        return np.asarray(lit / (cells * cells), dtype=np.float64)

    def places(self, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return the corners and lit shares of all squares of this side that touch no box."""
        left, top = np.meshgrid(
            np.arange(0, self.width - side + 1, _REDUCTION), np.arange(0, self.height - side + 1, _REDUCTION)
        )
        is_free = np.ones(left.shape, dtype=np.bool_)
        for x0, y0, x1, y1 in self.boxes.tolist():
            is_free &= (left > x1) | (left + side < x0) | (top > y1) | (top + side < y0)
        left, top = left[is_free], top[is_free]
        return left, top, self.lit_share(left, top, side)

    def room(self) -> float:
        """Return the side of the largest lit square free of boxes, relative to the short side; 0 for none."""
        for hundredths in range(100, round(100 * _SMALLEST_SIDE) - 1, -2):
            _, _, share = self.places(self.short_side * hundredths // 100)
            if (share >= _SMALLEST_LIT_SHARE).any():
                return hundredths / 100
        return 0.0

    def mucosa_crop(self, side: int) -> _Crop:
        """Return the place for this side with the polyp crop's lit share, to 2 %; of several the farthest from it."""
        polyp = self.polyp_crop()
        wanted = self.lit_share(np.array(polyp.left), np.array(polyp.top), polyp.side)
        left, top, share = self.places(side)
        # Boxes are drawn by hand and a lesion has a rim, so distance makes the label surer.
        across = 2 * (left - polyp.left) + side - polyp.side
        down = 2 * (top - polyp.top) + side - polyp.side
        best = np.lexsort((-(across**2 + down**2), np.floor(np.abs(share - wanted) * 50)))[0]
        return _Crop(int(left[best]), int(top[best]), side)


def open_kvasir_seg(settings: KvasirSegSettings) -> Dataset:
    """Open the two crops of every listed image; the image is the group.

    Raises:
        UsageError: a list, the boxes, an image or a mask is missing, or a list or the boxes are malformed.
    """
    root = require_folder(settings.root, "source.root")
    records: list[Record] = []
    crops: dict[str, tuple[str, _Crop]] = {}
    for split, names in _listed(root).items():
        for name, label, crop in _crops(root, names):
            image_id = f"{name}/{CLASSES[label]}"
            crops[image_id] = (name, crop)
            records.append(Record(image_id, label, name, "", split, sha256_of_file(_image_path(root, name))))
    sizes = {name: (box["width"], box["height"]) for name, box in _read_boxes(root).items()}
    read_image = lru_cache(maxsize=1)(read_pixels)  # an image's two crops follow each other

    def load(record: Record) -> Frame:
        name, crop = crops[record.image_id]
        pixels = read_image(_image_path(root, name))
        if (pixels.shape[1], pixels.shape[0]) != sizes[name]:
            raise BadImageError(
                f"expected {sizes[name][0]} × {sizes[name][1]} pixels, as {_BOXES} has it, "
                f"found {pixels.shape[1]} × {pixels.shape[0]}"
            )
        inside = (slice(crop.top, crop.top + crop.side), slice(crop.left, crop.left + crop.side))
        if CLASSES[record.label] != "polyp":
            return Frame(pixels[inside], None)
        mask = read_mask(_mask_path(root, name))
        if mask.shape != pixels.shape[:2]:
            raise BadImageError(
                f"its mask: expected {pixels.shape[1]} × {pixels.shape[0]} pixels, "
                f"found {mask.shape[1]} × {mask.shape[0]}"
            )
        return Frame(pixels[inside], mask[inside])

    return Dataset(settings.name, CLASSES, tuple(records), synthetic=False, load=load)


def fingerprint_kvasir_seg(settings: KvasirSegSettings) -> str:
    """Return a sha256 over the lists, the boxes, and all listed images and masks."""
    root = require_folder(settings.root, "source.root")
    names = [name for listed in _listed(root).values() for name in listed]
    files = [root / _BOXES, *(root / name for name, _ in _LISTS)]
    files.extend(path for name in names for path in (_image_path(root, name), _mask_path(root, name)))
    return fingerprint_of_files(root, files)


def _crops(root: Path, names: list[str]) -> list[tuple[str, int, _Crop]]:
    """Return name, label and crop for the images of one list: polyps, and mucosa of matched sides."""
    boxes = _read_boxes(root)
    images = [_read_image(root, name, boxes) for name in names]
    polyps = [image.polyp_crop() for image in images]
    relative_sides = sorted(crop.side / image.short_side for image, crop in zip(images, polyps, strict=True))
    rooms = [image.room() for image in images]
    by_room = sorted((index for index, room in enumerate(rooms) if room), key=lambda index: (rooms[index], index))
    mucosa: dict[int, _Crop] = {}
    for rank, index in enumerate(by_room):
        image = images[index]
        side = min(rooms[index], relative_sides[rank * len(images) // len(by_room)])
        # Rounded down like in `room`, so that what has room there has room here.
        mucosa[index] = image.mucosa_crop(math.floor(side * image.short_side + 1e-9))
    found: list[tuple[str, int, _Crop]] = []
    for index, (image, crop) in enumerate(zip(images, polyps, strict=True)):
        found.append((image.name, CLASSES.index("polyp"), crop))
        if index in mucosa:
            found.append((image.name, CLASSES.index("mucosa"), mucosa[index]))
    return found


def _read_image(root: Path, name: str, boxes: dict[str, dict[str, JSON]]) -> _Image:
    entry = boxes[name]
    try:
        lit = read_thumbnail(_image_path(root, name), _REDUCTION) > _LIT
    except BadImageError:
        lit = np.zeros((1, 1), dtype=np.bool_)  # no room for a crop; loading the polyp crop tells the reason
    sums = np.zeros((lit.shape[0] + 1, lit.shape[1] + 1), dtype=np.int64)
    sums[1:, 1:] = lit.cumsum(axis=0).cumsum(axis=1)
    return _Image(name, entry["width"], entry["height"], np.array(entry["boxes"], dtype=np.int64), sums)


# --- the authors' files ---


def _image_path(root: Path, name: str) -> Path:
    return root / "images" / f"{name}.jpg"


def _mask_path(root: Path, name: str) -> Path:
    return root / "masks" / f"{name}.jpg"


def _listed(root: Path) -> dict[SplitName, list[str]]:
    """Return the names in the two lists, each of which has an image, a mask and a box."""
    boxes = _read_boxes(root)
    listed: dict[SplitName, list[str]] = {}
    seen: dict[str, str] = {}
    for file, split in _LISTS:
        path = root / file
        if not path.is_file():
            raise UsageError(
                f"{path}: expected the authors' list of images, found nothing. Unpack the whole data set."
            )
        listed[split] = path.read_text(encoding="utf-8").split()
        for name in listed[split]:
            if name in seen:
                raise UsageError(
                    f"{path}: {name} is listed twice ({seen[name]} and {file}). Remove one of the lines."
                )
            seen[name] = file
            for needed in (_image_path(root, name), _mask_path(root, name)):
                if not require_inside(root, needed).is_file():
                    raise UsageError(f"{needed}: expected a file, {file} lists it, found nothing. Unpack it again.")
            if name not in boxes:
                raise UsageError(f"{root / _BOXES}: expected boxes of {name}, which {file} lists; found none.")
    return listed


def _read_boxes(root: Path) -> dict[str, dict[str, JSON]]:
    """Return width, height and boxes (left, top, right, bottom) of each image."""
    path = root / _BOXES
    content = read_json(path)
    try:
        boxes: dict[str, dict[str, JSON]] = {
            name: {
                "width": int(entry["width"]),
                "height": int(entry["height"]),
                "boxes": [[int(box[key]) for key in ("xmin", "ymin", "xmax", "ymax")] for box in entry["bbox"]],
            }
            for name, entry in content.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: expected the authors' boxes, found another structure ({error!r}).") from error
    for name, entry in boxes.items():
        if not entry["boxes"] or min(entry["width"], entry["height"]) < _SMALLEST_IMAGE:
            raise UsageError(
                f"{path}: expected at least one box and {_SMALLEST_IMAGE} pixels for {name}, found fewer. "
                "Take the name out of the lists."
            )
    return boxes
