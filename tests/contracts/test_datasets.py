"""What every row of `DATASETS` must keep."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from tiny_sources import TINY

from calibration_data.datasets import DATASETS, DatasetKind
from calibration_data.preparation import prepare
from calibration_data.prepared import SPLITS
from calibration_data.prepared_folder import read_prepared
from calibration_data.settings import DataSettings, open_source, source_fingerprint
from foundation.errors import UsageError

ROWS = pytest.mark.parametrize("name", DATASETS)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Unpack archives into a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
    assert all(isinstance(image_id, str) and image_id for image_id in ids)
    assert len(set(dataset.classes)) == len(dataset.classes) >= 2
    for record in dataset.records:
        assert len(record.sha256) == 64
        assert record.group
        assert record.official_split in (None, *SPLITS)


@ROWS
def test_a_source_says_whether_it_names_patients(name, sources):
    dataset = DATASETS[name].open(settings_of(sources, name))
    named = ("chestxray14", "custom", "dicom", "endoscopy", "ham10000", "table")  # as the tiny instances are
    assert dataset.groups_known == (name in named)


@ROWS
def test_an_image_is_in_one_subgroup_of_an_axis_at_most(name, sources):
    for record in DATASETS[name].open(settings_of(sources, name)).records:
        assert all(record.subgroups)
        axes = [subgroup.rpartition(": ")[0] for subgroup in record.subgroups]
        assert len(set(axes)) == len(axes)


@ROWS
def test_labels_fit_the_task_and_every_class_occurs(name, sources):
    dataset = DATASETS[name].open(settings_of(sources, name))
    labels = [record.label for record in dataset.records]
    if dataset.task == "multi_class":
        assert {type(label) for label in labels} == {int}
        occurring = set(labels)
    else:
        assert {type(label) for label in labels} == {tuple}
        assert all(list(label) == sorted(set(label)) for label in labels)
        assert () in labels  # an image without a finding is an image too
        occurring = {one for label in labels for one in label}
    assert occurring == set(range(len(dataset.classes)))


@ROWS
def test_the_load_survives_pickling_and_holds_no_pixels(name, sources):
    dataset = DATASETS[name].open(settings_of(sources, name))
    pickled = pickle.dumps(dataset.load)
    assert len(pickled) < 400 * len(dataset.records)
    record = dataset.records[-1]
    assert np.array_equal(pickle.loads(pickled)(record).pixels, dataset.load(record).pixels)


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
        else:
            assert frame.mask_class is None
        assert frame.mask_class is None or 0 <= frame.mask_class < len(dataset.classes)


@ROWS
def test_the_fingerprint_is_stable(name, sources):
    settings = DataSettings.model_validate({"source": sources[name]})
    assert source_fingerprint(settings) == source_fingerprint(settings)
    assert len(source_fingerprint(settings)) == 64


@ROWS
def test_the_fingerprint_sees_every_file_and_not_where_they_lie(name, sources, tmp_path):
    if "root" not in sources[name]:
        pytest.skip("it has no files")
    source = Path(sources[name]["root"])
    copy = tmp_path / source.name
    if source.is_dir():
        shutil.copytree(source, copy)
    else:
        shutil.copy(source, copy)
    settings = DataSettings.model_validate({"source": sources[name] | {"root": str(copy)}})
    first = source_fingerprint(settings)
    assert first == source_fingerprint(DataSettings.model_validate({"source": sources[name]}))
    for path in [copy] if copy.is_file() else sorted(path for path in copy.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert changed(settings, first), path.name
        path.write_bytes(content)


def changed(settings: DataSettings, first: str) -> bool:
    """Return whether the fingerprint is another, or the damage was seen already."""
    try:
        return source_fingerprint(settings) != first
    except UsageError:
        return True


@ROWS
def test_it_can_be_prepared_and_read_back(name, sources, tmp_path):
    settings = DataSettings.model_validate({"source": sources[name], "image_size": 16})
    data = prepare(open_source(settings), settings, tmp_path)
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
