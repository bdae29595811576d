from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sample_run import VARIANTS
from small_run import small_record

from foundation.errors import UsageError
from foundation.image_by_image import read_image_by_image, write_image_by_image
from foundation.run_folder import RunFolder
from reports.facts import read_facts
from reports.gallery import gallery
from reports.ledger import ledger


def test_a_complete_run_is_read_whole(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    assert facts.variant_names == VARIANTS
    assert tuple(facts.maps) == VARIANTS
    assert facts.image_by_image is not None
    assert tuple(change.variant for change in facts.image_by_image.answers.changes) == VARIANTS[1:]
    assert facts.data is not None
    assert len(facts.data.test) == 48
    assert len(facts.history) == 12
    assert facts.unreadable == ()


def test_a_missing_record_is_a_usage_error(tmp_path: object, run: RunFolder) -> None:
    run.record.unlink()
    with pytest.raises(UsageError, match=r"run\.json: expected a file"):
        read_facts(run)


@pytest.mark.parametrize(
    "record", [{"format_version": 1}, {}, [], {"format_version": 2, "stages": [{"status": "x"}]}]
)
def test_a_record_of_another_shape_is_a_usage_error(run: RunFolder, record: object) -> None:
    run.record.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UsageError, match=r"run\.json: expected"):
        read_facts(run)


def test_damaged_files_are_left_out_and_told(run: RunFolder) -> None:
    run.measurements.write_text("[{]", encoding="utf-8")
    run.maps("fp16", "occlusion").write_bytes(b"PK\x03\x04 no archive")
    run.maps("pact-int8", "occlusion").write_bytes(b"")
    np.savez(run.maps("fp32", "occlusion"), maps=np.zeros((3, 4)), image_index=np.zeros(3), target=np.zeros(3))
    (run.data / "test.images.npy").write_bytes(b"\0")
    run.history.write_text('[{"epoch": "one"}]', encoding="utf-8")
    facts = read_facts(run)
    assert (facts.measurements, facts.history) == ((), ())
    assert set(VARIANTS) - set(facts.maps) == {"fp32", "fp16", "pact-int8"}
    assert facts.data is None
    told = " ".join(facts.unreadable)
    names = ("measurements.json", "fp16.npz", "pact-int8.npz", "fp32.npz", "manifest.json", "history.json")
    assert [name in told for name in names] == [True] * 6


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (("maps", "method"), "../../predictions"),
        (("maps", "method"), "a\0b"),
        (("maps", "images", 0, "index"), -1),
        (("maps", "images", 0, "likeness"), {"fp16": "0.5"}),
        (("answers", "first", 0, "baseline", "answer"), -1),
        (("answers", "first", 0, "index"), 2.5),
        (("answers", "total"), None),
    ],
)
def test_what_is_said_of_images_leads_nowhere_and_is_left_out_if_damaged(
    run: RunFolder, of: tuple[str | int, ...], value: object
) -> None:
    found = json.loads(run.image_by_image.read_text(encoding="utf-8"))
    part = found
    for key in of[:-1]:
        part = part[key]
    part[of[-1]] = value
    run.image_by_image.write_text(json.dumps(found), encoding="utf-8")
    facts = read_facts(run)
    assert (facts.image_by_image, dict(facts.maps)) == (None, {})
    assert "image_by_image.json could not be used" in facts.unreadable[0]
    assert gallery(facts) is None


def test_the_maps_shown_are_those_of_the_method_that_validation_chose(run: RunFolder) -> None:
    found = read_image_by_image(run.image_by_image)
    assert found.maps is not None
    by_grad_cam = replace(found, maps=replace(found.maps, method="grad_cam"))
    write_image_by_image(run.image_by_image, by_grad_cam)
    path = run.maps("fp32", "grad_cam")
    path.parent.mkdir()
    path.write_bytes(run.maps("fp32", "occlusion").read_bytes())
    facts = read_facts(run)
    assert set(facts.maps) == {"fp32"}
    shown = gallery(facts)
    assert shown is not None
    assert shown.method == "grad_cam"
    assert {tile.title for card in shown.cards for tile in (*card.tiles, *card.strip)} == {"Image", "fp32"}


def test_an_image_that_the_data_lacks_is_not_shown(run: RunFolder) -> None:
    found = read_image_by_image(run.image_by_image)
    assert found.maps is not None
    images = (replace(found.maps.images[0], index=48), *found.maps.images[1:])
    write_image_by_image(run.image_by_image, replace(found, maps=replace(found.maps, images=images)))
    facts = read_facts(run)
    shown = gallery(facts)
    assert shown is not None
    assert len(shown.cards) == len(images) - 1


def test_a_changed_answer_of_an_image_that_the_data_lacks_stands_without_a_picture(run: RunFolder) -> None:
    found = json.loads(run.changes.read_text(encoding="utf-8"))
    found["changes"] = [found["changes"][0] | {"image": "sha256:000000000000"}]
    run.changes.write_text(json.dumps(found), encoding="utf-8")
    lines = ledger(read_facts(run))
    assert lines is not None
    assert [(line.name, line.picture, line.maps) for line in lines.lines] == [("sha256:000000000000", "", ("", ""))]


def test_the_task_is_the_records(labelled_run: RunFolder) -> None:
    facts = read_facts(labelled_run)
    assert facts.task == replace(facts, data=None).task == "multi_label"
    assert replace(facts, record=small_record()).task == "multi_class"
    assert facts.unreadable == ()
