"""Images without labels: which are taken, which are passed over, and what a quantizer gets to see of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration_data.fitting import ImageForm
from calibration_data.image_folder import ImageFolder, list_images, read_image_folder, unlabelled_data
from calibration_data.sampling import choose_calibration_images
from foundation.errors import UsageError
from onnx_files.preprocessing import Preprocessing

FORM = ImageForm(8, 3, "stretch")


def write_gray(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty images, their gray level the number in their name, in two folders."""
    for number in range(40):
        write_gray(tmp_path / "images" / ("a", "b/c")[number >= 20] / f"{number:02}.png", number)
    return tmp_path / "images"


def read(folder: Path, tmp_path: Path, limit: int | None = 8, held_out: int = 8, seed: int = 0) -> ImageFolder:
    return read_image_folder(folder, FORM, limit, held_out, seed, tmp_path)


def levels(images: np.ndarray) -> list[int]:
    return [int(image.max()) for image in images]


def test_calibration_images_are_spread_over_the_folder(folder: Path, tmp_path: Path) -> None:
    found = read(folder, tmp_path)
    # Each stretch of five files gives one.
    assert [level // 5 for level in levels(found.calibration.pixels)] == list(range(8))
    assert found.calibration.image_ids[0].startswith("a/")
    assert found.calibration.image_ids[7].startswith("b/c/")
    assert found.calibration.pixels.shape == (8, 3, 8, 8)


def test_held_out_images_were_not_calibrated_on(folder: Path, tmp_path: Path) -> None:
    found = read(folder, tmp_path, 30, 128)
    assert len(found.held_out) == 10
    assert sorted(levels(found.calibration.pixels) + levels(found.held_out.pixels)) == list(range(40))


def test_the_seed_alone_decides(folder: Path, tmp_path: Path) -> None:
    first, second, other = (read(folder, tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first.calibration.image_ids == second.calibration.image_ids
    assert first.calibration.sha256 == second.calibration.sha256
    assert first.calibration.image_ids != other.calibration.image_ids


def test_without_a_limit_a_quarter_is_left_to_measure_on(folder: Path, tmp_path: Path) -> None:
    found = read(folder, tmp_path, None, 128)
    assert (len(found.calibration), len(found.held_out)) == (30, 10)


def test_a_limit_beyond_the_folder_takes_everything(folder: Path, tmp_path: Path) -> None:
    found = read(folder, tmp_path, 1000)
    assert (len(found.calibration), len(found.held_out)) == (40, 0)


def test_broken_files_and_copies_are_replaced_by_others(folder: Path, tmp_path: Path) -> None:
    for number in range(0, 40, 2):
        next(folder.rglob(f"{number:02}.png")).write_bytes(b"no image" * number)
    (folder / "copy.png").write_bytes((folder / "a/01.png").read_bytes())
    found = read(folder, tmp_path, 20, 8)
    assert len(found.calibration) == 20
    assert sorted(levels(found.calibration.pixels)) == list(range(1, 40, 2))
    assert len(found.held_out) == 0
    assert len(found.skipped) == 20
    assert "a/00.png: expected an image, found a file of zero bytes" in found.skipped
    assert found.duplicates == 1


def test_hidden_files_and_other_files_do_not_count(folder: Path) -> None:
    write_gray(folder / ".hidden" / "x.png", 9)
    write_gray(folder / "._x.png", 9)
    (folder / "notes.txt").write_text("notes")
    assert len(list_images(folder)) == 40


def test_a_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    write_gray(tmp_path / "elsewhere.png", 9)
    (folder / "link.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(UsageError, match=r"link\.png: expected a file below .*, found a link that leaves it"):
        list_images(folder)


def test_what_cannot_be_used_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--limit: expected 1 calibration image or more, found 0"):
        read(folder, tmp_path, 0)
    with pytest.raises(UsageError, match="expected a folder, found nothing"):
        read(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="expected PNG, JPEG, BMP or TIFF images, found none"):
        read(tmp_path / "empty", tmp_path)
    (tmp_path / "empty" / "x.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"found 1 files and none of them can \(x\.png: expected a PNG"):
        read(tmp_path / "empty", tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_names_that_command_a_terminal_or_are_no_utf8_are_told_as_their_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number, name in enumerate((b"a\x1b[2J.png", "b\u202egnp.png".encode(), b"c\xe9.png", b"d\x07.png")):
        write_gray(folder / os.fsdecode(name), number)
    (folder / os.fsdecode(b"e\x9b\xff.png")).write_bytes(b"no image")
    found = read(folder, tmp_path, 4, 4)
    assert sorted(found.calibration.image_ids) == [r"a\x1b[2J.png", r"b\u202egnp.png", r"c\udce9.png", r"d\x07.png"]
    assert all(line.isprintable() for line in found.skipped)
    assert len(unlabelled_data(found.calibration, Preprocessing("uint8", (0.0,) * 3, (1.0,) * 3, 8)).sha256) == 64


def test_a_decompression_bomb_is_passed_over(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(folder / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    found = read(folder, tmp_path, 41)
    assert len(found.calibration) == 40
    assert "decompression bomb" in found.skipped[0]


def test_quantizers_see_calibration_images_and_nothing_to_measure_accuracy_on(folder: Path, tmp_path: Path) -> None:
    calibration = read(folder, tmp_path).calibration
    data = unlabelled_data(calibration, Preprocessing("uint8", (0.0,) * 3, (1.0,) * 3, 8))
    assert sorted(choose_calibration_images(data, 8, seed=3)) == list(range(8))
    assert (data.channels, data.image_size) == (3, 8)
    assert len(data.validation) == len(data.test) == 0


def test_images_take_any_rectangle(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.arange(8 * 16, dtype=np.uint8).reshape(8, 16)).save(folder / "wide.png")
    shapes = {}
    for fit in ("pad", "stretch", "crop"):
        form = ImageForm(4, 1, fit, width=8)
        found = read_image_folder(folder, form, 41, 0, 0, tmp_path)
        shapes[fit] = found.calibration.pixels[found.calibration.image_ids.index("wide.png")].copy()
    # An image of the form's own proportions is neither padded nor cropped.
    assert shapes["pad"].shape == (1, 4, 8)
    assert np.array_equal(shapes["pad"], shapes["stretch"])
    assert np.array_equal(shapes["crop"], shapes["stretch"])


def test_the_brightest_file_of_the_folder_says_how_many_bits_are_used(tmp_path):
    folder = tmp_path / "deep"
    folder.mkdir()
    for index in range(8):
        pixels = np.full((8, 8), 1600 + index if index else 4000, np.uint16)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    found = read_image_folder(folder, ImageForm(8, 1, "stretch"), 8, 0, 0, tmp_path)
    assert sorted(set(found.calibration.pixels.reshape(8, -1).max(axis=1).tolist())) == [100, 250]
