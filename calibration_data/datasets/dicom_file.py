"""What a DICOM file says before its pixels, and where these lie; with or without preamble and file meta."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from calibration_data.dataset import BadImageError

if TYPE_CHECKING:
    from pydicom import Dataset as DicomDataset
    from pydicom.uid import UID

PIXEL_KEYWORDS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_MAGIC_OFFSET, _MAGIC = 128, b"DICM"
_UNDEFINED_LENGTH = 0xFFFFFFFF
_BLOCK = 1 << 20
LARGEST_INFLATED_BYTES = 1 << 28
"""A frame of 90 million pixels in two bytes, or 500 CT slices; it is in memory twice for a moment."""
_ITEM = 0xE000FFFE  # as four bytes of little endian


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file up to its pixels.

    Attributes:
        path: the file.
        header: the elements before the pixel data.
        syntax: the transfer syntax; guessed from the first element where the file names none.
        pixel_keyword: the element that holds the pixels; "" where there is none.
        pixel_vr: its value representation; "" in implicit VR.
        offset: where its value begins, in bytes, in the file or in `inflated`.
        length: of its value in bytes; None where the file leaves it open, as it does around compressed frames.
        inflated: the content after the file meta, where the file is deflated.
    """

    path: Path
    header: DicomDataset
    syntax: UID
    pixel_keyword: str
    pixel_vr: str
    offset: int
    length: int | None
    inflated: bytes | None


def is_dicom(path: Path) -> bool:
    """Return whether a file's content is DICOM: it says so, or it is an image whose preamble was lost."""
    with path.open("rb") as stream:
        start = stream.read(_MAGIC_OFFSET + len(_MAGIC))
    if start[_MAGIC_OFFSET:] == _MAGIC:
        return True
    if not _begins_with_an_element(start):
        return False
    try:
        file = read_dicom_file(path, ("SOPClassUID", "Rows", "Columns"))
        return bool(file.pixel_keyword) and "Rows" in file.header and "Columns" in file.header
    except BadImageError:
        return False


def read_dicom_file(path: Path, keywords: Sequence[str] = ()) -> DicomFile:
    """Read a file up to its pixels.

    Args:
        path: the file.
        keywords: read these elements only; all where empty.

    Raises:
        BadImageError: no DICOM, damaged, or a deflated file that grows past the largest image there may be.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as stream:
            warnings.simplefilter("ignore")  # a warning quotes the value that it is about
            return _read(path, stream, keywords)
    except BadImageError:
        raise
    except Exception as error:  # a parser may raise anything at all on damaged bytes
        raise BadImageError(f"expected a whole DICOM file, found a damaged one ({type(error).__name__})") from None


def require_whole_fragments(file: DicomFile) -> None:
    """Check that the file holds all of each compressed fragment; decoders would show the half that is there.

    Raises:
        BadImageError: it was cut off.
    """
    if file.length is not None or not file.pixel_keyword:
        return
    size, at = file.path.stat().st_size, file.offset
    with file.path.open("rb") as stream:
        while at + 8 <= size:
            stream.seek(at)
            tag, length = struct.unpack("<II", stream.read(8))
            if tag != _ITEM:
                return
            at += 8 + length
    if at > size:
        raise BadImageError(f"expected {at} bytes or more, found {size} (cut off?)")


def _read(path: Path, stream: BinaryIO, keywords: Sequence[str]) -> DicomFile:
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
    from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

    has_preamble = stream.read(_MAGIC_OFFSET + len(_MAGIC))[_MAGIC_OFFSET:] == _MAGIC
    if not has_preamble:
        stream.seek(0)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    named = str(meta.get("TransferSyntaxUID") or "")
    syntax = UID(named) if named else _guessed_syntax(stream)
    inflated = _inflate(stream) if syntax == DeflatedExplicitVRLittleEndian else None
    source = stream if inflated is None else io.BytesIO(inflated)
    stopped: list[tuple[int, str, int]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if int(tag) in PIXEL_KEYWORDS:
            stopped.append((int(tag), vr or "", length))
        return bool(stopped)

    tags = [tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None]
    header = read_dataset(
        source,
        syntax == ImplicitVRLittleEndian,
        syntax != ExplicitVRBigEndian,
        stop_when=at_pixels,
        specific_tags=list(tags) or None,
    )
    if not has_preamble and not getattr(header.get("SOPClassUID"), "is_valid", False):
        raise _other_content()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    tag, vr, length = stopped[0] if stopped else (0, "", 0)
    offset = source.tell() + (12 if vr in EXPLICIT_VR_LENGTH_32 else 8)  # tag, VR, length: PS3.5, 7.1.2
    return DicomFile(
        path,
        header,
        syntax,
        PIXEL_KEYWORDS.get(tag, ""),
        vr,
        offset,
        None if length == _UNDEFINED_LENGTH else length,
        inflated,
    )


def _begins_with_an_element(start: bytes) -> bool:
    """Return whether bytes begin with an element of group 2 or 8, as the files without a preamble do."""
    return start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def _guessed_syntax(stream: BinaryIO) -> UID:
    """Return the uncompressed syntax in which the next bytes are an element of group 8, the first of any image."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
    from pydicom.valuerep import VR

    start = stream.read(8)
    stream.seek(-len(start), io.SEEK_CUR)
    is_explicit = start[4:6].decode("latin-1") in set(VR)
    if start[:2] == b"\x08\x00":
        return ExplicitVRLittleEndian if is_explicit else ImplicitVRLittleEndian
    if start[:2] == b"\x00\x08" and is_explicit:
        return ExplicitVRBigEndian
    raise _other_content()


def _other_content() -> BadImageError:
    return BadImageError("expected a DICOM file, found other content")


def _inflate(stream: BinaryIO) -> bytes:
    """Inflate the rest of a file, unless it grows past the largest file there may be; pydicom would not ask."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS  # three samples of two bytes, and a header
    most = LARGEST_INFLATED_BYTES if limit is None else min(LARGEST_INFLATED_BYTES, limit * 3 * 2 + (1 << 20))
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    while block := inflater.unconsumed_tail or stream.read(1 << 16):
        inflated += inflater.decompress(block, _BLOCK)
        if len(inflated) > most:
            raise BadImageError(f"expected at most {most} bytes, found more once inflated (a bomb?)")
        if inflater.eof:  # what follows is padding
            break
    return bytes(inflated)
