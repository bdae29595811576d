"""Damaged files, some hundred of them from a fixed seed: each is an image or a sentence, never anything else."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from dicom_files import LOSSLESS, dicom, write_compressed, write_dicom, write_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from calibration_data.dataset import BadImageError
from calibration_data.datasets import dicom_decoding
from calibration_data.datasets.dicom_facts import read_dicom_facts
from calibration_data.datasets.dicom_file import is_dicom
from calibration_data.datasets.dicom_pixels import read_dicom_pixels

GRAY = (np.arange(32 * 40).reshape(32, 40) * 130 % 4096).astype(np.uint16)
RGB = np.stack([GRAY % 256, GRAY % 200, GRAY % 90], axis=2).astype(np.uint8)
TAGS = {"PatientID": "MRN 007", "WindowCenter": 1000, "WindowWidth": 2000, "RescaleSlope": 1, "RescaleIntercept": 0}


def whole_files(folder: Path) -> list[bytes]:
    """Return files of every kind that the tests can write."""
    paths = [write_compressed(folder / f"{syntax.keyword}.dcm", GRAY, syntax, **TAGS) for syntax in LOSSLESS]
    paths.append(write_compressed(folder / "jpeg.dcm", RGB, JPEGBaseline8Bit))
    paths.append(write_dicom(folder / "colour.dcm", RGB, **TAGS))
    paths.append(write_frames(folder / "frames.dcm", [GRAY, GRAY], **TAGS))
    deflated = dicom(GRAY, **TAGS)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    deflated.save_as(folder / "deflated.dcm", enforce_file_format=True)
    paths.append(folder / "deflated.dcm")
    return [*(path.read_bytes() for path in paths), (folder / "colour.dcm").read_bytes()[132:]]  # without a preamble


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut a file off, change some of its bytes, or change them where its header or its codestream begins."""
    kind = rng.choice(("cut", "bits", "header", "pixels"))
    if kind == "cut":
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    pixels = max(content.rfind(b"\xe0\x7f\x10\x00"), 0)
    for _ in range(rng.choice((1, 3, 10))):
        if kind == "bits":
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        elif kind == "header":
            changed[rng.randrange(min(len(changed), pixels + 12))] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
        else:
            changed[rng.randrange(pixels, min(len(changed), pixels + 150))] = rng.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_one_bad_image(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(dicom_decoding, "_SECONDS", 10.0)
    rng, path = random.Random(seed), tmp_path / "damaged.dcm"
    images, reasons = 0, []
    for content in whole_files(tmp_path / "whole"):
        for _ in range(12):
            path.write_bytes(damaged(content, rng))
            started = time.monotonic()
            try:
                is_dicom(path)
                frames = read_dicom_facts(path).frames
                pixels = read_dicom_pixels(path, frame=None if frames == 1 else frames)
                assert pixels.dtype == np.uint8
                assert pixels.shape[2] in (1, 3)
                images += 1
            except BadImageError as error:
                reasons.append(str(error))
            assert time.monotonic() - started < 60
    assert min(images, len(reasons)) > 20
    assert all(re.match(r"expected .+, found .+", reason) for reason in reasons)
    assert not re.search("MRN|Doe", " ".join(reasons))
