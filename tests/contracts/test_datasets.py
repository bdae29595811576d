"""What every row of `DATASETS` must keep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from calibration_data.datasets import DATASETS, DatasetKind
from calibration_data.preparation import DataSettings, prepare, read_prepared, source_fingerprint
from calibration_data.prepared import SPLITS

ROWS = pytest.mark.parametrize("name", DATASETS)


def tiny_folder(root: Path) -> dict:
    for label in range(2):
        for index in range(6):
            pixels = np.random.default_rng(10 * label + index).integers(0, 255, (12, 10, 3)).astype(np.uint8)
            path = root / f"class{label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return {"root": str(root)}


def tiny_kvasir_seg(root: Path) -> dict:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    names = [f"img{index}" for index in range(10)]
    boxes = {}
    for index, name in enumerate(names):
        pixels = np.random.default_rng(index).integers(60, 240, (48, 64, 3)).astype(np.uint8)
        mask = np.zeros((48, 64), dtype=np.uint8)
        mask[8:24, 8:24] = 255
        Image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
        Image.fromarray(mask).save(root / "masks" / f"{name}.jpg")
        box = {"label": "polyp", "xmin": 8, "ymin": 8, "xmax": 24, "ymax": 24}
        boxes[name] = {"height": 48, "width": 64, "bbox": [box]}
    (root / "kavsir_bboxes.json").write_text(json.dumps(boxes))
    (root / "train.txt").write_text("\n".join(names[:7]))
    (root / "val.txt").write_text("\n".join(names[7:]))
    return {"root": str(root)}


TINY = {
    "digits": lambda root: {},
    "endoscopy": lambda root: {"frames_per_class": 6, "frame_size": 32},
    "folder": tiny_folder,
    "kvasir_seg": tiny_kvasir_seg,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, dict]:
    """Return settings for a tiny instance of every row."""
    return {name: {"name": name} | TINY[name](tmp_path_factory.mktemp(name)) for name in DATASETS}


def settings_of(sources: dict[str, dict], name: str):
    return DataSettings.model_validate({"source": sources[name]}).source


def test_every_row_has_a_tiny_instance_here():
    assert TINY.keys() == DATASETS.keys()


@ROWS
def test_the_row_is_keyed_by_its_settings_name_and_described(name):
    row = DATASETS[name]
    assert isinstance(row, DatasetKind)
    assert row.settings.model_fields["name"].default == name
    assert 20 < len(row.description) < 120
    assert row.synthetic == (name == "endoscopy")
    assert not row.synthetic or "synthetic" in row.description


@ROWS
def test_every_setting_has_a_description_and_unknown_ones_are_refused(name, sources):
    schema = DATASETS[name].settings.model_json_schema()
    assert all(field.get("description") for field in schema["properties"].values())
    with pytest.raises(ValidationError, match="colour_space"):
        DataSettings.model_validate({"source": sources[name] | {"colour_space": "lab"}})


@ROWS
def test_it_opens_the_same_way_twice(name, sources):
    settings = settings_of(sources, name)
    first, second = (DATASETS[name].open(settings) for _ in range(2))
    assert first.records == second.records
    assert first.name == name
    assert first.synthetic == DATASETS[name].synthetic
    for record in first.records[::5]:
        one, other = first.load(record), second.load(record)
        assert np.array_equal(one.pixels, other.pixels)
        assert (one.mask is None and other.mask is None) or np.array_equal(one.mask, other.mask)


@ROWS
def test_records_are_well_formed(name, sources):
    dataset = DATASETS[name].open(settings_of(sources, name))
    ids = [record.image_id for record in dataset.records]
    assert len(set(ids)) == len(ids)
    assert {record.label for record in dataset.records} == set(range(len(dataset.classes)))
    assert len(set(dataset.classes)) == len(dataset.classes) >= 2
    assert all(len(record.sha256) == 64 and record.group for record in dataset.records)


@ROWS
def test_frames_are_uint8_gray_or_rgb_with_masks_of_their_size(name, sources):
    dataset = DATASETS[name].open(settings_of(sources, name))
    for record in dataset.records[::7]:
        frame = dataset.load(record)
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.ndim == 3
        assert frame.pixels.shape[2] in (1, 3)
        if frame.mask is not None:
            assert frame.mask.dtype == np.bool_
            assert frame.mask.shape == frame.pixels.shape[:2]


@ROWS
def test_the_fingerprint_is_stable(name, sources):
    settings = DataSettings.model_validate({"source": sources[name]})
    assert source_fingerprint(settings) == source_fingerprint(settings)
    assert len(source_fingerprint(settings)) == 64


@ROWS
def test_it_can_be_prepared_and_read_back(name, sources, tmp_path):
    data = prepare(DataSettings.model_validate({"source": sources[name], "image_size": 16}), tmp_path)
    again = read_prepared(tmp_path)
    assert again.sha256 == data.sha256
    assert again.dataset == name
    assert sum(len(again.split(split)) for split in SPLITS) == len(
        DATASETS[name].open(settings_of(sources, name)).records
    )


def test_the_rows_are_the_choices_of_the_configuration():
    schema = TypeAdapter(DataSettings).json_schema()
    assert set(schema["properties"]["source"]["discriminator"]["mapping"]) == set(DATASETS)
    with pytest.raises(ValidationError, match="imagenet"):
        DataSettings.model_validate({"source": {"name": "imagenet"}})


def test_the_table_loads_without_the_heavy_packages():
    heavy = "('PIL', 'sklearn', 'scipy', 'torch', 'onnxruntime', 'matplotlib')"
    code = f"import sys, calibration_data.preparation; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
