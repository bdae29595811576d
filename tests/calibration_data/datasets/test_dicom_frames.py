"""Files of several frames: which become images, under which names, and how each is shown."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import dicom, write_dicom, write_frames
from PIL import Image
from pydicom import Dataset as DicomDataset
from pydicom.uid import RLELossless

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom import DicomSettings, open_dicom
from calibration_data.datasets.dicom_pixels import read_dicom_pixels
from calibration_data.datasets.dicom_window import Window
from foundation.errors import UsageError

FRAMES = [np.full((4, 5), 10 * number, dtype=np.uint8) for number in range(1, 6)]


@pytest.fixture
def root(tmp_path):
    write_frames(tmp_path / "ill" / "cine.dcm", FRAMES, PatientID="MRN 007")
    write_frames(tmp_path / "well" / "unnamed.dcm", FRAMES[:4])
    write_dicom(tmp_path / "well" / "still.dcm", FRAMES[0], PatientID="MRN 008")
    return tmp_path


def opened(root, **settings):
    return open_dicom(DicomSettings(root=root, **settings))


def names(dataset):
    return [record.image_id for record in dataset.records]


def test_several_frames_are_refused_unless_somebody_chooses(root):
    dataset = opened(root)
    assert names(dataset) == ["ill/cine.dcm", "well/still.dcm", "well/unnamed.dcm"]
    with pytest.raises(BadImageError, match=r"found 5 frames\. Set `source.frames` to first, middle or all"):
        dataset.load(dataset.records[0])
    assert dataset.load(dataset.records[1]).pixels.max() == 10


@pytest.mark.parametrize(
    ("frames", "of_five", "of_four"),
    [("first", [1], [1]), ("middle", [3], [2]), ("all", [1, 2, 3, 4, 5], [1, 2, 3, 4])],
)
def test_the_chosen_frames_are_images(root, frames, of_five, of_four):
    dataset = opened(root, frames=frames)
    assert names(dataset) == [
        *(f"ill/cine.dcm#{number}" for number in of_five),
        "well/still.dcm",
        *(f"well/unnamed.dcm#{number}" for number in of_four),
    ]
    values = [int(dataset.load(record).pixels[0, 0, 0]) for record in dataset.records]
    assert values == [*(10 * number for number in of_five), 10, *(10 * number for number in of_four)]


def test_the_frames_of_a_file_stay_together_and_are_no_copies(root):
    records = opened(root, frames="all").records
    cine, unnamed = records[:5], records[6:]
    assert len({record.group for record in cine}) == 1
    assert cine[0].group.startswith("patient-")
    assert {record.group for record in unnamed} == {"well/unnamed.dcm"}
    assert len({record.sha256 for record in records}) == len(records)


def test_a_file_named_like_a_frame_is_refused_only_beside_that_frame(root):
    write_dicom(root / "ill" / "cine.dcm#3", FRAMES[4])
    write_dicom(root / "ill" / "other#2", FRAMES[3])
    with pytest.raises(UsageError, match=r"cine\.dcm#3: expected a name of its own, found that of a frame of"):
        opened(root, frames="all")
    dataset = opened(root, frames="first")
    assert "ill/cine.dcm#3" in names(dataset)
    assert dataset.load(dataset.records[names(dataset).index("ill/cine.dcm#3")]).pixels.max() == 50
    assert dataset.load(dataset.records[names(dataset).index("ill/other#2")]).pixels.max() == 40


@pytest.mark.parametrize("number", ["10001", "999999999", "-3"])
def test_an_absurd_number_of_frames_is_one_bad_image(root, number):
    write_dicom(root / "ill" / "cine.dcm", FRAMES[0], NumberOfFrames=number)
    dataset = opened(root, frames="all")
    assert names(dataset)[0] == "ill/cine.dcm"
    with pytest.raises(BadImageError, match=f"expected 1 to 10000 frames, found {number}"):
        dataset.load(dataset.records[0])


def test_all_samples_of_a_file_have_a_limit(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", FRAMES[0], Rows=1000, Columns=1000, NumberOfFrames=2148)
    with pytest.raises(BadImageError, match="expected at most 2147483648 samples in all frames, found 2148000000"):
        read_dicom_pixels(path, frame=1)


def test_the_samples_of_a_frame_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = write_dicom(tmp_path / "a.dcm", np.zeros((4, 5, 3), dtype=np.uint8))
    with pytest.raises(BadImageError, match="expected at most 50 samples in a frame, found 60"):
        read_dicom_pixels(path)


def test_a_frame_that_is_not_there_is_refused(root):
    with pytest.raises(BadImageError, match="expected frame 6, found 5 frames"):
        read_dicom_pixels(root / "ill" / "cine.dcm", frame=6)


def test_fewer_compressed_frames_than_promised_are_damaged_data(tmp_path):
    header = dicom(FRAMES[0])
    header.compress(RLELossless)
    header.NumberOfFrames = 3
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(BadImageError, match="expected whole pixel data, found damaged"):
        read_dicom_pixels(tmp_path / "a.dcm", frame=3)


def group(**macros) -> DicomDataset:
    """Return a functional group; each macro is a sequence of one item."""
    functional = DicomDataset()
    for macro, tags in macros.items():
        item = DicomDataset()
        for keyword, value in tags.items():
            setattr(item, keyword, value)
        setattr(functional, macro, [item])
    return functional


def test_each_frame_has_its_own_rescaling_and_window(tmp_path):
    stored = [np.array([[0, 100, 200, 300]], dtype=np.uint16)] * 3
    shift, own = {"RescaleSlope": 1, "RescaleIntercept": -100}, {"WindowCenter": 100.5, "WindowWidth": 201}
    path = write_frames(
        tmp_path / "a.dcm",
        stored,
        WindowCenter=0,
        WindowWidth=2,
        SharedFunctionalGroupsSequence=[group(FrameVOILUTSequence={"WindowCenter": 150.5, "WindowWidth": 301})],
        PerFrameFunctionalGroupsSequence=[
            group(FrameVOILUTSequence=own),
            group(PixelValueTransformationSequence=shift),
            group(PixelValueTransformationSequence=shift, FrameVOILUTSequence=own),
        ],
    )
    # A linear window c + 0.5 | w + 1 goes from c − w/2 to c + w/2: 0 to 200, and 0 to 300 where the frame has none.
    shown = [read_dicom_pixels(path, frame=frame)[0, :, 0].tolist() for frame in (1, 2, 3)]
    assert shown == [[0, 128, 255, 255], [0, 0, 85, 170], [0, 0, 128, 255]]
    assert read_dicom_pixels(path, Window(150.5, 301), 1)[0, :, 0].tolist() == [0, 85, 170, 255]


def test_planes_and_pixels_give_the_same_colours(tmp_path):
    rgb = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) * 4
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)).tobytes()
    frames = write_dicom(
        tmp_path / "a.dcm", rgb, PlanarConfiguration=1, NumberOfFrames=2, PixelData=rgb.tobytes() + planes
    )
    assert np.array_equal(read_dicom_pixels(frames, frame=2), rgb)
