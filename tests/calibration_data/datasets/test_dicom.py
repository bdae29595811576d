"""Folders of DICOM files: classes, patients, and what is counted as an image."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom, write_compressed, write_dicom, write_frames
from pydantic import ValidationError
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    CTImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    JPEG2000Lossless,
    JPEGLSLossless,
    RTDoseStorage,
    RTPlanStorage,
    SegmentationStorage,
)

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom import DicomSettings, fingerprint_dicom, open_dicom
from calibration_data.preparation import prepare
from calibration_data.settings import DataSettings
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


def test_an_id_is_a_patient_of_its_issuer_only(tmp_path):
    for number, issuer in enumerate(("North", "North", "South")):
        write_dicom(tmp_path / "ill" / f"{number}.dcm", RAMP, PatientID="MRN 007", IssuerOfPatientID=issuer)
    groups = [record.group for record in opened(tmp_path).records]
    digest = hashlib.sha256(rb"North\MRN 007").hexdigest()
    assert groups[0] == groups[1] == f"patient-{digest[:16]}"
    assert groups[2] != groups[0]


def test_a_patient_is_one_in_every_compression(tmp_path):
    gray = RAMP.astype(np.uint16).repeat(3, axis=0).repeat(2, axis=1)
    write_compressed(tmp_path / "ill" / "1.dcm", gray, JPEGLSLossless, PatientID="MRN 007", PatientSex="M")
    write_compressed(tmp_path / "ill" / "2.dcm", gray, JPEG2000Lossless, PatientID="MRN 007", PatientSex="M")
    write_dicom(tmp_path / "ill" / "3.dcm", gray, PatientID="MRN 007", PatientSex="M")
    records = opened(tmp_path).records
    assert len({(record.group, record.subgroups) for record in records}) == 1


IDENTITY = {
    "PatientName": "Zuckmayer^Carla",
    "PatientID": "MRN-4711-X",
    "IssuerOfPatientID": "Klinikum Hinterwald",
    "PatientBirthDate": "19341224",
    "PatientAddress": "Lindenallee 17",
    "OtherPatientNames": "Sonnenschein^Carla",
    "AccessionNumber": "ACC-90210",
    "ReferringPhysicianName": "Brinkmann^Klaus",
    "InstitutionName": "Schwarzwaldklinik",
    "StudyDate": "20190523",
}


def test_nothing_that_is_prepared_names_a_patient(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (30, 12, 20)).astype(np.uint16)
    for number in range(10):
        for label, folder in enumerate(("ill", "well")):
            person = IDENTITY | {"PatientID": f"MRN-4711-X{label}{number}"}
            write_dicom(tmp_path / "images" / folder / f"{number}.dcm", pixels[10 * label + number], **person)
    write_frames(tmp_path / "images" / "ill" / "cine.dcm", list(pixels[20:23]), **IDENTITY)
    write_dicom(tmp_path / "images" / "ill" / "report.dcm", None, SOPClassUID=BasicTextSRStorage, **IDENTITY)
    bad = {"Rows": 500, "NumberOfFrames": 2, "PatientSex": "ZUCKMAYER"} | IDENTITY
    write_dicom(tmp_path / "images" / "well" / "damaged.dcm", pixels[0], **bad)
    cut = write_dicom(tmp_path / "images" / "well" / "cut.dcm", pixels[0], **IDENTITY)
    cut.write_bytes(cut.read_bytes()[:-40])
    source = DicomSettings(root=tmp_path / "images", frames="all")
    settings = DataSettings(source=source, image_size=16, channels=1, bad_images="skip", workers=0)
    data = prepare(open_dicom(source), settings, tmp_path / "prepared")
    assert len(data.skipped) == 3
    assert sum(len(split.image_ids) for split in (data.train, data.validation, data.test)) == 23
    written = b"".join(path.read_bytes() for path in sorted((tmp_path / "prepared").iterdir()))
    assert b"patient-" in written
    assert b"report.dcm: Basic Text SR Storage, without pixels" in written
    words = [part for value in IDENTITY.values() for part in value.replace("^", " ").split() if len(part) > 2]
    assert len(words) == 14
    assert not [word for word in words if word.lower().encode() in written.lower()]


def test_objects_without_an_image_are_ignored_with_the_reason(root):
    write_dicom(root / "ill" / "report.dcm", None, SOPClassUID=BasicTextSRStorage)
    write_dicom(root / "ill" / "plan.dcm", None, SOPClassUID=RTPlanStorage)
    write_dicom(root / "ill" / "state.dcm", None, SOPClassUID=GrayscaleSoftcopyPresentationStateStorage)
    write_dicom(root / "ill" / "dose.dcm", RAMP, SOPClassUID=RTDoseStorage)
    write_dicom(root / "well" / "parts.dcm", RAMP, SOPClassUID=SegmentationStorage)
    write_dicom(root / "well" / "2_mask.dcm", RAMP)
    dataset = opened(root)
    assert len(dataset.records) == 5
    assert dataset.ignored == (
        "ill/dose.dcm: a dose grid",
        "ill/plan.dcm: RT Plan Storage, without pixels",
        "ill/report.dcm: Basic Text SR Storage, without pixels",
        "ill/state.dcm: Grayscale Softcopy Presentation State Storage, without pixels",
        "well/2_mask.dcm: named like a mask",
        "well/parts.dcm: a segmentation",
    )


@pytest.mark.parametrize("sop_class", [CTImageStorage, UID("1.2.3.4")])
def test_an_image_that_lost_its_pixels_is_a_bad_image_and_not_ignored(root, sop_class):
    write_dicom(root / "ill" / "1.dcm", None, SOPClassUID=sop_class)
    dataset = opened(root)
    assert len(dataset.records) == 5
    with pytest.raises(BadImageError, match=r"found a DICOM file without any \(cut off, or a report\?\)"):
        dataset.load(dataset.records[0])


def test_images_that_lost_their_preamble_are_found_without_an_ending(root):
    header = dicom(RAMP, PatientID="MRN 007")
    del header.file_meta
    header.save_as(root / "ill" / "IM0002", implicit_vr=True, little_endian=True)
    dataset = opened(root)
    assert [record.image_id for record in dataset.records][:2] == ["ill/1.dcm", "ill/IM0002"]
    assert dataset.records[0].group == dataset.records[1].group
    assert dataset.load(dataset.records[1]).pixels.shape == (12, 20, 1)


def test_series_of_many_kinds_lie_in_one_folder(tmp_path):
    write_dicom(tmp_path / "ill" / "ct.dcm", RAMP, Modality="CT", SOPClassUID=CTImageStorage)
    write_dicom(tmp_path / "ill" / "us.dcm", np.zeros((4, 6, 3), np.uint8), Modality="US")
    write_compressed(tmp_path / "ill" / "cr.dcm", np.zeros((40, 40), np.uint8), JPEG2000Lossless, Modality="CR")
    dataset = opened(tmp_path)
    shapes = [dataset.load(record).pixels.shape for record in dataset.records]
    assert shapes == [(40, 40, 1), (12, 20, 1), (4, 6, 3)]


@pytest.mark.parametrize("workers", [0, 2])
def test_compressed_images_are_prepared_with_and_without_workers(tmp_path, workers):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32)).astype(np.uint8)
    for number, image in enumerate(pixels):
        folder = tmp_path / "images" / ("ill", "well")[number % 2]
        write_compressed(folder / f"{number:02}.dcm", image, (JPEGLSLossless, JPEG2000Lossless)[number % 3 == 0])
    source = DicomSettings(root=tmp_path / "images")
    settings = DataSettings(source=source, image_size=32, channels=1, workers=workers)
    data = prepare(open_dicom(source), settings, tmp_path / "prepared")
    for split in (data.train, data.validation, data.test):
        for image_id, image in zip(split.image_ids, split.images, strict=True):
            assert np.array_equal(image[0], pixels[int(image_id[-6:-4])])


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
