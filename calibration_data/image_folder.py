"""Images without labels: any folder of them, for a quantizer that needs to see what the model will see."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import BadImageError, Frame
from calibration_data.fitting import ImageForm, UndecidedBitsError, bits_for, fit_frame, largest_of_16_bits
from calibration_data.image_files import is_image_name, read_pixels, require_folder, require_inside
from calibration_data.prepared import PreparedData, PreparedSplit
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json
from foundation.printable import printable
from foundation.progress import Progress, no_progress
from onnx_files.preprocessing import Preprocessing

CALIBRATION_IMAGES = 128
"""Taken where nobody says how many, but never more than three quarters of the folder."""
_CALIBRATION_SHARE = 0.75


@dataclass(frozen=True)
class UnlabelledImages:
    """Some images of a folder.

    Attributes:
        pixels: uint8 [n, channels, height, width]; mapped from disk.
        image_ids: n paths below the folder, with slashes; what cannot be shown of a name as its escape.
        sha256: n digests of the files.
    """

    pixels: NDArray[np.uint8]
    image_ids: tuple[str, ...]
    sha256: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_ids)

    def part(self, part: slice) -> UnlabelledImages:
        """Return some of them, in order."""
        return UnlabelledImages(self.pixels[part], self.image_ids[part], self.sha256[part])


@dataclass(frozen=True)
class ImageFolder:
    """What was taken from a folder.

    Attributes:
        calibration: the images to calibrate on.
        held_out: others, to measure on.
        skipped: files that could not be read, as "path: reason".
        duplicates: how many files were left out because an equal one was taken.
    """

    calibration: UnlabelledImages
    held_out: UnlabelledImages
    skipped: tuple[str, ...]
    duplicates: int


def read_image_folder(
    root: Path,
    form: ImageForm,
    limit: int | None,
    held_out: int,
    seed: int,
    scratch: Path,
    progress: Progress = no_progress,
) -> ImageFolder:
    """Take calibration images from a folder, and as many others to measure on.

    The calibration images are spread over the folder: its files, sorted by path, are cut into equal stretches, and
    each gives one at random. Files that cannot be read, and files equal to one that was taken, are passed over and
    replaced by others. The same folder and seed give the same images. How many bits 16-bit files use, the largest
    value of all files of the folder decides.

    Args:
        root: the folder; folders inside it count, hidden ones do not.
        form: of the images.
        limit: at most so many calibration images, at least 1; None for `CALIBRATION_IMAGES`, or three quarters of the
            folder where it holds few.
        held_out: at most so many others.
        seed: of the choice.
        scratch: a folder to keep the decoded images in.
        progress: called with the images taken and the number wanted.

    Raises:
        UsageError: no folder, no image in it that can be read, a link that leaves it, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit: expected 1 calibration image or more, found {limit}. Raise it, or leave it out.")
    root = require_folder(root, "--images")
    files = list_images(root)
    if not files:
        raise UsageError(f"{root}: expected PNG, JPEG, BMP or TIFF images, found none. Give a folder of images.")
    if limit is None:
        limit = min(CALIBRATION_IMAGES, max(1, int(_CALIBRATION_SHARE * len(files))))
    first = min(limit, len(files))
    reader = _Reader(root, form, iter(_order(len(files), first, seed)), files)
    total = min(first + held_out, len(files))
    calibration = reader.take(first, scratch / "calibration.npy", lambda done, _: progress(done, total))
    if len(calibration) == 0:
        raise UsageError(
            f"{root}: expected images that can be read, found {len(files)} files and none of them can "
            f"({reader.skipped[0]}). Give other images."
        )
    others = reader.take(held_out, scratch / "held_out.npy", lambda done, _: progress(len(calibration) + done, total))
    return ImageFolder(calibration, others, tuple(reader.skipped), reader.duplicates)


def list_images(root: Path) -> list[Path]:
    """Return the image files below a folder, sorted by path; hidden files and folders are left out.

    Args:
        root: a folder, resolved.

    Raises:
        UsageError: a link leaves the folder.
    """
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(folder, name)
            if is_image_name(name) and not name.startswith(".") and path.is_file():
                found.append(require_inside(root, path))
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def unlabelled_data(calibration: UnlabelledImages, preprocessing: Preprocessing) -> PreparedData:
    """Return images in the form that quantizers take: all of them in the training split, the others empty.

    There are no labels: all are 0, and there is one class. What would measure an accuracy on them has nothing to
    measure on, since the validation and the test split are empty.
    """
    nothing = UnlabelledImages(calibration.pixels[:0], (), ())
    return PreparedData(
        dataset="images",
        classes=("unlabelled",),
        mean=preprocessing.mean,
        std=preprocessing.std,
        synthetic=False,
        skipped=(),
        sha256=sha256_of_json(dict(zip(calibration.image_ids, calibration.sha256, strict=True))),
        train=_split(calibration),
        validation=_split(nothing),
        test=_split(nothing),
    )


def _split(images: UnlabelledImages) -> PreparedSplit:
    n, _, height, width = images.pixels.shape
    return PreparedSplit(
        images=images.pixels,
        labels=np.zeros(n, dtype=np.int64),
        masks=np.broadcast_to(np.False_, (n, height, width)),
        has_mask=np.zeros(n, dtype=np.bool_),
        mask_class=np.full(n, -1),
        image_ids=images.image_ids,
        groups=images.image_ids,
        subgroups=((),) * n,
        sha256=images.sha256,
    )


def _order(files: int, first: int, seed: int) -> list[int]:
    # One of each stretch, then all others at random.
    rng = np.random.default_rng(seed)
    spread = np.minimum(((np.arange(first) + rng.random(first)) * files / first).astype(int), files - 1)
    chosen = list(dict.fromkeys(spread.tolist()))
    others = np.setdiff1d(np.arange(files), chosen)
    return [*chosen, *rng.permutation(others).tolist()]


class _Reader:
    """Goes once through the files in their order; takes what can be read and was not taken before."""

    def __init__(self, root: Path, form: ImageForm, order: Iterator[int], files: list[Path]) -> None:
        self._root = root
        self._form = form
        self._order = order
        self._files = files
        self._taken: set[str] = set()
        self.skipped: list[str] = []
        self.duplicates = 0

    def take(self, n: int, target: Path, progress: Progress) -> UnlabelledImages:
        """Decode up to n images into a file and map it."""
        form = self._form
        shape = (form.channels, form.size, form.width or form.size)
        ids: list[str] = []
        digests: list[str] = []
        with target.open("wb") as stream:
            while len(ids) < n and (index := next(self._order, None)) is not None:
                path = self._files[index]
                name = printable(path.relative_to(self._root).as_posix())  # goes into records, reports and tables
                try:
                    digest = sha256_of_file(path)
                    if digest in self._taken:
                        self.duplicates += 1
                        continue
                    image = self._fitted(Frame(read_pixels(path), None))
                except (BadImageError, OSError) as error:
                    self.skipped.append(f"{name}: {error}")
                    continue
                self._taken.add(digest)
                stream.write(image.tobytes())
                ids.append(name)
                digests.append(digest)
                progress(len(ids), n)
        if ids:
            pixels: NDArray[np.uint8] = np.memmap(target, np.uint8, "r", shape=(len(ids), *shape))
        else:
            pixels = np.zeros((0, *shape), np.uint8)
        return UnlabelledImages(pixels, tuple(ids), tuple(digests))

    def _fitted(self, frame: Frame) -> NDArray[np.uint8]:
        try:
            return fit_frame(frame, self._form)[0]
        except UndecidedBitsError:
            self._form = replace(self._form, bits=bits_for(max(map(_largest, self._files))))
            return fit_frame(frame, self._form)[0]


def _largest(path: Path) -> int:
    try:
        return largest_of_16_bits(read_pixels(path))
    except (BadImageError, OSError):  # passed over where it would be taken
        return 0
