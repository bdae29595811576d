"""Saliency maps for a PACS: in the study of their image, at its pixels, with as much of the patient as it takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_sample import PERSON, VARIANTS, explained_run, scans, with_place
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage

from calibration_data.prepared_folder import read_prepared
from foundation.errors import StageError, UsageError
from foundation.run_folder import RunFolder
from pipeline.custody.check import check_run
from pipeline.exports.dicom_run import export_dicom

pytest.importorskip("highdicom", reason="highdicom is an extra")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scans(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return explained_run(tmp_path_factory.mktemp("explained") / "run", images)


@pytest.fixture(scope="module")
def written(run: RunFolder, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("objects") / "out"
    exported = export_dicom(run, images, output)
    assert (exported.images, len(exported.files)) == (2, 2 * len(VARIANTS) * 2)
    return output


def source_of(run: RunFolder, images: Path, index: int) -> pydicom.Dataset:
    return pydicom.dcmread(images / read_prepared(run.data).test.image_ids[index])


def objects(written: Path, kind: str, variant: str = "fp32") -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(written.glob(f"*/{variant}.occlusion.{kind}.dcm"))]


def test_every_object_belongs_to_the_study_of_its_image_and_refers_to_it(
    run: RunFolder, images: Path, written: Path
) -> None:
    sources = {source.SOPInstanceUID: source for source in (source_of(run, images, index) for index in (0, 1))}
    for kind, sop_class in (("picture", SecondaryCaptureImageStorage), ("numbers", ParametricMapStorage)):
        found = objects(written, kind)
        assert len(found) == 2
        for one in found:
            assert one.SOPClassUID == sop_class
            (series,) = one.ReferencedSeriesSequence
            (instance,) = series.ReferencedInstanceSequence
            source = sources[instance.ReferencedSOPInstanceUID]
            assert series.SeriesInstanceUID == source.SeriesInstanceUID
            assert one.StudyInstanceUID == source.StudyInstanceUID
            assert one.SeriesInstanceUID != source.SeriesInstanceUID
            assert (one.PatientID, one.PatientName, one.PatientSex) == (source.PatientID, "Zuckmayer^Carla", "F")
            assert (one.StudyDate, one.AccessionNumber) == ("20190523", "ACC-90210")


def test_nothing_else_of_the_patient_goes_along(written: Path) -> None:
    content = b"".join(path.read_bytes() for path in written.rglob("*.dcm"))
    for keyword in ("PatientAddress", "InstitutionName", "OperatorsName", "StudyDescription"):
        assert PERSON[keyword].encode() not in content
    assert b"Zuckmayer^Carla" in content


def test_the_numbers_lie_on_the_pixels_of_the_source_image(run: RunFolder, written: Path) -> None:
    """30 × 20 px were padded into 16 × 16, at a scale of 8/15: rows 2 to 13 hold the image."""
    (one, _) = sorted(objects(written, "numbers"), key=lambda one: one.InstanceNumber)
    values = np.frombuffer(one.FloatPixelData, np.float32).reshape(one.Rows, one.Columns)
    assert values.shape == (20, 30)
    fitted = read_prepared(run.data).test.images[one.InstanceNumber - 1, 0] / 255
    assert values.mean() == pytest.approx(fitted[2:13].mean(), abs=0.02)
    left, right = values[:, :15].mean(), values[:, 15:].mean()
    assert (left - right) == pytest.approx(fitted[2:13, :8].mean() - fitted[2:13, 8:].mean(), abs=0.03)
    (mapping,) = one.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)


def test_the_picture_is_in_colour_and_says_what_it_is(written: Path) -> None:
    for one in objects(written, "picture", "static-int8"):
        assert one.pixel_array.shape == (20, 30, 3)
        assert "static-int8" in one.SeriesDescription
        assert "Not for diagnosis" in one.ImageComments
        assert one.ImageType[0] == "DERIVED"


def test_the_same_map_gives_the_same_bytes_and_no_two_objects_share_a_uid(
    run: RunFolder, images: Path, written: Path, tmp_path: Path
) -> None:
    export_dicom(run, images, tmp_path / "again")
    paths = sorted(path.relative_to(written) for path in written.rglob("*.dcm"))
    assert [path for path in paths if (written / path).read_bytes() != (tmp_path / "again" / path).read_bytes()] == []
    uids = [pydicom.dcmread(written / path).SOPInstanceUID for path in paths]
    assert len(set(uids)) == len(uids) == 8
    assert all(uid.startswith("2.25.") and uid.is_valid for uid in uids)
    one = pydicom.dcmread(written / paths[0])
    assert "InstanceCreationDate" not in one
    assert (one.ContentDate, one.ContentTime) == ("20190523", "101500")


def test_the_run_stays_as_it_was_recorded_and_the_folder_is_private(run: RunFolder, written: Path) -> None:
    assert check_run(run, None).exit_code == 0
    assert written.stat().st_mode & 0o077 == 0


def test_all_images_and_one_variant_on_request(run: RunFolder, images: Path, tmp_path: Path) -> None:
    exported = export_dicom(run, images, tmp_path, "static-int8", every_image=True)
    assert exported.images == len(read_prepared(run.data).test)
    assert {path.split("/")[1].split(".")[0] for path in exported.files} == {"static-int8"}


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
def test_a_slice_keeps_its_place_in_the_patient(tmp_path: Path, fit: str) -> None:
    images = scans(tmp_path / "images", **with_place())
    run = explained_run(tmp_path / "run", images, fit)
    (name, *_) = [name for name in export_dicom(run, images, tmp_path / "out").files if "numbers" in name]
    one = pydicom.dcmread(tmp_path / "out" / name)
    assert one.FrameOfReferenceUID == "1.2.3.99"
    (frame,) = one.PerFrameFunctionalGroupsSequence
    assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == [-10.0, -20.0, 5.0]
    shared = one.SharedFunctionalGroupsSequence[0]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.5, 0.75]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"StudyInstanceUID": ""}, "found no StudyInstanceUID"),
        ({"PatientID": ""}, "found no PatientID"),
        ({"PatientIdentityRemoved": "YES"}, "found PatientIdentityRemoved YES"),
    ],
)
def test_an_image_without_identifiers_is_refused(tmp_path: Path, changes: dict[str, str], found: str) -> None:
    images = scans(tmp_path / "images", **changes)
    run = explained_run(tmp_path / "run", images)
    with pytest.raises(UsageError, match=found):
        export_dicom(run, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_images_lack_is_empty_and_what_is_damaged_too(tmp_path: Path) -> None:
    odd = {"PatientSex": "X", "StudyDate": "", "StudyTime": "", "PatientName": "Carla", "AccessionNumber": ""}
    images = scans(tmp_path / "images", **odd)
    run = explained_run(tmp_path / "run", images)
    for name in export_dicom(run, images, tmp_path / "out").files:
        one = pydicom.dcmread(tmp_path / "out" / name)
        assert (one.PatientSex, one.StudyDate, one.PatientName) == ("", "", "Carla")
        assert one.ContentDate == "19000101"


def test_an_image_without_a_place_gets_none(written: Path) -> None:
    for one in objects(written, "numbers"):
        assert "FrameOfReferenceUID" not in one
        assert "PlanePositionSequence" not in one.PerFrameFunctionalGroupsSequence[0]
        assert "PixelMeasuresSequence" not in one.SharedFunctionalGroupsSequence[0]


def test_what_highdicom_refuses_is_one_sentence_without_the_patient(tmp_path: Path) -> None:
    images = scans(tmp_path / "images", SOPClassUID="1.2.3.4.5.6")
    run = explained_run(tmp_path / "run", images)
    with pytest.raises(StageError, match="expected an image that highdicom derives others from") as refused:
        export_dicom(run, images, tmp_path / "out")
    assert "Zuckmayer" not in str(refused.value)


def test_another_folder_and_a_changed_file_are_refused(run: RunFolder, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected the DICOM file of a test image, found nothing"):
        export_dicom(run, tmp_path, tmp_path / "out")
    copy = tmp_path / "copy"
    shutil.copytree(images, copy)
    for path in copy.rglob("*.dcm"):
        path.write_bytes(path.read_bytes() + b"\0\0")
    with pytest.raises(UsageError, match=r"expected sha256 \w{12} as the run read it, found \w{12}"):
        export_dicom(run, copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_never_writes_into_a_run(run: RunFolder, images: Path) -> None:
    with pytest.raises(UsageError, match="expected a place outside of a run"):
        export_dicom(run, images, run.root / "report" / "dicom")


def test_a_run_on_other_images_and_an_unknown_variant_are_refused(
    run: RunFolder, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="expected one of fp32, static-int8, found 'nope'"):
        export_dicom(run, images, tmp_path / "out", "nope")
    from small_run import write_run

    other = write_run(tmp_path / "other")
    with pytest.raises(UsageError, match="found one on the data set digits"):
        export_dicom(other, images, tmp_path / "out")
