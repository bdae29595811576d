"""From image files of many kinds to uint8 pixels, with every doubt about a file turned into one clear reason."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import BadImageError
from pipeline.artifacts import sha256_of_file, sha256_of_json
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MASK_THRESHOLD = 127
"""Mask pixels above it belong to the lesion; masks stored as JPEG hold every gray in between."""


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Decode an image file, upright after its EXIF orientation.

    Gray and 16-bit files give one channel (the high byte of 16 bits, as Pillow does for 16-bit colour), all others
    RGB; transparent pixels are laid on black.

    Returns:
        uint8 [height, width, 1 or 3].

    Raises:
        BadImageError: the file is empty, truncated, no PNG, JPEG, BMP or TIFF, too large, or of an unsuitable kind.
    """
    return _to_uint8(_decode(path))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Decode a mask file: True above `MASK_THRESHOLD`, or above 0 in a file that holds nothing but 0 and 1.

    Returns:
        bool [height, width].

    Raises:
        BadImageError: as for `read_pixels`.
    """
    pixels = np.array(_decode(path).convert("L"))
    lesion: NDArray[np.bool_] = pixels > (0 if pixels.max() <= 1 else MASK_THRESHOLD)
    return lesion


def require_folder(path: Path, key: str) -> Path:
    """Return the folder's real path.

    Raises:
        UsageError: it is missing or no folder.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise UsageError(f"{path}: expected a folder, found {found}. Set `{key}` to the folder of the images.")
    return path.resolve()


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


def _decode(path: Path) -> Image.Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    if path.stat().st_size == 0:
        raise BadImageError("expected an image, found a file of zero bytes")
    try:
        with warnings.catch_warnings():
            # Damaged metadata says nothing about the pixels; a decompression bomb does.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                    raise BadImageError("expected one image, found a TIFF of several pages")
                image.load()
                return ImageOps.exif_transpose(image)
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


def _to_uint8(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[:, :, None]
    if image.mode in ("I", "F"):
        raise BadImageError(f"expected 8 or 16 bits per channel, found 32 (Pillow's mode {image.mode})")
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))[:, :, None]
    if image.has_transparency_data:
        from PIL import Image

        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("RGB"))
