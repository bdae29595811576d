"""Edits of DICOM elements, written by pydicom: the damage lies in what elements say and not in their frame."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Sequence

_NUMBERS = (0, 1, 2, 3, 7, 8, 9, 15, 16, 32, 64, 255, 1000, 32767, 40_000, 65_535)
_TEXTS = (
    "",
    "0",
    "-1",
    "1e308",
    "nan",
    "inf",
    "x",
    "1\\2\\3",
    "9" * 16,
    "MONOCHROME1",
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "PALETTE COLOR",
    "SIGMOID",
    "\x1b",
)
_OF_IMAGE = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleSlope",
    "RescaleIntercept",
    "SOPClassUID",
    "PatientID",
    "PatientSex",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "RedPaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
)
_SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.3",
)


def dicom_element(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Change, add or remove an element, a table or the transfer syntax."""
    from pydicom import Dataset, dcmread

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            file = dcmread(io.BytesIO(content), force=True)
            kind = rng.randrange(10)
            name = rng.choice(_OF_IMAGE)
            if kind == 0 and name in file:
                del file[name]
            elif kind == 1:
                file.file_meta.TransferSyntaxUID = rng.choice(_SYNTAXES)
            elif kind == 2:
                file.add_new(0x00283010, "SQ", [_table(rng)])
            elif kind == 3:
                file.add_new(0x00283000, "SQ", [_table(rng)])
            elif kind == 4:
                nested = Dataset()
                for _ in range(rng.choice((3, 200, 2000))):
                    outer = Dataset()
                    outer.add_new(0x00081115, "SQ", [nested])
                    nested = outer
                file.add_new(0x00081140, "SQ", [nested])
            elif kind == 5 and "PixelData" in file:
                pixels = file.PixelData
                file.PixelData = pixels[: rng.randrange(len(pixels) + 1)] + rng.randbytes(rng.choice((0, 1, 100)))
            else:
                _set(file, name, rng)
            out = io.BytesIO()
            file.save_as(out, enforce_file_format=False)
            return out.getvalue()
        except Exception:
            from .mutators import any_bytes

            return any_bytes(content, rng, seeds)


def _set(file, name, rng):  # type: ignore[no-untyped-def]
    from pydicom.datadict import dictionary_VR

    vr = dictionary_VR(name).split(" ")[0]
    if vr in ("US", "SS"):
        value = rng.choice(_NUMBERS)
        file.add_new(name, "US", rng.choice((value, value, [value, value], [value] * 3)))
    elif vr in ("OW", "OB", "OV"):
        file.add_new(name, vr, rng.randbytes(rng.choice((0, 2, 8, 512))))
    else:
        text = rng.choice(_TEXTS)
        file.add_new(name, "LO", rng.choice((text, str(rng.choice(_NUMBERS)))))


def _table(rng):  # type: ignore[no-untyped-def]
    from pydicom import Dataset

    table = Dataset()
    table.add_new(0x00283002, "US", [rng.choice(_NUMBERS) for _ in range(rng.choice((0, 1, 3)))])
    table.add_new(0x00283006, "OW", rng.randbytes(rng.choice((0, 2, 512))))
    return table
