"""From image files of many kinds to uint8 pixels, with every doubt about a file turned into one clear reason."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import BadImageError
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
Pixels = TypeVar("Pixels")
MASK_THRESHOLD = 127
"""Mask pixels above it belong to the lesion; masks stored as JPEG hold every gray in between."""


def is_image_name(name: str) -> bool:
    """Return whether a file's name ends like that of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (names of members, not of files)


def read_pixels(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode an image file, upright after its EXIF orientation.

    Gray files give one channel, all others RGB; of 16-bit colour Pillow keeps the high byte. Transparent pixels are
    laid on black.

    Returns:
        uint8 [height, width, 1 or 3]; of 16-bit gray uint16 [height, width, 1], which `fitting.eight_bits` cuts down.

    Raises:
        BadImageError: the file is empty, truncated, of another format, too large, or of an unsuitable kind.
    """
    with path.open("rb") as stream:
        return _decoded(stream, _to_array)


def decode_pixels(content: bytes) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode an image file's bytes; everything else as for `read_pixels`."""
    return _decoded(io.BytesIO(content), _to_array)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Decode a mask file: True above `MASK_THRESHOLD`, or above 0 in a file that holds nothing but 0 and 1.

    Returns:
        bool [height, width].

    Raises:
        BadImageError: as for `read_pixels`.
    """
    with path.open("rb") as stream:
        pixels = _decoded(stream, lambda image: np.array(image.convert("L")))
    lesion: NDArray[np.bool_] = pixels > (0 if pixels.max() <= 1 else MASK_THRESHOLD)
    return lesion


def read_united_mask(paths: Iterable[Path], shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return the union of an image's masks, None where there are none.

    Args:
        paths: the mask files.
        shape: height and width of the image, in pixels.

    Raises:
        BadImageError: a mask cannot be read, or has another size than the image.
    """
    union: NDArray[np.bool_] | None = None
    for path in paths:
        try:
            mask = read_mask(path)
        except BadImageError as error:
            raise BadImageError(f"its mask {path.name}: {error}") from error
        if mask.shape != shape:
            expected, found = (f"{size[1]} × {size[0]}" for size in (shape, mask.shape))
            raise BadImageError(f"its mask {path.name}: expected {expected} pixels, found {found}")
        union = mask if union is None else union | mask
    return union


def require_folder(path: Path, key: str) -> Path:
    """Return the folder's real path.

    Raises:
        UsageError: it is missing or no folder.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise UsageError(f"{path}: expected a folder, found {found}. Set `{key}` to the folder of the images.")
    return path.resolve()


def require_file(path: Path, content: str) -> Path:
    """Return the path as it is.

    Args:
        path: where the file should lie.
        content: what the file is, for the message.

    Raises:
        UsageError: it is missing or no file.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise UsageError(f"{path}: expected {content}, found {found}. Unpack the whole data set.")
    return path


def require_inside(root: Path, path: Path) -> Path:
    """Return the path as it is.

    Raises:
        UsageError: it is, or lies behind, a symbolic link that leaves `root` (a resolved folder).
    """
    if not Path(os.path.realpath(path)).is_relative_to(root):  # pathlib's resolve has no word for a loop of links
        raise UsageError(f"{path}: expected a file below {root}, found a link that leaves it. Copy the file there.")
    return path


def fingerprint_of_files(root: Path, paths: Iterable[Path]) -> str:
    """Return a sha256 over files' paths below `root` and their bytes."""
    return sha256_of_json({path.relative_to(root).as_posix(): sha256_of_file(path) for path in paths})


def _decoded(stream: BinaryIO, to_array: Callable[[Image.Image], Pixels]) -> Pixels:
    """Return what a function makes of a decoded image; also converting one may fail, from a damaged palette say."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if stream.seek(0, os.SEEK_END) == 0:
        raise BadImageError("expected an image, found a file of zero bytes")
    try:
        with warnings.catch_warnings():
            # Damaged metadata says nothing about the pixels; a decompression bomb does.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            stream.seek(0)
            with Image.open(stream, formats=_FORMATS) as image:
                if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                    raise BadImageError("expected one image, found a TIFF of several pages")
                image.load()
                return to_array(ImageOps.exif_transpose(image))
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError("expected a PNG, JPEG, BMP or TIFF image, found other content") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(
            f"expected at most {Image.MAX_IMAGE_PIXELS} pixels, found more (a decompression bomb?)"
        ) from error
    except Exception as error:  # a decoder may raise anything at all on damaged bytes
        raise BadImageError(f"expected a whole image, found a damaged one ({error})") from error


def _to_array(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[:, :, None]
    if image.mode in ("I", "F"):
        raise BadImageError(f"expected 8 or 16 bits per channel, found 32 (Pillow's mode {image.mode})")
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))[:, :, None]
    if image.has_transparency_data:
        from PIL import Image

        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("RGB"))
