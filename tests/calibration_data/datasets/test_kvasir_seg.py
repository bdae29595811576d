"""Crops of Kvasir-SEG: on a small set of the same structure, and on the real one where it is at hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from calibration_data.dataset import BadImageError
from calibration_data.datasets.kvasir_seg import KvasirSegSettings, fingerprint_kvasir_seg, open_kvasir_seg
from foundation.errors import UsageError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "kvasir_seg"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs Kvasir-SEG in ../shared/data/kvasir_seg")


def opened(root: Path):
    return open_kvasir_seg(KvasirSegSettings(root=root))


def crops(dataset, name: str):
    return [dataset.load(record) for record in dataset.records if record.label == dataset.classes.index(name)]


def edit_boxes(root: Path, change) -> None:
    path = root / "kavsir_bboxes.json"
    boxes = json.loads(path.read_text())
    change(boxes)
    path.write_text(json.dumps(boxes))


def test_each_image_gives_a_polyp_and_where_it_fits_mucosa(kvasir_like):
    dataset = opened(kvasir_like)
    assert dataset.classes == ("mucosa", "polyp")
    assert [record.image_id for record in dataset.records[:2]] == ["img00/polyp", "img00/mucosa"]
    assert Counter(record.label for record in dataset.records)[1] == 12
    assert all(record.group == record.image_id.split("/")[0] for record in dataset.records)


def test_the_authors_validation_images_are_the_test_split(kvasir_like):
    sides = {record.group: record.official_split for record in opened(kvasir_like).records}
    assert Counter(sides.values()) == {"train": 8, "test": 4}
    assert sides["img08"] == "test"


def test_a_polyp_crop_is_a_square_around_the_whole_lesion(kvasir_like):
    for index, frame in enumerate(crops(opened(kvasir_like), "polyp")):
        lesion = 14 + index
        assert frame.pixels.shape[0] == frame.pixels.shape[1]
        assert lesion <= frame.pixels.shape[0] <= 1.4 * lesion
        assert frame.mask is not None
        assert frame.mask.shape == frame.pixels.shape[:2]
        assert abs(int(frame.mask.sum()) - lesion**2) <= 2 * lesion  # JPEG blurs the edge
        assert frame.pixels[frame.mask].min() > 180


def test_a_mucosa_crop_shows_nothing_of_the_lesion(kvasir_like):
    frames = crops(opened(kvasir_like), "mucosa")
    assert len(frames) >= 8
    for frame in frames:
        assert frame.mask is None
        assert frame.pixels.max() < 180


def test_a_lesion_that_fills_the_image_leaves_no_mucosa(kvasir_like):
    def fill(boxes):
        boxes["img00"]["bbox"][0] = {"label": "polyp", "xmin": 0, "ymin": 0, "xmax": 80, "ymax": 64}

    edit_boxes(kvasir_like, fill)
    dataset = opened(kvasir_like)
    assert "img00/mucosa" not in {record.image_id for record in dataset.records}
    assert dataset.load(dataset.records[0]).pixels.shape == (64, 64, 3)


def test_mucosa_avoids_every_box_and_the_polyp_crop_takes_the_largest(kvasir_like):
    def add_second(boxes):
        boxes["img00"]["bbox"].append({"label": "polyp", "xmin": 30, "ymin": 0, "xmax": 80, "ymax": 40})

    edit_boxes(kvasir_like, add_second)
    polyp, *rest = [opened(kvasir_like).load(r) for r in opened(kvasir_like).records if r.group == "img00"]
    assert polyp.pixels.shape[0] == 55  # 1.1 × 50
    for mucosa in rest:
        assert mucosa.pixels.shape[0] <= 24  # below the second box, or beside the first


def test_the_fingerprint_sees_masks_and_lists(kvasir_like):
    settings = KvasirSegSettings(root=kvasir_like)
    seen = {fingerprint_kvasir_seg(settings)}
    (kvasir_like / "masks" / "img00.jpg").write_bytes((kvasir_like / "masks" / "img01.jpg").read_bytes())
    seen.add(fingerprint_kvasir_seg(settings))
    (kvasir_like / "val.txt").write_text("img08 img09 img10")
    seen.add(fingerprint_kvasir_seg(settings))
    assert len(seen) == 3


@pytest.mark.parametrize(
    "missing", ["train.txt", "val.txt", "kavsir_bboxes.json", "images/img03.jpg", "masks/img09.jpg"]
)
def test_a_missing_file_is_named(kvasir_like, missing):
    (kvasir_like / missing).unlink()
    with pytest.raises(UsageError, match=f"{missing}: expected"):
        opened(kvasir_like)


@pytest.mark.parametrize("name", ["img03", "img09"])
def test_a_name_listed_twice_is_refused(kvasir_like, name):
    with (kvasir_like / "val.txt").open("a") as stream:
        stream.write(f"{name}\n")
    with pytest.raises(UsageError, match=f"{name} is listed twice"):
        opened(kvasir_like)


def test_a_name_that_leaves_the_folder_is_refused(kvasir_like):
    outside = kvasir_like.parent / "outside.jpg"
    outside.write_bytes((kvasir_like / "images" / "img00.jpg").read_bytes())
    (kvasir_like / "val.txt").write_text("../../outside\n")
    with pytest.raises(UsageError, match="expected a file below"):
        opened(kvasir_like)


@pytest.mark.parametrize(
    "content", ["[]", '{"img00": {}}', '{"img00": {"width": 8, "height": 8, "bbox": [{"xmin": 1}]}}']
)
def test_boxes_of_another_structure_are_refused(kvasir_like, content):
    (kvasir_like / "kavsir_bboxes.json").write_text(content)
    with pytest.raises(UsageError, match=r"kavsir_bboxes.json: expected the authors' boxes, found another structure"):
        opened(kvasir_like)


def test_an_image_without_boxes_is_refused(kvasir_like):
    edit_boxes(kvasir_like, lambda boxes: boxes.pop("img04"))
    with pytest.raises(UsageError, match="expected boxes of img04"):
        opened(kvasir_like)
    edit_boxes(kvasir_like, lambda boxes: boxes["img05"].update(bbox=[]))
    with pytest.raises(UsageError, match=r"expected at least one box and 16 pixels for img05"):
        opened(kvasir_like)


def test_a_damaged_image_is_a_bad_image_and_gives_one_record(kvasir_like):
    path = kvasir_like / "images" / "img00.jpg"
    path.write_bytes(path.read_bytes()[:300])
    dataset = opened(kvasir_like)
    assert [record.image_id for record in dataset.records if record.group == "img00"] == ["img00/polyp"]
    with pytest.raises(BadImageError):
        dataset.load(dataset.records[0])


def test_boxes_for_another_size_make_a_bad_image(kvasir_like):
    edit_boxes(kvasir_like, lambda boxes: boxes["img00"].update(width=160))
    dataset = opened(kvasir_like)
    with pytest.raises(BadImageError, match="expected 160 × 64 pixels"):
        dataset.load(dataset.records[0])


@needs_real
@pytest.mark.long
def test_the_real_set_has_736_polyps_and_its_classes_are_not_told_apart_by_size_or_borders():
    dataset = opened(REAL)
    found = Counter((record.official_split, record.label) for record in dataset.records)
    assert found["train", 1] == 616
    assert found["test", 1] == 120
    assert found["train", 0] + found["test", 0] > 0.9 * 736
    boxes = json.loads((REAL / "kavsir_bboxes.json").read_text())
    sides, black, labels = [], [], []
    for record in dataset.records:
        pixels = dataset.load(record).pixels
        entry = boxes[record.group]
        sides.append(pixels.shape[0] / min(entry["width"], entry["height"]))
        black.append(float((pixels <= 24).all(axis=2).mean()))
        labels.append(record.label)
    assert abs(roc_auc_score(labels, sides) - 0.5) < 0.1
    assert abs(roc_auc_score(labels, black) - 0.5) < 0.1
    polyps = np.array(labels) == 1
    assert np.median(np.array(sides)[polyps]) == pytest.approx(np.median(np.array(sides)[~polyps]), abs=0.04)
    assert np.mean(np.array(black)[polyps]) == pytest.approx(np.mean(np.array(black)[~polyps]), abs=0.01)
