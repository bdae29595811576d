"""Class folders: what is an image, what is a mask, what is neither, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from calibration_data.dataset import BadImageError
from calibration_data.datasets.folder import FolderSettings, fingerprint_folder, open_folder
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
