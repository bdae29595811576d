"""From a DICOM file to one frame's stored values; compressed frames are decoded in a process of their own.

The decoders of JPEG and its kin are native code, and on damaged bytes they crash, hang, or take all memory. So each
process that loads images keeps one child for them: what it breaks on costs one image, and the next one gets a new
child. Memory and time of the child are limited.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import subprocess
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom_codestream import check_codestream
from calibration_data.datasets.dicom_file import DicomFile
from calibration_data.datasets.dicom_layout import PixelLayout
from foundation.child import child_command, child_environment

if TYPE_CHECKING:
    from pydicom.uid import UID

PLUGINS: Mapping[str, str] = {
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    "1.2.840.10008.1.2.4.51": "pillow",  # JPEG extended, of 8 bits
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG lossless, process 14
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG lossless, selection value 1
    "1.2.840.10008.1.2.4.80": "gdcm",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": "gdcm",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202": "pylibjpeg",  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.203": "pylibjpeg",  # HTJ2K
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
}
"""Compressed syntax → pydicom's name of the one decoder used for it, so that everybody gets the same pixels."""
ADDRESS_SPACE_BYTES = 3 << 30
_IN_PYTHON = "pydicom"
_SECONDS, _SECONDS_PER_SAMPLE = 60.0, 1e-6
_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4")


def decode_frame(file: DicomFile, layout: PixelLayout, index: int) -> tuple[NDArray[np.generic], str]:
    """Decode one frame.

    Args:
        file: the file.
        layout: how its pixels are stored.
        index: the frame, from 0.

    Returns:
        The stored values, [height, width] or [height, width, 3], and what they mean (`PixelLayout.photometric`),
        which decompression may change.

    Raises:
        BadImageError: a syntax without a decoder, or damaged data.
    """
    plugin = _plugin_of(file.syntax)
    try:
        with file.path.open("rb") as stream:
            source: BinaryIO = stream if file.inflated is None else io.BytesIO(file.inflated)
            source.seek(file.offset)
            if plugin is None:
                values, photometric = _native(source, file, layout, index)
            else:
                encoded = _encoded_frame(source, file, layout, index)
                values, photometric = _compressed(encoded, file.syntax, plugin, layout)
    except BadImageError:
        raise
    except Exception as error:  # a decoder may raise anything at all on damaged bytes
        raise BadImageError(f"expected whole pixel data, found damaged ({type(error).__name__})") from None
    if values.shape != _shape(layout):
        raise BadImageError(f"expected a frame of shape {list(_shape(layout))}, found {list(values.shape)}")
    return values, photometric


def decode_encapsulated(
    encoded: bytes, syntax: str, plugin: str, options: Mapping[str, Any]
) -> tuple[NDArray[np.generic], str]:
    """Decode one compressed frame with one of pydicom's decoders, in this process.

    Args:
        encoded: the frame.
        syntax: transfer syntax UID.
        plugin: pydicom's name of the decoder.
        options: the Image Pixel module, by pydicom's names.

    Raises:
        Exception: anything at all, on damaged bytes.
    """
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    values, properties = get_decoder(syntax).as_array(
        encapsulate([encoded]), index=0, raw=True, decoding_plugin=plugin, **dict(options)
    )
    return values, str(properties["photometric_interpretation"])


def _plugin_of(syntax: UID) -> str | None:
    """Return the decoder of a compressed syntax, None for an uncompressed one."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UncompressedTransferSyntaxes

    if syntax in UncompressedTransferSyntaxes:
        return None
    plugin = PLUGINS.get(str(syntax))
    if plugin is None:
        name = "a syntax of unknown name" if syntax.name == str(syntax) else syntax.name
        known = f"{name} ({syntax if syntax.is_valid else 'and no UID'})"
        raise BadImageError(
            f"expected a compression that can be decoded, found {known}, for which there is no decoder here. "
            "Save the file as Explicit VR Little Endian"
        )
    if plugin not in get_decoder(syntax).available_plugins:
        raise BadImageError(
            f"expected the decoder of {syntax.name} ({syntax}), found none installed. Run `pip install "
            "'edgeproof[dicom]'`"
        )
    return plugin


def _native(source: BinaryIO, file: DicomFile, layout: PixelLayout, index: int) -> tuple[NDArray[np.generic], str]:
    from pydicom.pixels.decoders.base import get_decoder

    whole = layout.frames * layout.frame_bytes() if layout.bits_allocated > 1 else _bytes_of_bits(layout)
    if file.length is None or file.length < whole:
        found = "no end" if file.length is None else str(file.length)
        raise BadImageError(f"expected whole pixel data of {whole} bytes, found {found}")
    samples = layout.rows * layout.columns * layout.samples
    if layout.photometric == "YBR_FULL_422" and file.length >= layout.frames * samples:
        raise BadImageError("expected YBR_FULL_422 with halved colours, found as many values as YBR_FULL has")
    options = {
        **_options(layout),
        "number_of_frames": layout.frames,
        "pixel_keyword": file.pixel_keyword,
        "pixel_vr": file.pixel_vr,
    }
    values, properties = get_decoder(file.syntax).as_array(source, index=index, raw=True, **options)
    return values, str(properties["photometric_interpretation"])


def _bytes_of_bits(layout: PixelLayout) -> int:
    """Return the size of frames of single bits, which lie behind one another without a gap."""
    return -(-layout.frames * layout.rows * layout.columns * layout.samples // 8)


def _encoded_frame(source: BinaryIO, file: DicomFile, layout: PixelLayout, index: int) -> bytes:
    from pydicom.encaps import get_frame

    offsets, lengths = (file.header.get(key) for key in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"))
    table = (offsets, lengths) if offsets and lengths and len(offsets) == len(lengths) else None
    return get_frame(source, index, number_of_frames=layout.frames, extended_offsets=table)


def _compressed(encoded: bytes, syntax: UID, plugin: str, layout: PixelLayout) -> tuple[NDArray[np.generic], str]:
    options = _options(layout)
    if plugin == _IN_PYTHON:
        return decode_encapsulated(encoded, syntax, plugin, options)
    check_codestream(encoded, syntax, layout)
    request = {"syntax": str(syntax), "plugin": plugin, "options": options, "bytes": len(encoded)}
    samples = layout.rows * layout.columns * layout.samples
    return _ask_child(request, encoded, layout, _SECONDS + samples * _SECONDS_PER_SAMPLE)


def _options(layout: PixelLayout) -> dict[str, Any]:
    return {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "number_of_frames": 1,
        "photometric_interpretation": layout.photometric,
        "planar_configuration": layout.planar,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
    }


def _shape(layout: PixelLayout) -> tuple[int, ...]:
    return (layout.rows, layout.columns) if layout.samples == 1 else (layout.rows, layout.columns, layout.samples)


# --- the child ---

_children: dict[int, subprocess.Popen[bytes]] = {}
"""The child of each process: a forked copy of this one must not talk to its parent's."""


def _ask_child(
    request: Mapping[str, Any], encoded: bytes, layout: PixelLayout, limit_s: float
) -> tuple[NDArray[np.generic], str]:
    child = _child()
    too_slow = threading.Event()

    def end() -> None:
        too_slow.set()
        child.kill()

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(request).encode() + b"\n" + encoded)
        child.stdin.flush()
        answer = json.loads(child.stdout.readline() or b"null")
        if answer is None:
            raise EOFError
        if "error" in answer:
            raise BadImageError(f"expected whole {_kind(request)} data, found damaged ({answer['error']})")
        dtype = np.dtype(_DTYPES[_DTYPES.index(answer["dtype"])])
        pixels = child.stdout.read(int(np.prod(_shape(layout))) * dtype.itemsize)
        return np.frombuffer(pixels, dtype).reshape(_shape(layout)), str(answer["photometric"])
    except BadImageError:
        raise
    except (OSError, EOFError, ValueError):
        _end_child()
        fault = f"that took more than {limit_s:.0f} s" if too_slow.is_set() else "on which the decoder crashed"
        raise BadImageError(f"expected whole {_kind(request)} data, found data {fault}") from None
    except BaseException:  # an interrupt leaves half an answer behind
        _end_child()
        raise
    finally:
        timer.cancel()


def _kind(request: Mapping[str, Any]) -> str:
    from pydicom.uid import UID

    return UID(request["syntax"]).name


def _child() -> subprocess.Popen[bytes]:
    child = _children.get(os.getpid())
    if child is not None and child.poll() is None:
        return child
    if not _children:
        atexit.register(_end_child)
    _end_child()
    child = subprocess.Popen(
        child_command("calibration_data.datasets.dicom_decoding_child", str(ADDRESS_SPACE_BYTES)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the decoders' own complaints
        env=child_environment({"OPENBLAS_NUM_THREADS": "1"}),
    )
    _children[os.getpid()] = child
    return child


def _end_child() -> None:
    child = _children.pop(os.getpid(), None)
    if child is None:
        return
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except OSError:  # what was still to be sent to it
            continue
