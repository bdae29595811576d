"""Preparation: geometry, statistics, what is written, and what is refused in one clear sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from calibration_data.dataset import Dataset, Frame, Record
from calibration_data.fitting import ImageForm, fit_frame
from calibration_data.preparation import prepare
from calibration_data.prepared import SPLITS, PreparedData
from calibration_data.prepared_folder import ARRAYS, FILES, read_prepared
from calibration_data.settings import DataSettings, open_source, source_fingerprint
from calibration_data.splits import SplitSettings, drop_leaking_images, split_records
from foundation.errors import ExitCode, UsageError
from foundation.files import sha256_of_file


def prepare_from(settings, folder, *progress):
    return prepare(open_source(settings), settings, folder, *progress)


def settings_for(root: Path, **values) -> DataSettings:
    return DataSettings.model_validate({"source": {"name": "folder", "root": str(root)}, "image_size": 16} | values)


# --- geometry ---


def wide_frame(channels: int = 3) -> Frame:
    """Return 20 × 40 pixels: black, with a white left half and a mask on it."""
    pixels = np.zeros((20, 40, channels), dtype=np.uint8)
    pixels[:, :20] = 255
    return Frame(pixels, pixels[:, :, 0] > 0)


def test_pad_keeps_the_proportions_and_lays_black_above_and_below():
    image, mask = fit_frame(wide_frame(), ImageForm(8, 3, "pad"))
    assert image.shape == (3, 8, 8)
    assert image[:, 2:6, :3].min() == 255
    assert image[:, :2].max() == image[:, 6:].max() == image[:, :, 5:].max() == 0
    assert mask is not None
    assert np.array_equal(mask, np.pad(np.tile([True] * 4 + [False] * 4, (4, 1)), ((2, 2), (0, 0))))


def test_stretch_fills_the_square():
    image, mask = fit_frame(wide_frame(), ImageForm(8, 3, "stretch"))
    assert image[:, :, :3].min() == 255
    assert mask is not None
    assert np.array_equal(mask, np.tile([True] * 4 + [False] * 4, (8, 1)))


def test_crop_takes_the_central_square():
    image, mask = fit_frame(wide_frame(), ImageForm(8, 3, "crop"))
    # The central 20 columns of 40 are half white, half black.
    assert image[:, :, :3].min() == 255
    assert image[:, :, 5:].max() == 0
    assert mask is not None
    assert int(mask.sum()) == 32


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1), (7, 7), (33, 20)])
def test_any_proportions_fit(fit, shape):
    image, mask = fit_frame(Frame(np.full((*shape, 3), 9, np.uint8), np.ones(shape, bool)), ImageForm(8, 3, fit))
    assert image.max() == 9
    assert mask is not None
    assert mask.any()
    assert np.array_equal(image[0] > 0, mask)


def test_masks_are_resized_without_values_between():
    checkers = (np.indices((31, 31)).sum(axis=0) % 2).astype(bool)
    _, mask = fit_frame(Frame(np.zeros((31, 31, 1), np.uint8), checkers), ImageForm(31, 1, "stretch"))
    assert np.array_equal(mask, checkers)


def test_colour_becomes_gray_by_brightness_and_gray_becomes_equal_channels():
    frame = Frame(np.full((4, 4, 3), (200, 100, 50), np.uint8), None)
    gray, _ = fit_frame(frame, ImageForm(8, 1, "pad"))
    assert np.unique(gray).tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]
    colour, mask = fit_frame(Frame(np.full((4, 4, 1), 77, np.uint8), None), ImageForm(8, 3, "pad"))
    assert np.unique(colour).tolist() == [77]
    assert colour.shape == (3, 8, 8)
    assert mask is None


# --- the result ---


def test_what_is_written_is_what_is_returned(two_classes, tmp_path):
    data = prepare_from(settings_for(two_classes), tmp_path / "data")
    again = read_prepared(tmp_path / "data")
    assert {path.name for path in (tmp_path / "data").iterdir()} == set(FILES)
    for name in SPLITS:
        one, other = data.split(name), again.split(name)
        for key in ARRAYS:
            assert np.array_equal(getattr(one, key), getattr(other, key))
            assert getattr(one, key).dtype == getattr(other, key).dtype
        assert (one.image_ids, one.groups, one.subgroups, one.sha256) == (
            other.image_ids, other.groups, other.subgroups, other.sha256
        )  # fmt: skip
    assert (data.mean, data.std, data.classes, data.sha256) == (again.mean, again.std, again.classes, again.sha256)


def test_sha256_is_that_of_the_file(two_classes, tmp_path):
    data = prepare_from(settings_for(two_classes), tmp_path)
    for image_id, sha256 in zip(data.train.image_ids, data.train.sha256, strict=True):
        assert sha256 == sha256_of_file(two_classes / image_id)


def test_the_same_images_give_the_same_bytes_wherever_they_lie(two_classes, tmp_path):
    prepare_from(settings_for(two_classes), tmp_path / "one")
    moved = tmp_path / "moved"
    shutil.copytree(two_classes, moved)
    prepare_from(settings_for(moved), tmp_path / "two")
    prepare_from(settings_for(moved), tmp_path / "two")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert source_fingerprint(settings_for(two_classes)) == source_fingerprint(settings_for(moved))


def test_mean_and_std_are_of_the_training_images_alone(two_classes, tmp_path):
    data = prepare_from(settings_for(two_classes), tmp_path)
    scaled = data.train.images.astype(np.float64) / 255
    assert data.mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), abs=1e-12)
    assert data.std == pytest.approx(scaled.std(axis=(0, 2, 3)), abs=1e-12)


def test_constant_images_have_the_smallest_std(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(3):
            Image.new("L", (8, 8), 100).save(tmp_path / label / f"{index}.png", dpi=(index + 10, 10))
    for path in tmp_path.rglob("b/*.png"):  # other bytes, so that no image is twice there
        Image.open(path).save(path, dpi=(99, int(path.stem) + 10))
    data = prepare_from(settings_for(tmp_path, channels=1), tmp_path / "out")
    assert data.mean == (100 / 255,)
    assert data.std == (0.001,)


def test_mean_and_std_can_be_given(two_classes, tmp_path):
    data = prepare_from(settings_for(two_classes, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]), tmp_path)
    assert data.mean == read_prepared(tmp_path).mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)


def test_progress_counts_every_image(two_classes, tmp_path):
    calls: list[tuple[int, int]] = []
    prepare_from(settings_for(two_classes), tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(done, 16) for done in range(1, 17)]


def test_masks_reach_the_arrays(two_classes, tmp_path):
    mask = Image.new("L", (20, 16))
    mask.paste(255, (0, 0, 20, 8))
    mask.save(two_classes / "cat" / "P3_cat_mask.png")
    data = prepare_from(settings_for(two_classes, fit="stretch"), tmp_path)
    found = [
        (data.split(name), i) for name in SPLITS for i in range(len(data.split(name))) if data.split(name).has_mask[i]
    ]
    ((split, index),) = found
    assert split.image_ids[index] == "cat/P3_cat.png"
    assert split.masks[index, :8].all()
    assert not split.masks[index, 8:].any()


def test_files_that_are_no_images_are_listed(two_classes, tmp_path):
    (two_classes / "cat" / "notes.txt").touch()
    data = prepare_from(settings_for(two_classes), tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["ignored"] == ["cat/notes.txt"]
    assert data.ignored == read_prepared(tmp_path).ignored == ("cat/notes.txt",)
    assert (data.skipped, data.dropped, data.merged) == ((), (), ())


# --- bad images ---


def spoil(root: Path) -> dict[str, str]:
    """Add one file of each bad kind; return a word of the reason for each."""
    whole = (root / "cat" / "P0_cat.png").read_bytes()
    (root / "cat" / "bad0.png").write_bytes(b"")
    (root / "cat" / "bad1.png").write_bytes(whole[:200])
    (root / "cat" / "bad2.jpg").write_bytes(b"<html>not found</html>")
    Image.new("L", (4, 4)).save(root / "cat" / "bad3.gif")
    (root / "cat" / "bad3.gif").rename(root / "cat" / "bad3.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(root / "cat" / "bad4.tiff")
    return {
        "cat/bad0.png": "zero bytes",
        "cat/bad1.png": "damaged",
        "cat/bad2.jpg": "other content",
        "cat/bad3.png": "other content",
        "cat/bad4.tiff": "found 32",
    }


def test_a_bad_image_is_an_error_that_names_it_and_the_mend(two_classes, tmp_path):
    (two_classes / "dog" / "zero.png").touch()
    with pytest.raises(UsageError, match=r"dog/zero.png: expected an image.*`bad_images: skip`") as caught:
        prepare_from(settings_for(two_classes), tmp_path / "data")
    assert caught.value.exit_code == ExitCode.USAGE
    assert list((tmp_path / "data").iterdir()) == []


def test_bad_images_are_skipped_counted_and_listed(two_classes, tmp_path):
    reasons = spoil(two_classes)
    data = prepare_from(settings_for(two_classes, bad_images="skip"), tmp_path)
    assert sum(len(data.split(name)) for name in SPLITS) == 16
    assert len(data.skipped) == 5
    for line, (image_id, reason) in zip(data.skipped, reasons.items(), strict=True):
        assert line.startswith(f"{image_id}: ")
        assert reason in line
    assert read_prepared(tmp_path).skipped == data.skipped


def test_skipped_images_change_nothing_for_the_others(two_classes, tmp_path):
    clean = prepare_from(settings_for(two_classes), tmp_path / "clean")
    spoil(two_classes)
    assert prepare_from(settings_for(two_classes, bad_images="skip"), tmp_path / "spoilt").sha256 == clean.sha256


def test_a_class_of_bad_images_alone_is_refused(two_classes, tmp_path):
    (two_classes / "elk").mkdir()
    for index in range(5):
        (two_classes / "elk" / f"{index}.png").write_bytes(b"bad")
    with pytest.raises(UsageError, match="class 'elk': expected images, found none that can be used"):
        prepare_from(settings_for(two_classes, bad_images="skip"), tmp_path)


def test_an_empty_class_folder_is_refused(two_classes, tmp_path):
    (two_classes / "elk").mkdir()
    with pytest.raises(UsageError, match=r"class 'elk': expected 3 images or more, .* found 0\. .* remove the class"):
        prepare_from(settings_for(two_classes), tmp_path)


def test_all_classes_of_too_few_images_are_named_before_any_image_is_decoded(two_classes, write_image, tmp_path):
    (two_classes / "elk").mkdir()
    for index in range(2):
        write_image(two_classes / "fox" / f"{index}.png", seed=300 + index)
    decoded: list[int] = []
    with pytest.raises(UsageError, match=r"classes 'elk', 'fox': expected 3 images or more each, .* found 0, 2"):
        prepare_from(settings_for(two_classes), tmp_path, lambda done, total: decoded.append(done))
    assert decoded == []


def test_where_nothing_is_trained_classes_may_be_small_or_empty(two_classes, write_image, tmp_path):
    (two_classes / "elk").mkdir()
    write_image(two_classes / "fox" / "0.png", seed=300)
    settings = settings_for(two_classes)
    data = prepare(open_source(settings), settings, tmp_path, training=False)
    assert data.classes == ("cat", "dog", "elk", "fox")
    assert sum(len(data.split(name)) for name in SPLITS) == 17


# --- gray of 16 bits ---


def deep_images(root: Path, largest: dict[str, int]) -> Path:
    """Write class folders a and b of six flat 16-bit images each, told apart by a corner; `largest` by path."""
    for name, label in (("a", 0), ("b", 1)):
        (root / name).mkdir(parents=True)
        for index in range(6):
            path = f"{name}/{index}.png"
            pixels = np.full((8, 8), largest.get(path, 1000), np.uint16)
            pixels[0, 0] = 6 * label + index
            Image.fromarray(pixels).save(root / path)
    return root


def brightness(data: PreparedData) -> dict[str, int]:
    splits = [data.split(name) for name in SPLITS]
    return {
        image_id: int(pixels.max())
        for split in splits
        for image_id, pixels in zip(split.image_ids, split.images, strict=True)
    }


@pytest.mark.parametrize(("brightest", "bits"), [(1000, 10), (4095, 12), (9000, 14), (60000, 16)])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_brightest_image_says_for_all_how_many_bits_are_used(tmp_path, brightest, bits, workers):
    root = deep_images(tmp_path / "images", {"b/5.png": brightest})
    data = prepare_from(
        settings_for(root, channels=1, fit="stretch", image_size=8, workers=workers), tmp_path / "out"
    )
    found = brightness(data)
    assert found["a/0.png"] == 1000 >> (bits - 8)
    assert found["b/5.png"] == brightest >> (bits - 8)
    assert data.bits == read_prepared(tmp_path / "out").bits == bits


def test_images_of_8_bits_before_those_of_16_stay_as_they_are(tmp_path):
    root = deep_images(tmp_path / "images", {})
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(root / "a" / "0.png")
    data = prepare_from(settings_for(root, channels=1, image_size=8), tmp_path / "out")
    assert brightness(data)["a/0.png"] == 200
    assert brightness(data)["a/1.png"] == 1000 >> 2


def test_bits_that_are_told_are_taken_and_what_does_not_fit_is_a_bad_image(tmp_path):
    root = deep_images(tmp_path / "images", {"b/5.png": 5000})
    settings = settings_for(root, channels=1, image_size=8, bits=12)
    with pytest.raises(UsageError, match=r"b/5.png: expected values of 12 bits \(`data.bits`\), found 5000"):
        prepare_from(settings, tmp_path / "out")
    data = prepare_from(settings.model_copy(update={"bad_images": "skip"}), tmp_path / "out")
    assert len(data.skipped) == 1
    assert brightness(data)["a/0.png"] == 1000 >> 4


def test_images_of_8_bits_have_no_bits_to_tell(two_classes, tmp_path):
    assert prepare_from(settings_for(two_classes), tmp_path).bits is None


# --- the outputs of a model ---


def test_masks_stay_with_their_images_when_labels_become_a_models_outputs(kvasir_like, tmp_path):
    settings = DataSettings.model_validate(
        {"source": {"name": "kvasir_seg", "root": str(kvasir_like)}, "image_size": 16}
    )
    outputs = ("artefact", "polyp", "mucosa")
    data = prepare(open_source(settings), settings, tmp_path, training=False, classes=outputs)
    found = set()
    for split in (data.split(name) for name in SPLITS):
        for image_id, label, has_mask in zip(split.image_ids, split.labels, split.has_mask, strict=True):
            assert outputs[label] == image_id.split("/")[1]
            found.add((outputs[label], bool(has_mask)))
    assert found == {("polyp", True), ("mucosa", False)}


def shown_mask(record: Record) -> Frame:
    """Return an image whose mask shows the first class of its own data set."""
    return Frame(np.full((8, 8, 1), int(record.image_id), np.uint8), np.eye(8, dtype=bool), mask_class=0)


def test_the_class_that_a_mask_shows_becomes_an_output_too(tmp_path):
    records = tuple(Record(str(i), (0, 1), str(i), (), None, f"{i:064d}") for i in range(9))
    dataset = Dataset("mine", ("mass", "nodule"), records, synthetic=False, load=shown_mask, task="multi_label")
    settings = settings_for(tmp_path, workers=0)
    data = prepare(dataset, settings, tmp_path, training=False, classes=("nodule", "effusion", "mass"))
    assert set(data.train.mask_class.tolist()) == {2}
    assert data.train.labels[0].tolist() == [1, 0, 1]


def test_one_class_only_is_refused(two_classes, tmp_path):
    shutil.rmtree(two_classes / "dog")
    with pytest.raises(UsageError, match="expected two classes or more, found cat"):
        prepare_from(settings_for(two_classes), tmp_path)


def test_a_missing_root_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere: expected a folder, found nothing"):
        prepare_from(settings_for(tmp_path / "nowhere"), tmp_path)
    with pytest.raises(UsageError, match="nowhere: expected a folder, found nothing"):
        source_fingerprint(settings_for(tmp_path / "nowhere"))


def test_equal_files_in_two_splits_are_refused_or_kept_together(two_classes, tmp_path):
    for index in range(6):
        shutil.copy(two_classes / "cat" / "P0_cat.png", two_classes / "cat" / f"copy{index}.png")
    with pytest.raises(UsageError, match=r"cat/.*are equal: expected no image in two splits.*`duplicates: merge`"):
        prepare_from(settings_for(two_classes), tmp_path)
    data = prepare_from(settings_for(two_classes, duplicates="merge"), tmp_path)
    holding = [name for name in SPLITS if "cat/copy0.png" in data.split(name).image_ids]
    copies = [image_id for image_id in data.split(holding[0]).image_ids if "copy" in image_id]
    assert len(copies) == 6
    assert data.merged == read_prepared(tmp_path).merged
    assert sorted(data.merged) == ["cat/P0_cat.png", *(f"cat/copy{index}.png" for index in range(6))]
    assert (data.dropped, data.skipped) == ((), ())


def test_equal_images_of_one_group_were_not_merged(two_classes, tmp_path):
    shutil.copy(two_classes / "cat" / "P0_cat.png", two_classes / "cat" / "P0_again.png")
    source = {"name": "folder", "root": str(two_classes), "group_pattern": r"^(P\d+)_"}
    data = prepare_from(settings_for(two_classes, source=source, duplicates="merge"), tmp_path)
    assert data.merged == ()
    assert data.groups_known
    assert read_prepared(tmp_path).groups_known


def test_images_left_out_for_an_equal_one_are_no_unreadable_ones(tmp_path):
    settings = DataSettings.model_validate(
        {
            "source": {"name": "custom", "factory": "custom_sources:one_of_training_in_test"},
            "image_size": 16,
            "duplicates": "drop",
        }
    )
    data = prepare_from(settings, tmp_path)
    assert data.dropped == read_prepared(tmp_path).dropped == ("dark/0: equal to dark/9, which stands in test",)
    assert (data.skipped, data.merged) == ((), ())


# --- damaged folders ---


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(two_classes, tmp_path, name):
    prepare_from(settings_for(two_classes), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UsageError, match=f"{name}: expected a file, found nothing"):
        read_prepared(tmp_path)


@pytest.mark.parametrize("name", FILES[:5])
def test_a_changed_file_is_named(two_classes, tmp_path, name):
    prepare_from(settings_for(two_classes), tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name}: expected the sha256"):
        read_prepared(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"format_version": 99}',
        b'{"format_version": 2}',
        b'{"format_version": 2, "splits": 3}',
    ],
)
def test_a_damaged_manifest_is_refused(two_classes, tmp_path, content):
    prepare_from(settings_for(two_classes), tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"manifest.json: expected"):
        read_prepared(tmp_path)


def test_a_failed_preparation_leaves_no_manifest_for_half_a_folder(two_classes, tmp_path, monkeypatch):
    prepare_from(settings_for(two_classes), tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(UsageError, match=r"train.images.npy: could not be written \(No space left on device\)"):
        prepare_from(settings_for(two_classes, image_size=8), tmp_path)
    with pytest.raises(UsageError, match=r"manifest.json: expected a file, found nothing"):
        read_prepared(tmp_path)


# --- settings ---


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 4}, "greater than or equal to 8"),
        ({"image_size": "64"}, "valid integer"),
        ({"channels": 2}, "1 or 3"),
        ({"fit": "zoom"}, "'pad', 'stretch' or 'crop'"),
        ({"mean": [0.5, 0.5, 0.5]}, "mean and std belong together"),
        ({"mean": [0.5], "std": [0.2]}, "mean must have 3 values, one per channel; it has 1"),
        ({"mean": [0.5] * 3, "std": [0.2, 0.2, 0.0]}, "std must be at least 0.001"),
        ({"mean": ["a"] * 3, "std": [0.2] * 3}, "valid number"),
        ({"bad_images": "ignore"}, "'error' or 'skip'"),
        ({"duplicates": "keep"}, "'error', 'merge' or 'drop'"),
        ({"workers": -1}, "greater than or equal to 0"),
        ({"split": {"train": 0.9}}, "must sum to 1, they sum to 1.2"),
        ({"sizes": 3}, "Extra inputs are not permitted"),
        ({"source": {"name": "folder"}}, "Field required"),
        ({"source": {"name": "folder", "root": 3}}, "not a valid path"),
        ({"source": {}}, "discriminator 'name'"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, values, message):
    with pytest.raises(ValidationError, match=message):
        settings_for(tmp_path, **values)


# --- many images ---


def test_worker_processes_give_the_same_bytes(two_classes, tmp_path):
    prepare_from(settings_for(two_classes, workers=0), tmp_path / "one")
    prepare_from(settings_for(two_classes, workers=2), tmp_path / "two")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_images_and_masks_stay_on_disk_until_they_are_taken(two_classes, tmp_path):
    data = prepare_from(settings_for(two_classes), tmp_path)
    for split in SPLITS:
        for array in (data.split(split).images, data.split(split).masks):
            assert isinstance(array.base, np.memmap)


def test_of_equal_images_those_on_the_strictest_side_are_kept():
    records = [
        Record("a", 0, "a", (), "train", "1" * 64),
        Record("b", 0, "b", (), "validation", "1" * 64),
        Record("c", 0, "c", (), "test", "1" * 64),
        Record("c again", 0, "c2", (), "test", "1" * 64),
        Record("d", 0, "d", (), "train", "2" * 64),
        Record("e", 0, "e", (), None, "2" * 64),
    ]
    kept, dropped = drop_leaking_images(records)
    assert [record.image_id for record in kept] == ["c", "c again", "d", "e"]
    assert dropped == ["a: equal to c, which stands in test", "b: equal to c, which stands in test"]


def test_labels_of_a_multi_label_task_are_divided_each_in_the_same_proportions():
    rng = np.random.default_rng(0)
    records = [
        Record(str(i), tuple(np.flatnonzero(found).tolist()), str(i // 2), (), None, f"{i:064d}")
        for i, found in enumerate(rng.random((800, 3)) < (0.5, 0.2, 0.05))
    ]
    assignment = split_records(records, ("common", "rare", "rarest"), SplitSettings(), task="multi_label")
    for label in range(3):
        sides = [side for record, side in zip(records, assignment, strict=True) if label in record.label]
        assert sides.count("train") / len(sides) == pytest.approx(0.7, abs=0.05)
        assert sides.count("test") > 0
    groups = {(record.group, side) for record, side in zip(records, assignment, strict=True)}
    assert len(groups) == 400


def test_a_crop_may_keep_a_share_of_the_short_side_as_resize_and_centre_crop_do():
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 1))
    whole, _ = fit_frame(Frame(ramp, None), ImageForm(224, 1, "crop"))
    central, _ = fit_frame(Frame(ramp, None), ImageForm(224, 1, "crop", crop_share=0.875))
    assert (int(whole[0, 0, 0]), int(whole[0, 0, -1])) == (0, 255)
    assert central[0, 0].tolist() == list(range(16, 240))  # not a pixel is resized
