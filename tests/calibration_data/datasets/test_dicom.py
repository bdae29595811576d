"""Folders of DICOM files: classes, patients, and what is counted as an image."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_dicom
from pydantic import ValidationError

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom import DicomSettings, fingerprint_dicom, open_dicom
from foundation.errors import UsageError

RAMP = np.arange(240, dtype=np.int16).reshape(12, 20)


def opened(root: Path, **settings):
    return open_dicom(DicomSettings(root=root, **settings))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two patients, one of them in both classes; one file without an ending, one without a patient."""
    write_dicom(tmp_path / "ill" / "1.dcm", RAMP, PatientID="MRN 007", PatientSex="F")
    write_dicom(tmp_path / "ill" / "series" / "IM0001", RAMP, PatientID="MRN 007 ", PatientSex="F")
    write_dicom(tmp_path / "well" / "2.DCM", RAMP + 1, PatientID="MRN 007", PatientSex="F")
    write_dicom(tmp_path / "well" / "3.dicom", RAMP + 2)
    write_dicom(tmp_path / "well" / "1.2.840.9", RAMP + 3, PatientID="MRN 008", PatientSex="M")
    return tmp_path


def test_files_are_known_by_their_ending_or_their_content(root):
    (root / "well" / "notes").write_text("no image")
    (root / "well" / "short.txt").touch()
    write_dicom(root / "ill" / "DICOMDIR", None)
    dataset = opened(root)
    assert dataset.classes == ("ill", "well")
    assert [record.image_id for record in dataset.records] == [
        "ill/1.dcm",
        "ill/series/IM0001",
        "well/1.2.840.9",
        "well/2.DCM",
        "well/3.dicom",
    ]
    assert dataset.ignored == ("ill/DICOMDIR", "well/notes", "well/short.txt")


def test_patients_are_groups_by_a_hash_and_no_identity_is_kept(root):
    dataset = opened(root)
    groups = [record.group for record in dataset.records]
    assert groups[0] == groups[1] == groups[3] == f"patient-{hashlib.sha256(b'MRN 007').hexdigest()[:16]}"
    assert groups[2] != groups[0]
    assert groups[4] == "well/3.dicom"
    assert not dataset.groups_known  # that one names nobody
    (root / "well" / "3.dicom").write_bytes(b"damaged")
    assert opened(root).groups_known
    assert "MRN" not in repr(dataset.records)
    assert "Doe" not in repr(dataset.records)


def test_subgroups_are_the_sex_where_known(root):
    assert [record.subgroups for record in opened(root).records] == [("F",), ("F",), ("M",), ("F",), ()]
    assert {record.subgroups for record in opened(root, subgroup="none").records} == {()}


def test_the_settings_window_is_used(root):
    dataset = opened(root, window_center=120.0, window_width=3.0)
    pixels = dataset.load(dataset.records[0]).pixels
    # PS3.3 C.11.2.1.2: black up to 118.5, white above 120.5
    assert pixels.reshape(-1)[[117, 118, 119, 120, 121]].tolist() == [0, 0, 64, 191, 255]


@pytest.mark.parametrize("settings", [{"window_center": 1.0}, {"window_width": 1.0}])
def test_half_a_window_is_refused(root, settings):
    with pytest.raises(ValidationError, match="belong together"):
        DicomSettings(root=root, **settings)


def test_a_damaged_file_is_a_bad_image_in_a_group_of_its_own(root):
    (root / "ill" / "1.dcm").write_bytes(b"no DICOM")
    dataset = opened(root)
    assert dataset.records[0].group == "ill/1.dcm"
    with pytest.raises(BadImageError, match="expected a DICOM file, found other content"):
        dataset.load(dataset.records[0])


def test_without_pydicom_the_package_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UsageError, match=r"needs the package pydicom.*pip install 'edgeproof\[dicom\]'"):
        opened(root)


def test_the_fingerprint_sees_the_files(root):
    settings = DicomSettings(root=root)
    first = fingerprint_dicom(settings)
    write_dicom(root / "well" / "3.dicom", RAMP)
    assert fingerprint_dicom(settings) != first
