"""A user's own function: what keeps the contract is passed on, what breaks it is named."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from functools import partial

import custom_sources
import numpy as np
import pytest
from custom_sources import REASON, three_of_each, wrong_load
from pydantic import ValidationError

from calibration_data.dataset import BadImageError, Frame
from calibration_data.datasets.custom import CustomSettings, fingerprint_custom, open_custom
from foundation.errors import UsageError


def opened(function: str = "three_of_each", **settings):
    return open_custom(CustomSettings(factory=f"custom_sources:{function}", **settings))


@pytest.fixture
def returns(monkeypatch):
    """Return a function that makes the user's function return a changed data set, and opens that."""

    def change(**changed):
        monkeypatch.setattr(custom_sources, "changed", lambda: replace(three_of_each(), **changed), raising=False)
        return opened("changed")

    return change


def test_it_is_called_with_its_options_or_without_any():
    assert len(opened().records) == 6
    assert len(opened(options={"count": 5}).records) == 10
    assert opened().name == "custom"


def test_pixels_come_through_also_after_pickling():
    dataset = opened()
    load = pickle.loads(pickle.dumps(dataset.load))
    assert load(dataset.records[2]).pixels.tolist() == np.full((8, 8, 1), 2).tolist()


@pytest.mark.parametrize(
    "factory", ["module", "module:", ":function", "a b:c", "os:system('x')", "../a:b", "a:b:c", ""]
)
def test_a_name_of_another_form_is_refused_before_anything_is_imported(factory):
    with pytest.raises(ValidationError, match="expected module:function"):
        CustomSettings(factory=factory)


def test_a_missing_module_or_function_is_named():
    with pytest.raises(UsageError, match=r"module 'no_such_module' .* ModuleNotFoundError.*PYTHONPATH"):
        open_custom(CustomSettings(factory="no_such_module:f"))
    with pytest.raises(
        UsageError, match="expected a function 'missing' in custom_sources, found nothing of that name"
    ):
        opened("missing")
    with pytest.raises(UsageError, match="expected a function 'not_a_function' in custom_sources, found int"):
        opened("not_a_function")


def test_a_module_that_fails_as_it_is_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_source.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="found ZeroDivisionError: division by zero"):
        open_custom(CustomSettings(factory="broken_source:f"))
    assert "broken_source" not in sys.modules


def test_what_a_function_raises_or_returns_instead_is_named():
    with pytest.raises(UsageError, match=r"custom_sources:failing failed with OSError: the disk is gone"):
        opened("failing")
    with pytest.raises(UsageError, match=r"expected a Dataset as its result, found list\. Mend the function"):
        opened("no_data_set")
    with pytest.raises(UsageError, match="custom_sources:failing failed with TypeError"):
        opened("failing", options={})


RECORDS = three_of_each().records


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": "regression"}, "a task out of multi_class, multi_label, found 'regression'"),
        ({"classes": ["dark", "bright"]}, "classes as a tuple, found list"),
        ({"classes": ("dark",)}, r"two class names or more, all different, found \('dark',\)"),
        ({"classes": ("dark", "dark")}, "two class names or more, all different"),
        ({"classes": (0, 1)}, "two class names or more, all different"),
        ({"records": ()}, "one record or more, found none"),
        ({"records": list(RECORDS)}, "records as a tuple, found list"),
        ({"records": (*RECORDS, "a")}, "every record to be a Record, found str"),
        ({"records": (*RECORDS, RECORDS[0])}, r"image_ids that differ, found \['dark/0'\] twice"),
        ({"synthetic": 1}, "synthetic to be True or False, found 1"),
        ({"load": lambda record: None}, "a load that can be pickled for worker processes"),
        ({"load": 3}, "load to be a function, found int"),
        ({"task": "multi_label"}, r"a tuple of 'dark/0' of ascending labels from 0 to 1, found 0"),
    ],
)
def test_a_data_set_that_breaks_the_contract_is_named(returns, changed, message):
    with pytest.raises(UsageError, match=message):
        returns(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": 2}, "a label of 'dark/0' from 0 to 1, found 2"),
        ({"label": -1}, "a label of 'dark/0' from 0 to 1, found -1"),
        ({"label": True}, "a label of 'dark/0' from 0 to 1, found True"),
        ({"label": (0,)}, r"a label of 'dark/0' from 0 to 1, found \(0,\)"),
        ({"group": ""}, "a group of 'dark/0', found ''"),
        ({"subgroups": "dim"}, "a tuple of subgroups of 'dark/0', all different, found 'dim'"),
        ({"subgroups": ("dim", "dim")}, "a tuple of subgroups of 'dark/0', all different"),
        ({"subgroups": ("",)}, "a tuple of subgroups of 'dark/0'"),
        ({"official_split": "val"}, "out of train, validation, test .*, found 'val'"),
        ({"sha256": "abc"}, "a sha256 of 'dark/0' of 64 hexadecimal digits, found 'abc'"),
        ({"image_id": ""}, "an image_id, found ''"),
    ],
)
def test_a_record_that_breaks_the_contract_is_named(returns, changed, message):
    with pytest.raises(UsageError, match=message):
        returns(records=(replace(RECORDS[0], **changed), *RECORDS[1:]))


@pytest.mark.parametrize("label", [(0, 0), (1, 0), (0, 2), [0]])
def test_labels_of_several_classes_must_ascend(returns, label):
    records = [replace(record, label=()) for record in RECORDS]
    assert returns(records=tuple(records), task="multi_label").task == "multi_label"
    records[3] = replace(records[3], label=label)
    with pytest.raises(UsageError, match="a tuple of 'bright/0' of ascending labels from 0 to 1"):
        returns(records=tuple(records), task="multi_label")


PIXELS = np.zeros((4, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "expected a Frame from the custom source's load, found NoneType"),
        (Frame(PIXELS.astype(float), None), r"uint8 \[height, width, channels\], found float64 \[4, 5, 3\]"),
        (Frame(PIXELS[0], None), r"found uint8 \[5, 3\]"),
        (Frame(PIXELS[:0], None), r"found uint8 \[0, 5, 3\]"),
        (Frame(PIXELS[:, :, :2], None), "expected 1 or 3 channels, found 2"),
        (Frame(PIXELS, PIXELS[:, :, 0]), r"expected a mask as bool \[4, 5\], found uint8 \[4, 5\]"),
        (Frame(PIXELS, np.zeros((5, 4), bool)), r"found bool \[5, 4\]"),
        (Frame(PIXELS, PIXELS[:, :, 0] > 0, 2), "mask_class from 0 to 1, with a mask, found 2"),
        (Frame(PIXELS, None, 0), "mask_class from 0 to 1, with a mask, found 0"),
        (ValueError("bad luck"), "load failed with ValueError: bad luck"),
        (REASON, "^a reason of its own$"),
    ],
)
def test_a_frame_that_breaks_the_contract_is_a_bad_image(returns, result, message):
    dataset = returns(load=partial(wrong_load, result=result))
    with pytest.raises(BadImageError, match=message):
        dataset.load(dataset.records[0])


def test_the_fingerprint_sees_options_and_records(returns):
    seen = {fingerprint_custom(CustomSettings(factory="custom_sources:three_of_each"))}
    seen.add(fingerprint_custom(CustomSettings(factory="custom_sources:three_of_each", options={"count": 3})))
    returns(records=RECORDS[:5])
    seen.add(fingerprint_custom(CustomSettings(factory="custom_sources:changed")))
    returns(records=RECORDS[:4])
    seen.add(fingerprint_custom(CustomSettings(factory="custom_sources:changed")))
    assert len(seen) == 4
