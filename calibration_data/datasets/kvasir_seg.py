"""Kvasir-SEG: real colonoscopy, one class of image; two crops of each make a task of two classes.

"polyp" is the smallest square around the largest lesion box with 5 % to spare on each side, with its mask; "mucosa" a
square of the same image that touches no box, where one fits. Two things would give the classes away without a look
at the tissue, and are matched:

- Black borders. No crop reaches beyond its image; only a place that is no blacker than the image's polyp crop (to
  0.5 %) counts as room, and the one nearest to it in black share is taken, the most central among equals.
- Scale. Large lesions leave little room, so mucosa crops would be smaller. The sides (relative to the image's short
  side) of the mucosa crops are therefore the polyp crops' own, handed out by rank: the image with the k-th least
  room gets the k-th smallest polyp side, as far as it has room.

Of the 736 images that were at hand, 709 have room for a mucosa crop. Their black shares are 3.2 % (mucosa) and 3.6 %
(polyp) on average, and the share alone tells polyps from mucosa with an AUC of 0.45. The sides agree up to the
median (0.50 and 0.52); the side alone has an AUC of 0.58. A small network from scratch reaches 0.87.

Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020 (arXiv 1911.07069).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.dataset import BadImageError, Dataset, Frame, Record, SourceSettings
from calibration_data.datasets.comma_separated import listed_names
from calibration_data.image_files import fingerprint_of_files, read_mask, read_pixels, require_folder, require_inside
from calibration_data.prepared import SplitName
from foundation.errors import UsageError
from foundation.files import JSON, read_json, sha256_of_file
from foundation.settings import LocalPath

CLASSES = ("mucosa", "polyp")

_LISTS: tuple[tuple[str, SplitName], ...] = (("train.txt", "train"), ("val.txt", "test"))
"""The authors' validation images are the test split; train and validation are divided among their training images."""
_BOXES = "kavsir_bboxes.json"  # the authors' spelling

_MARGIN = 1.1
_SMALLEST_SIDE = 0.2
"""Of a crop, relative to the image's short side."""
_SMALLEST_IMAGE = 16
_LARGEST_IMAGE = 20_000
"""Height and width, in pixels."""
_BLACK = 24
"""Largest channel value of a pixel that counts as black border."""
_LARGEST_BLACK_SHARE = 0.3
_BLACK_TOLERANCE = 0.005
"""By how much the black share of a mucosa crop may exceed that of the image's polyp crop."""
_CELL = 4
"""Black shares are counted in cells of so many pixels."""
_STEP = 8
"""Room is looked for in steps of so many pixels."""


class KvasirSegSettings(SourceSettings):
    """Kvasir-SEG as its authors pack it."""

    name: Literal["kvasir_seg"] = Field("kvasir_seg", description="polyps and lesion-free mucosa from Kvasir-SEG")
    root: LocalPath = Field(description=f"the folder with images/, masks/, {_BOXES}, train.txt and val.txt")


@dataclass(frozen=True)
class _Crop:
    """A square: its upper left corner and its side, in pixels."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class _Image:
    """A listed image, its lesion boxes and how black each place of it is."""

    name: str
    width: int
    height: int
    boxes: NDArray[np.int64]
    """int64 [n, 4]: left, top, right, bottom, in pixels."""
    black_sums: NDArray[np.int32]
    """Summed-area table of black pixels, over cells."""

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

    def black_share(self, left: NDArray[np.int64], top: NDArray[np.int64], side: int) -> NDArray[np.float64]:
        """Return the black share of squares at these places, to the nearest cell."""
        height, width = (length - 1 for length in self.black_sums.shape)
        cells = min(max(side // _CELL, 1), height, width)
        x, y = np.minimum(left // _CELL, width - cells), np.minimum(top // _CELL, height - cells)
        sums = self.black_sums
        black = sums[y + cells, x + cells] - sums[y, x + cells] - sums[y + cells, x] + sums[y, x]
        return np.asarray(black / (cells * _CELL) ** 2, dtype=np.float64)

    def places(self, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the corners of all squares of this side that touch no box."""
        left, top = np.meshgrid(
            np.arange(0, self.width - side + 1, _STEP), np.arange(0, self.height - side + 1, _STEP)
        )
        is_free = np.ones(left.shape, dtype=np.bool_)
        for x0, y0, x1, y1 in self.boxes.tolist():
            is_free &= (left > x1) | (left + side < x0) | (top > y1) | (top + side < y0)
        return left[is_free], top[is_free]

    def polyp_black_share(self) -> float:
        """Return the black share of the polyp crop."""
        polyp = self.polyp_crop()
        return float(self.black_share(np.array(polyp.left), np.array(polyp.top), polyp.side))

    def room(self) -> float:
        """Return the side of the largest mucosa crop, relative to the short side; 0 where none fits."""
        largest = min(_LARGEST_BLACK_SHARE, self.polyp_black_share() + _BLACK_TOLERANCE)
        for hundredths in range(100, round(100 * _SMALLEST_SIDE) - 1, -2):
            side = self.short_side * hundredths // 100
            if (self.black_share(*self.places(side), side) <= largest).any():
                return hundredths / 100
        return 0.0

    def mucosa_crop(self, side: int) -> _Crop:
        """Return the place for this side nearest to the polyp crop in black share; of equals the most central."""
        left, top = self.places(side)
        difference = np.abs(self.black_share(left, top, side) - self.polyp_black_share())
        off_centre = (2 * left + side - self.width) ** 2 + (2 * top + side - self.height) ** 2
        best = np.lexsort((off_centre, np.floor(difference / _BLACK_TOLERANCE)))[0]
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
            records.append(Record(image_id, label, name, (), split, sha256_of_file(_image_path(root, name))))
    sizes = {name: (box["width"], box["height"]) for name, box in _read_boxes(root).items()}
    return Dataset(settings.name, CLASSES, tuple(records), synthetic=False, load=partial(_load, root, crops, sizes))


def fingerprint_kvasir_seg(settings: KvasirSegSettings) -> str:
    """Return a sha256 over the lists, the boxes, and all listed images and masks."""
    root = require_folder(settings.root, "source.root")
    names = [name for listed in _listed(root).values() for name in listed]
    files = [root / _BOXES, *(root / name for name, _ in _LISTS)]
    files.extend(path for name in names for path in (_image_path(root, name), _mask_path(root, name)))
    return fingerprint_of_files(root, files)


def _load(
    root: Path, crops: Mapping[str, tuple[str, _Crop]], sizes: Mapping[str, tuple[int, int]], record: Record
) -> Frame:
    """Decode a crop; `sizes` are the images' widths and heights as the boxes have them."""
    name, crop = crops[record.image_id]
    path = _image_path(root, name)
    pixels = _read_image_at(path, path.stat().st_mtime_ns)
    if (pixels.shape[1], pixels.shape[0]) != sizes[name]:
        raise BadImageError(
            f"expected {sizes[name][0]} × {sizes[name][1]} pixels, as {_BOXES} has it, "
            f"found {pixels.shape[1]} × {pixels.shape[0]}"
        )
    inside = (slice(crop.top, crop.top + crop.side), slice(crop.left, crop.left + crop.side))
    if record.label != CLASSES.index("polyp"):
        return Frame(pixels[inside], None)
    mask = read_mask(_mask_path(root, name))
    if mask.shape != pixels.shape[:2]:
        raise BadImageError(
            f"its mask: expected {pixels.shape[1]} × {pixels.shape[0]} pixels, "
            f"found {mask.shape[1]} × {mask.shape[0]}"
        )
    return Frame(pixels[inside], mask[inside])


@lru_cache(maxsize=1)  # an image's two crops follow each other
def _read_image_at(path: Path, mtime_ns: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    return read_pixels(path)


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
        pixels = read_pixels(_image_path(root, name))
        is_black = np.logical_and.reduce([channel <= _BLACK for channel in pixels.transpose(2, 0, 1)])
    except BadImageError:
        is_black = np.ones((_CELL, _CELL), dtype=np.bool_)  # no room for mucosa; loading the polyp tells the reason
    rows, columns = (length // _CELL for length in is_black.shape)
    cells = is_black[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL).sum(axis=(1, 3))
    sums = np.zeros((rows + 1, columns + 1), dtype=np.int32)
    sums[1:, 1:] = cells.cumsum(axis=0).cumsum(axis=1)
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
        listed[split] = listed_names(path)
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


def _pixels(value: JSON) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST_IMAGE:
        raise ValueError(f"a number of pixels that is {str(value)[:40]!a}")
    return value


def _read_boxes(root: Path) -> dict[str, dict[str, JSON]]:
    """Return width, height and boxes (left, top, right, bottom) of each image."""
    path = root / _BOXES
    content = read_json(path)
    try:
        boxes: dict[str, dict[str, JSON]] = {
            name: {
                "width": _pixels(entry["width"]),
                "height": _pixels(entry["height"]),
                "boxes": [[_pixels(box[key]) for key in ("xmin", "ymin", "xmax", "ymax")] for box in entry["bbox"]],
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
