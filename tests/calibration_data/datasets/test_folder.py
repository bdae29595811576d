"""Class folders: what is an image, what is a mask, what is neither, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from calibration_data.dataset import BadImageError
from calibration_data.datasets.folder import (
    FolderSettings,
    fingerprint_folder,
    holds_official_splits,
    open_folder,
)
from calibration_data.preparation import prepare
from calibration_data.settings import DataSettings, open_source
from calibration_data.split_checks import official_gaps
from calibration_data.splits import SplitSettings, split_records
from foundation.errors import UsageError

BUSI = Path(__file__).parents[3].parent / "shared" / "data" / "busi"


def opened(root: Path, pattern: str | None = None):
    return open_folder(FolderSettings(root=root, group_pattern=pattern))


def write_mask(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (20, 16)) -> None:
    mask = Image.new("L", size)
    mask.paste(255, box)
    mask.save(path)


def test_folders_are_classes_and_paths_are_ids(two_classes):
    dataset = opened(two_classes)
    assert dataset.classes == ("cat", "dog")
    assert [record.image_id for record in dataset.records[:2]] == ["cat/P0_cat.png", "cat/P1_cat.png"]
    assert [record.label for record in dataset.records] == [0] * 8 + [1] * 8
    assert all(record.group == record.image_id for record in dataset.records)


def test_all_four_formats_and_nested_folders_are_found(two_classes, write_image):
    for name in ("x/a.PNG", "x/b.jpg", "x/y/c.JPEG", "d.bmp", "e.tif", "f.tiff"):
        write_image(two_classes / "elk" / name)
    elks = [record for record in opened(two_classes).records if record.label == 2]
    assert len(elks) == 6


def test_masks_beside_the_image_are_united(two_classes):
    write_mask(two_classes / "cat" / "P0_cat_mask.png", (0, 0, 4, 3))
    write_mask(two_classes / "cat" / "P0_cat_mask_1.png", (10, 10, 12, 12))
    write_mask(two_classes / "cat" / "P0_cat_mask_2.png", (11, 11, 13, 12))
    dataset = opened(two_classes)
    assert len(dataset.records) == 16
    mask = dataset.load(dataset.records[0]).mask
    assert mask is not None
    assert int(mask.sum()) == 12 + 4 + 1
    assert mask[:3, :4].all()
    assert dataset.load(dataset.records[1]).mask is None


def test_files_that_are_no_images_are_counted_and_hidden_ones_are_not(two_classes):
    for name in ("notes.txt", "cat/Thumbs.db", "dog/readme.md", ".DS_Store", "dog/.hidden.png"):
        (two_classes / name).touch()
    (two_classes / ".git").mkdir()
    dataset = opened(two_classes)
    assert dataset.ignored == ("cat/Thumbs.db", "dog/readme.md", "notes.txt")
    assert len(dataset.records) == 16
    assert dataset.classes == ("cat", "dog")


def test_a_mask_without_its_image_is_counted_as_no_image(two_classes):
    write_mask(two_classes / "cat" / "gone_mask.png", (0, 0, 1, 1))
    assert opened(two_classes).ignored == ("cat/gone_mask.png",)


def test_the_pattern_groups_images_of_a_patient_across_classes(two_classes):
    groups = [record.group for record in opened(two_classes, r"^(P\d+)_").records]
    assert groups == [f"P{index}" for index in range(8)] * 2
    assert opened(two_classes, r"^(P\d+)_").groups_known
    assert not opened(two_classes).groups_known


def test_a_name_without_a_group_is_refused(two_classes):
    with pytest.raises(UsageError, match=r"P0_dog.png: expected a name in which `source.group_pattern`"):
        opened(two_classes, "(P.)_cat")


@pytest.mark.parametrize(
    ("pattern", "patient"),
    [
        (r"patient_(\d+)/", "07"),  # a folder
        (r"^cat/(\w+)/", "patient_07"),  # ^ is the beginning of the path
        (r"^(P\d)_", "P3"),  # or, where that is not found, of the name
        (r"^(x*)P3_|^(P\d)", None),  # an empty group is none
    ],
)
def test_the_pattern_is_searched_in_the_path_and_then_in_the_name(tmp_path, write_image, pattern, patient):
    write_image(tmp_path / "cat" / "patient_07" / "left" / "P3_a.png")
    if patient is None:
        with pytest.raises(UsageError, match=r"P3_a\.png: .*finds a group, alone or with the folders"):
            opened(tmp_path, pattern)
    else:
        assert [record.group for record in opened(tmp_path, pattern).records] == [patient]


@pytest.mark.parametrize("pattern", ["^([^_]+)_", "([^_]+)_"])
def test_a_patient_stays_one_across_classes_where_every_name_has_a_group(two_classes, pattern):
    """In the paths the pattern would find cat/P0 and dog/P0: a patient on two sides."""
    assert [record.group for record in opened(two_classes, pattern).records] == [f"P{i}" for i in range(8)] * 2


@pytest.mark.parametrize("pattern", ["P[0-9]", "(P[0-9]", ""])
def test_a_pattern_without_a_group_is_refused(tmp_path, pattern):
    with pytest.raises(ValidationError, match="expected a regular expression"):
        FolderSettings(root=tmp_path, group_pattern=pattern)


def test_links_inside_the_folder_are_followed_and_links_out_of_it_refused(two_classes, write_image):
    (two_classes / "cat" / "link.png").symlink_to(two_classes / "dog" / "P0_dog.png")
    assert len(opened(two_classes).records) == 17
    outside = write_image(two_classes.parent / "outside.png")
    (two_classes / "cat" / "out.png").symlink_to(outside)
    with pytest.raises(UsageError, match=r"out.png: expected a file below .* found a link that leaves it"):
        opened(two_classes)


@pytest.mark.parametrize("place", [".", "cat"])
def test_a_linked_folder_that_leaves_is_refused(two_classes, write_image, place):
    write_image(two_classes.parent / "elsewhere" / "a.png")
    (two_classes / place / "elk").symlink_to(two_classes.parent / "elsewhere")
    with pytest.raises(UsageError, match="found a link that leaves it"):
        opened(two_classes)


@pytest.mark.parametrize("target", ["gone.png", "link.png"])
def test_a_link_that_leads_to_no_file_is_refused_like_a_bad_image(two_classes, target):
    (two_classes / "cat" / "link.png").symlink_to(target)
    with pytest.raises(UsageError, match=r"link\.png: expected an image file, found a pipe or a link to nothing"):
        open_folder(FolderSettings(root=two_classes))


def test_a_pipe_named_like_an_image_is_refused_and_not_waited_for(two_classes):
    os.mkfifo(two_classes / "cat" / "pipe.png")
    with pytest.raises(UsageError, match=r"pipe\.png: expected an image file, found a pipe"):
        open_folder(FolderSettings(root=two_classes))


def test_a_link_in_a_circle_is_refused_in_finite_time(two_classes):
    (two_classes / "cat" / "again").symlink_to(two_classes / "cat")
    with pytest.raises(UsageError, match="again: expected a folder, found a link to a folder"):
        opened(two_classes)


def test_a_name_that_would_command_the_terminal_is_refused(two_classes):
    (two_classes / "\x1b[31mred").mkdir()
    with pytest.raises(UsageError, match=r"\\x1b\[31mred': expected a name in printable UTF-8"):
        opened(two_classes)


def test_a_name_that_is_not_utf_8_is_refused(two_classes):
    os.close(os.open(os.fsencode(two_classes / "cat") + b"/\xff.png", os.O_CREAT))
    with pytest.raises(UsageError, match="expected a name in printable UTF-8"):
        opened(two_classes)


def test_a_root_without_class_folders_is_refused(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    with pytest.raises(UsageError, match="expected one folder per class, found none"):
        opened(tmp_path)


def test_a_missing_root_is_refused_by_both_functions(tmp_path):
    settings = FolderSettings(root=tmp_path / "nowhere")
    for function in (open_folder, fingerprint_folder):
        with pytest.raises(UsageError, match="nowhere: expected a folder, found nothing"):
            function(settings)


@pytest.mark.parametrize(
    ("size", "content", "message"),
    [
        ((10, 8), None, "its mask P0_cat_mask.png: expected 20 × 16 pixels, found 10 × 8"),
        (None, b"", "its mask P0_cat_mask.png: expected an image, found a file of zero bytes"),
        (None, b"no image", "its mask P0_cat_mask.png: expected a PNG"),
    ],
)
def test_a_mask_that_does_not_fit_makes_a_bad_image(two_classes, size, content, message):
    path = two_classes / "cat" / "P0_cat_mask.png"
    if size:
        write_mask(path, (0, 0, 1, 1), size)
    else:
        path.write_bytes(content)
    dataset = opened(two_classes)
    with pytest.raises(BadImageError, match=message):
        dataset.load(dataset.records[0])


def test_the_fingerprint_sees_images_masks_and_names_but_not_other_files(two_classes, write_image):
    settings = FolderSettings(root=two_classes)
    seen = {fingerprint_folder(settings)}
    (two_classes / "notes.txt").write_text("new")
    assert fingerprint_folder(settings) in seen
    write_mask(two_classes / "cat" / "P0_cat_mask.png", (0, 0, 4, 3))
    seen.add(fingerprint_folder(settings))
    write_image(two_classes / "cat" / "P0_cat.png", seed=999)
    seen.add(fingerprint_folder(settings))
    (two_classes / "dog" / "P0_dog.png").rename(two_classes / "dog" / "P9_dog.png")
    seen.add(fingerprint_folder(settings))
    assert len(seen) == 4


# --- official splits ---


@pytest.fixture
def official(tmp_path, write_image) -> Path:
    """`Training` and `Testing` with class folders of six and three images."""
    root = tmp_path / "official"
    for side, count in (("Training", 6), ("Testing", 3)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                write_image(root / side / name / f"P{index}.png", seed=1000 * count + 100 * label + index)
    return root


def opened_officially(root: Path, pattern: str | None = None):
    return open_folder(FolderSettings(root=root, official_splits=True, group_pattern=pattern))


@pytest.mark.parametrize("function", [open_folder, fingerprint_folder])
@pytest.mark.parametrize("others", [(), ("masks",)])
def test_split_folders_never_become_classes(official, function, others):
    for name in others:
        (official / name).mkdir()
    with pytest.raises(UsageError, match=r"found the split folders Testing, Training\. Set `source\.official_splits"):
        function(FolderSettings(root=official))


@pytest.mark.parametrize(
    ("names", "holds"),
    [
        (("train", "val", "test"), True),
        (("TRAIN", "Holdout"), True),
        (("training_set", "test_set"), True),
        (("dev", "test"), True),
        (("train", "Training"), False),
        (("car", "train"), False),  # a class of vehicles
        (("cat", "dog"), False),
        ((), False),
    ],
)
def test_split_folders_are_known_by_two_of_their_names(tmp_path, names, holds):
    for name in names:
        (tmp_path / name).mkdir()
    assert holds_official_splits(tmp_path) == holds


def test_files_named_like_splits_and_a_missing_folder_hold_no_splits(tmp_path):
    for name in ("train", "test"):
        (tmp_path / name).touch()
    assert not holds_official_splits(tmp_path)
    assert not holds_official_splits(tmp_path / "nowhere")


def test_each_split_folder_is_read_as_class_folders(official):
    write_mask(official / "Testing" / "dog" / "P0_mask.png", (0, 0, 4, 3))
    (official / "readme.txt").touch()
    (official / "Testing" / "cat" / "notes.txt").touch()
    dataset = opened_officially(official)
    assert dataset.classes == ("cat", "dog")
    assert dataset.ignored == ("Testing/cat/notes.txt", "readme.txt")
    found = [(record.image_id, record.label, record.official_split) for record in dataset.records]
    assert found[0] == ("Testing/cat/P0.png", 0, "test")
    assert found[-1] == ("Training/dog/P5.png", 1, "train")
    assert len({image_id for image_id, _, _ in found}) == 18
    masked = next(record for record in dataset.records if record.image_id == "Testing/dog/P0.png")
    mask = dataset.load(masked).mask
    assert mask is not None
    assert int(mask.sum()) == 12
    assert dataset.load(dataset.records[-1]).mask is None


def test_validation_is_taken_from_train_where_there_is_none(official):
    dataset = opened_officially(official)
    sides = split_records(dataset.records, dataset.classes, SplitSettings())
    found = {(record.official_split, side) for record, side in zip(dataset.records, sides, strict=True)}
    assert found == {("test", "test"), ("train", "train"), ("train", "validation")}


def test_the_pattern_sees_the_split_folder(official):
    groups = {record.group for record in opened_officially(official, r"^(\w+/\w+/P\d)").records}
    assert len(groups) == 18


def test_a_class_that_a_split_lacks_stops_a_training_and_nothing_else(official, write_image, tmp_path):
    write_image(official / "Training" / "elk" / "a.png")
    (official / "Testing" / "elk").mkdir()  # an empty folder is no help
    write_image(official / "Testing" / "ape" / "a.png", seed=7)
    settings = DataSettings(source=FolderSettings(root=official, official_splits=True), image_size=16)
    dataset = open_source(settings)
    assert dataset.classes == ("ape", "cat", "dog", "elk")
    assert [record.label for record in dataset.records if "elk" in record.image_id] == [3]
    with pytest.raises(UsageError, match=r"class 'ape': expected images in the official train split, as in the oth"):
        prepare(dataset, settings, tmp_path / "trained")
    assert official_gaps(dataset.records, dataset.classes) == [
        "The official train split has no image of class 'ape': none calibrates.",
        "The official test split has no image of class 'elk': nothing is measured of that.",
    ]
    data = prepare(dataset, settings, tmp_path / "given", training=False)
    assert set(data.test.labels.tolist()) == {0, 1, 2}


def test_official_splits_without_split_folders_are_refused(two_classes):
    with pytest.raises(UsageError, match=r"expected the split folders train and test .*found the folders cat, dog"):
        opened_officially(two_classes)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("extra", "expected only split folders, found Testing, Training and extra"),
        ("holdout", "expected one folder for the test split, found Testing and holdout"),
    ],
)
def test_other_folders_beside_split_folders_are_refused(official, folder, message):
    (official / folder).mkdir()
    with pytest.raises(UsageError, match=message):
        opened_officially(official)


def test_split_folders_without_training_images_are_refused(official):
    (official / "Training").rename(official / "val")
    with pytest.raises(UsageError, match=r"expected the split folders train and test .*folders Testing, val\."):
        opened_officially(official)


def test_a_split_folder_that_is_a_link_is_refused(official):
    (official / "val").symlink_to(official / "Testing")
    with pytest.raises(UsageError, match="val: expected a folder, found a link to a folder"):
        opened_officially(official)


def test_the_fingerprint_of_splits_sees_every_side(official, write_image):
    settings = FolderSettings(root=official, official_splits=True)
    seen = {fingerprint_folder(settings)}
    write_image(official / "Testing" / "cat" / "P0.png", seed=5)
    seen.add(fingerprint_folder(settings))
    write_image(official / "Training" / "cat" / "P0.png", seed=6)
    seen.add(fingerprint_folder(settings))
    (official / "Testing").rename(official / "val")
    seen.add(fingerprint_folder(settings))
    assert len(seen) == 4


@pytest.mark.skipif(not BUSI.is_dir(), reason="needs the BUSI images in ../shared/data/busi")
def test_busi_opens_with_its_masks():
    dataset = opened(BUSI)
    assert dataset.classes == ("benign", "malignant", "normal")
    assert np.bincount([record.label for record in dataset.records]).tolist() == [24, 24, 24]
    mask = dataset.load(dataset.records[0]).mask
    assert mask is not None
    assert 0.005 < mask.mean() < 0.5
    # One image of the published set has a second mask of another size.
    odd = next(record for record in dataset.records if record.image_id == "benign/benign (4).png")
    with pytest.raises(BadImageError, match=r"benign \(4\)_mask_1.png: expected 416 × 416 pixels, found 555 × 465"):
        dataset.load(odd)
    assert np.count_nonzero([record.label == 2 for record in dataset.records]) == 24
