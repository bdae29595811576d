"""HAM10000's files, written by hand, and the shared copy where it is."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration_data.datasets.ham10000 import Ham10000Settings, fingerprint_ham10000, open_ham10000
from calibration_data.splits import SplitSettings, split_records
from foundation.errors import UsageError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "ham10000"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs HAM10000 in ../shared/data/ham10000")

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
ROWS = [
    "HAM_0000002,ISIC_0000001,mel,histo,39.0,male,back",
    "HAM_0000001,ISIC_0000002,nv,follow_up,40.0,female,unknown",
    "HAM_0000001,ISIC_0000003,nv,follow_up,59.0,female,face",
    "HAM_0000003,ISIC_0000004,akiec,confocal,60.0,unknown,acral",
    "HAM_0000004,ISIC_0000005,vasc,consensus,,unknown,unknown",
]


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five images of four lesions in the published parts, 16 × 12 px; the second has a mask of its right half."""
    for index, row in enumerate(ROWS):
        path = tmp_path / f"HAM10000_images_part_{1 + index // 3}" / f"{row.split(',')[1]}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((12, 16, 3), 40 * index + 1, dtype=np.uint8)).save(path)
    masks = tmp_path / "HAM10000_segmentations_lesion_tschandl"
    masks.mkdir()
    mask = np.zeros((12, 16), dtype=np.uint8)
    mask[:, 8:] = 255
    Image.fromarray(mask).save(masks / "ISIC_0000002_segmentation.png")
    write(tmp_path / "HAM10000_metadata", HEADER, *ROWS)
    return tmp_path


def opened(root: Path):
    return open_ham10000(Ham10000Settings(root=root))


def test_labels_lesions_and_paths_are_those_of_the_published_layout(root):
    dataset = opened(root)
    assert dataset.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert [dataset.classes[record.label] for record in dataset.records] == ["mel", "nv", "nv", "akiec", "vasc"]
    assert [record.group[-1] for record in dataset.records] == ["2", "1", "1", "3", "4"]
    assert dataset.records[3].image_id == "HAM10000_images_part_2/ISIC_0000004.jpg"
    assert {record.official_split for record in dataset.records} == {None}
    assert dataset.ignored == ()


def test_subgroups_are_named_on_each_axis_that_is_known(root):
    assert [record.subgroups for record in opened(root).records] == [
        ("sex: male", "age: <40", "localization: back", "confirmation: histo"),
        ("sex: female", "age: 40–59", "confirmation: follow_up"),
        ("sex: female", "age: 40–59", "localization: face", "confirmation: follow_up"),
        ("age: ≥60", "localization: acral", "confirmation: confocal"),
        ("confirmation: consensus",),
    ]


def test_the_mask_is_found_by_the_images_name(root):
    dataset = opened(root)
    masks = [dataset.load(record).mask for record in dataset.records]
    assert [mask is None for mask in masks] == [True, False, True, True, True]
    assert masks[1] is not None
    assert masks[1][:, 8:].all()
    assert not masks[1][:, :8].any()


def test_there_may_be_no_masks_and_one_folder_of_images(root):
    (root / "HAM10000_segmentations_lesion_tschandl").rename(root / "elsewhere")
    (root / "HAM10000_images_part_1").rename(root / "images")
    (root / "HAM10000_images_part_2").rename(root / "elsewhere" / "part_2")
    dataset = opened(root)
    assert [record.image_id for record in dataset.records] == [f"images/ISIC_000000{n}.jpg" for n in (1, 2, 3)]
    assert dataset.load(dataset.records[1]).mask is None
    assert dataset.missing == ("ISIC_0000004", "ISIC_0000005")


def test_the_table_may_have_either_name_and_the_fingerprint_stays(root):
    settings = Ham10000Settings(root=root)
    first = fingerprint_ham10000(settings)
    (root / "HAM10000_metadata").rename(root / "HAM10000_metadata.csv")
    assert fingerprint_ham10000(settings) == first
    (root / "HAM10000_images_part_2" / "ISIC_0000005.jpg").unlink()
    assert fingerprint_ham10000(settings) != first


def test_files_that_are_no_listed_image_are_ignored_by_name(root):
    (root / "HAM10000_images_part_1" / "ISIC_0000009.jpg").write_bytes(b"not in the table")
    (root / "HAM10000_images_part_2" / "notes.txt").write_text("x")
    (root / "HAM10000_images_part_2" / ".DS_Store").write_text("x")
    (root / "HAM10000_segmentations_lesion_tschandl" / "ISIC_0000001.png").write_text("x")
    dataset = opened(root)
    assert len(dataset.records) == 5
    assert dataset.ignored == (
        "HAM10000_images_part_1/ISIC_0000009.jpg",
        "HAM10000_images_part_2/notes.txt",
        "HAM10000_segmentations_lesion_tschandl/ISIC_0000001.png",
    )


def test_an_image_in_both_parts_is_refused(root):
    (root / "HAM10000_images_part_2" / "ISIC_0000001.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"once, found HAM10000_images_part_1/ISIC_0000001\.jpg and HAM"):
        opened(root)


def test_a_link_out_of_the_folder_is_refused(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "x.jpg"
    outside.write_bytes(b"x")
    (root / "HAM10000_images_part_2" / "x.jpg").symlink_to(outside)
    with pytest.raises(UsageError, match="found a link that leaves it"):
        opened(root)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, *ROWS, ROWS[0]], r"expected each image once, found 'ISIC_0000001' again in line 7"),
        ([HEADER, ROWS[0], ROWS[1].replace("nv", "naevus")], r"a dx out of akiec, .* in line 3, found 'naevus'"),
        ([HEADER, ROWS[0] + ",more"], r"expected 7 columns in line 2, found 8"),
        ([HEADER, ROWS[0].replace(",back", "")], r"expected 7 columns in line 2, found 6"),
        ([HEADER, ROWS[0].replace("HAM_0000002", "")], r"expected the lesion_id in line 2, found none"),
        ([HEADER, ROWS[0].replace("ISIC_0000001", " ")], r"expected the image_id in line 2, found none"),
        ([HEADER, ROWS[0].replace("39.0", "old")], r"expected an age from 0 to 130 in line 2, found 'old'"),
        ([HEADER, ROWS[0].replace("39.0", "-5")], r"expected an age from 0 to 130 in line 2, found '-5'"),
        ([HEADER, ROWS[0].replace("39.0", "inf")], r"expected an age from 0 to 130 in line 2, found 'inf'"),
        (
            [HEADER.replace("dx_type", "proof"), *ROWS],
            r"expected a column 'dx_type' in line 1, found lesion_id, ",
        ),
        ([HEADER], r"expected a row per image, found none"),
        (
            [HEADER, ROWS[0].replace("0000001", "0000008")],
            r"expected some of its 1 images in images or HAM",
        ),
        ([HEADER, '"open'], "expected comma-separated text"),
    ],
)
def test_a_malformed_table_is_named_with_its_line(root, lines, message):
    write(root / "HAM10000_metadata", *lines)
    for function in (open_ham10000, fingerprint_ham10000):
        with pytest.raises(UsageError, match=message):
            function(Ham10000Settings(root=root))


def test_a_missing_table_or_folder_is_named(root, tmp_path_factory):
    (root / "HAM10000_metadata").rename(root / "table.csv")
    with pytest.raises(UsageError, match=r"expected HAM10000_metadata\.csv, found nothing"):
        opened(root)
    empty = tmp_path_factory.mktemp("empty")
    write(empty / "HAM10000_metadata.csv", HEADER, *ROWS)
    with pytest.raises(UsageError, match="expected images in one of the folders images, HAM10000_images_part_1, HAM"):
        opened(empty)


@needs_real
def test_the_shared_copy_has_6994_images_of_5224_lesions_all_with_masks():
    dataset = opened(REAL)
    assert len(dataset.records) == 6994
    assert len({record.group for record in dataset.records}) == 5224
    assert dataset.groups_known
    counts = Counter(dataset.classes[record.label] for record in dataset.records)
    assert counts == {"nv": 4677, "bkl": 770, "mel": 762, "bcc": 351, "akiec": 231, "vasc": 115, "df": 88}
    assert (dataset.ignored, dataset.missing) == ((), ())
    for record in dataset.records[::500]:
        frame = dataset.load(record)
        assert frame.pixels.shape == (150, 200, 3)
        assert frame.mask is not None
        assert 0 < frame.mask.mean() < 1


@needs_real
def test_the_shared_copy_divides_into_disjoint_lesions_with_every_class_everywhere():
    dataset = opened(REAL)
    assignment = split_records(dataset.records, dataset.classes, SplitSettings())
    lesions, labels = defaultdict(set), defaultdict(Counter)
    for record, split in zip(dataset.records, assignment, strict=True):
        lesions[split].add(record.group)
        labels[split][dataset.classes[record.label]] += 1
    assert not lesions["train"] & lesions["validation"]
    assert not (lesions["train"] | lesions["validation"]) & lesions["test"]
    assert (labels["test"]["df"], labels["test"]["vasc"], labels["train"]["df"]) == (13, 17, 62)
