"""What a compressed frame says of its own size, held against the header before a decoder believes it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom_layout import PixelLayout

_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_LOSSY_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", *_LOSSY_JPEG, *_JPEG_LS)
_START_OF_FRAME = (*(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)), 0xF7)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_SIZ = b"\xff\x4f\xff\x51"
_BOXES = 4096  # of a JP2 file, which some write in place of the bare codestream


@dataclass(frozen=True)
class _Size:
    rows: int
    columns: int
    samples: int
    bits: int


def check_codestream(encoded: bytes, syntax: str, layout: PixelLayout) -> None:
    """Check that a frame has the size that its file's header promises, and a depth that can be decoded.

    Args:
        encoded: the frame, JPEG, JPEG-LS or JPEG 2000.
        syntax: transfer syntax UID.
        layout: how the file says that pixels are stored.

    Raises:
        BadImageError: another size, a depth that the decoder gets wrong, or no such codestream.
    """
    try:
        size = _size_of_jpeg(encoded) if syntax in _JPEG else _size_of_jpeg2000(encoded)
    except (struct.error, IndexError):
        size = None
    if size is None:
        raise BadImageError("expected a compressed frame that says how large it is, found damaged data")
    expected = (layout.columns, layout.rows, layout.samples)
    found = (size.columns, size.rows, size.samples)
    if found != expected:
        raise BadImageError(
            "expected a compressed frame of {} × {} pixels and {} samples, as the header says, found {} × {} and "
            "{}".format(*expected, *found)
        )
    if size.bits > layout.bits_allocated:
        raise BadImageError(f"expected compressed samples of up to {layout.bits_allocated} bits, found {size.bits}")
    if syntax in _JPEG_LS and size.bits in (6, 7):
        raise BadImageError(
            f"expected JPEG-LS of another depth than 6 or 7 bits, which GDCM decodes wrongly, found {size.bits}. "
            "Save the file as Explicit VR Little Endian"
        )
    if syntax in _LOSSY_JPEG and size.bits != 8:
        raise BadImageError(
            f"expected lossy JPEG of 8 bits, found {size.bits}, for which there is no decoder here. Save the file as "
            "Explicit VR Little Endian"
        )


def _size_of_jpeg(encoded: bytes) -> _Size | None:
    """Return what the start of frame says: ISO 10918-1, B.2.2; ISO 14495-1, C.2.2."""
    at = encoded.find(b"\xff\xd8")
    if at < 0:
        return None
    at += 2
    while True:
        while encoded[at] != 0xFF or encoded[at + 1] in (0x00, 0xFF):  # fill bytes
            at += 1
        marker = encoded[at + 1]
        at += 2
        if marker in _START_OF_FRAME:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", encoded, at + 2)
            return _Size(rows, columns, samples, bits)
        if marker in (0xD9, 0xDA):
            return None
        if marker not in _WITHOUT_LENGTH:
            at += struct.unpack_from(">H", encoded, at)[0]


def _size_of_jpeg2000(encoded: bytes) -> _Size | None:
    """Return what the marker segment SIZ says: ISO 15444-1, A.5.1."""
    at = encoded.find(_SIZ, 0, _BOXES)
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", encoded, at + 8)
    samples, bits = struct.unpack_from(">HB", encoded, at + 40)
    return _Size(bottom - top, right - left, samples, (bits & 0x7F) + 1)
