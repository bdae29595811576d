"""ChestX-ray14's files, written by hand, and the sample at hand where it is."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration_data.datasets.chestxray14 import ChestXray14Settings, fingerprint_chestxray14, open_chestxray14
from calibration_data.datasets.chestxray14_tables import CLASSES
from calibration_data.splits import SplitSettings, split_records
from foundation.errors import UsageError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "nih_chestxray14"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs ChestX-ray14 in ../shared/data/nih_chestxray14")

# The header as the authors wrote it, with the commas inside its brackets.
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = [
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,058Y,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,No Finding,1,1,058Y,M,AP,2682,2749,0.143,0.143",
    "00000002_000.png,Hernia|Atelectasis,0,2,081Y,,PA,2500,2048,0.171,0.171",
    "00000003_000.png,Infiltration|Mass,0,3,081Y,F,PA,2500,2048,0.171,0.171",
]
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
BOXES = [
    "00000003_000.png,Infiltrate,256,512,128,64,,,",
    "00000003_000.png,Mass,0,0,1024,1024,,,",
    "00000003_000.png,Infiltrate,100.5,0,10,16,,,",
    "00099999_000.png,Mass,0,0,10,10,,,",
]


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images of three patients in two of the authors' folders, 64 × 64 px; patient 3 is for testing."""
    for index, row in enumerate(ROWS):
        path = tmp_path / f"images_00{1 + index // 2}" / "images" / row.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64), 10 * index + 1, dtype=np.uint8)).save(path)
    write(tmp_path / "Data_Entry_2017.csv", HEADER, *ROWS)
    write(tmp_path / "train_val_list.txt", *(row.split(",")[0] for row in ROWS[:3]))
    write(tmp_path / "test_list.txt", "00000003_000.png", "00000004_000.png")
    write(tmp_path / "BBox_List_2017.csv", BOX_HEADER, *BOXES)
    return tmp_path


def opened(root: Path, **settings):
    return open_chestxray14(ChestXray14Settings(root=root, **settings))


def test_labels_are_all_findings_in_ascending_order_and_no_finding_is_none(root):
    dataset = opened(root)
    assert dataset.task == "multi_label"
    assert len(dataset.classes) == 14
    assert [record.label for record in dataset.records] == [(1, 10), (), (0, 13), (3, 4)]
    assert [CLASSES[label] for label in (1, 10, 0, 13, 3, 4)] == [
        "Cardiomegaly", "Emphysema", "Atelectasis", "Hernia", "Infiltration", "Mass"
    ]  # fmt: skip


def test_patients_are_groups_and_the_lists_are_the_splits(root):
    records = opened(root).records
    assert [record.group for record in records] == ["1", "1", "2", "3"]
    assert [record.official_split for record in records] == ["train", "train", "train", "test"]
    assert records[0].image_id == "images_001/images/00000001_000.png"


@pytest.mark.parametrize(
    ("subgroup", "expected"), [("sex", ["M", "M", "", "F"]), ("view", ["PA", "AP", "PA", "PA"]), ("none", [""] * 4)]
)
def test_subgroups_are_sex_or_view_where_known(root, subgroup, expected):
    assert ["".join(record.subgroups) for record in opened(root, subgroup=subgroup).records] == expected


def test_the_newer_table_calls_the_column_sex(root):
    (root / "Data_Entry_2017.csv").unlink()
    write(root / "Data_Entry_2017_v2020.csv", HEADER.replace("Gender", "Sex"), *ROWS)
    assert [record.subgroups for record in opened(root).records] == [("M",), ("M",), (), ("F",)]


def test_a_mask_is_the_union_of_the_boxes_of_the_finding_listed_first(root):
    dataset = opened(root)
    frame = dataset.load(dataset.records[3])
    assert frame.mask_class == CLASSES.index("Infiltration")
    expected = np.zeros((64, 64), dtype=bool)
    expected[32:36, 16:24] = True  # 1024 px → 64 px: a sixteenth
    expected[0, 6] = True  # 100.5 … 110.5 touches pixel 6 alone
    assert np.array_equal(frame.mask, expected)
    others = [dataset.load(record) for record in dataset.records[:3]]
    assert [(frame.mask, frame.mask_class) for frame in others] == [(None, None)] * 3


def test_there_may_be_no_boxes(root):
    (root / "BBox_List_2017.csv").unlink()
    dataset = opened(root)
    assert dataset.load(dataset.records[3]).mask is None


def test_missing_images_are_counted_and_named_or_left_out(root):
    (root / "images_001" / "images" / "00000001_001.png").unlink()
    with pytest.raises(UsageError, match=r"expected 4 images, 1 of them are missing \(00000001_001\.png\)\. .*skip"):
        opened(root)
    dataset = opened(root, missing_images="skip")
    assert len(dataset.records) == 3
    assert dataset.missing == ("00000001_001.png",)
    settings = ChestXray14Settings(root=root, missing_images="skip")
    first = fingerprint_chestxray14(settings)
    (root / "images_001" / "images" / "00000001_000.png").unlink()
    assert fingerprint_chestxray14(settings) != first


def test_many_missing_images_are_named_in_part(root):
    write(root / "Data_Entry_2017.csv", HEADER, *ROWS, *(f"x{n}.png,No Finding,0,9,1,M,PA,1,1,1,1" for n in range(9)))
    with pytest.raises(UsageError, match=r"9 of them are missing \(x0\.png, x1\.png, x2\.png and 6 more\)"):
        opened(root)


def test_folders_of_ones_own_are_named(root):
    (root / "images_001").rename(root / "left")
    (root / "images_002").rename(root / "right")
    with pytest.raises(UsageError, match=r"found the folders left, right\. .*`source\.image_folders`"):
        opened(root)
    assert len(opened(root, image_folders=("left/images", "right/images")).records) == 4
    with pytest.raises(UsageError, match="expected a folder, found nothing"):
        opened(root, image_folders=("middle",))


def test_an_image_in_two_folders_is_refused(root):
    (root / "images").mkdir()
    (root / "images" / "00000003_000.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"expected each image once, found images/00000003_000.png and images_002"):
        opened(root)


def test_folders_outside_are_refused(root, tmp_path_factory):
    (root / "images_003").symlink_to(tmp_path_factory.mktemp("outside"))
    with pytest.raises(UsageError, match="found a link that leaves it"):
        opened(root, image_folders=("images_003",))
    with pytest.raises(UsageError, match="expected a file below"):
        opened(root, image_folders=("..",))


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("Data_Entry_2017.csv", [HEADER, *ROWS, ROWS[0]], r"found '00000001_000\.png' again in line 6"),
        ("Data_Entry_2017.csv", [HEADER, ROWS[0].replace("Emphysema", "Flu"), *ROWS[1:]], "found 'Flu' in line 2"),
        (
            "Data_Entry_2017.csv",
            [HEADER, ROWS[0].replace("Emphysema", "No Finding"), *ROWS[1:]],
            "'No Finding' alone, .* found 'No Finding' in line 2",
        ),
        ("Data_Entry_2017.csv", [HEADER, "00000001_000.png,Hernia"], "expected 11 columns and a patient in line 2"),
        (
            "Data_Entry_2017.csv",
            [HEADER, ROWS[0].replace(",1,", ",,")],
            "expected 11 columns and a patient in line 2",
        ),
        ("Data_Entry_2017.csv", ["name,label"], "expected a column 'Image Index', found name, label"),
        ("Data_Entry_2017.csv", [HEADER], "expected a row per image, found none"),
        ("Data_Entry_2017.csv", [HEADER, '"open'], "expected comma-separated text"),
        (
            "test_list.txt",
            ["00000003_000.png", "00000002_000.png"],
            "no image in both lists, found '00000002_000.png'",
        ),
        ("test_list.txt", ["00000004_000.png"], "in neither: 00000003_000.png"),
        ("BBox_List_2017.csv", [BOX_HEADER, "00000003_000.png,Flu,1,1,1,1"], "width and height in line 2"),
        ("BBox_List_2017.csv", [BOX_HEADER, "00000003_000.png,Mass,1,1,1"], "width and height in line 2"),
        ("BBox_List_2017.csv", [BOX_HEADER, "00000003_000.png,Mass,1,a,1,1"], "width and height in line 2"),
        ("BBox_List_2017.csv", [BOX_HEADER, "00000003_000.png,Mass,1,1,nan,1"], "a box inside 1024 px in line 2"),
        ("BBox_List_2017.csv", [BOX_HEADER, "00000003_000.png,Mass,1000,1,100,1"], "a box inside 1024 px in line 2"),
        ("BBox_List_2017.csv", [BOX_HEADER, "00000003_000.png,Mass,1,1,0,1"], "a box inside 1024 px in line 2"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(root, file, lines, message):
    write(root / file, *lines)
    with pytest.raises(UsageError, match=message):
        opened(root)


@pytest.mark.parametrize("file", ["Data_Entry_2017.csv", "train_val_list.txt", "test_list.txt"])
def test_a_missing_file_is_named(root, file):
    (root / file).unlink()
    for function in (open_chestxray14, fingerprint_chestxray14):
        with pytest.raises(UsageError, match=f"expected .*{file}|{file}: expected an official list"):
            function(ChestXray14Settings(root=root))


@needs_real
def test_the_sample_has_1000_images_of_682_patients_and_the_lists_share_none():
    dataset = opened(REAL, image_folders=("images_256",))
    assert len(dataset.records) == 1000
    patients = defaultdict(set)
    for record in dataset.records:
        patients[record.official_split].add(record.group)
    assert len(patients["train"] | patients["test"]) == 682
    assert not patients["train"] & patients["test"]
    assert Counter(record.official_split for record in dataset.records) == {"train": 847, "test": 153}
    findings = Counter(dataset.classes[label] for record in dataset.records for label in record.label)
    assert findings["Pneumonia"] == 500
    assert findings["Hernia"] == 3
    assert sum(not record.label for record in dataset.records) == 500


@needs_real
def test_the_sample_divides_into_disjoint_patients():
    dataset = opened(REAL, image_folders=("images_256",))
    assignment = split_records(dataset.records, dataset.classes, SplitSettings(), "error", dataset.task)
    patients = defaultdict(set)
    for record, split in zip(dataset.records, assignment, strict=True):
        patients[split].add(record.group)
    assert all(patients.values())
    assert not patients["train"] & patients["validation"]
    assert not (patients["train"] | patients["validation"]) & patients["test"]


@needs_real
def test_boxes_of_the_sample_lie_on_both_sizes_alike():
    small, large = (opened(REAL, image_folders=(f"images_{size}",), missing_images="skip") for size in (256, 1024))
    by_name = {record.image_id.split("/")[1]: record for record in small.records}
    compared = 0
    for record in large.records:
        fine, coarse = large.load(record), small.load(by_name[record.image_id.split("/")[1]])
        assert fine.mask is not None
        assert coarse.mask is not None
        assert fine.mask_class == coarse.mask_class
        assert fine.mask_class in record.label
        assert coarse.mask.mean() == pytest.approx(fine.mask.mean(), abs=0.02)
        compared += 1
    assert compared == 24
