from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sample_run import VARIANTS
from small_run import small_record

from foundation.errors import UsageError
from foundation.measurements import Measurement, Where, read_measurements, write_measurements
from foundation.run_folder import RunFolder
from reports.facts import Predictions, read_facts


def test_a_complete_run_is_read_whole(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    assert facts.variant_names == VARIANTS
    assert tuple(facts.predictions) == tuple(facts.saliency) == VARIANTS
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
    run.predictions("fp16").write_bytes(b"PK\x03\x04 no archive")
    run.predictions("pact-int8").write_bytes(b"")
    np.savez(run.maps("fp32", "occlusion"), maps=np.zeros((3, 4)), image_index=np.zeros(3), target=np.zeros(3))
    (run.data / "test.images.npy").write_bytes(b"\0")
    facts = read_facts(run)
    assert facts.measurements == ()
    assert set(VARIANTS) - set(facts.predictions) == {"fp16", "pact-int8"}
    assert set(VARIANTS) - set(facts.saliency) == {"fp32"}
    assert facts.data is None
    told = " ".join(facts.unreadable)
    assert [
        name in told for name in ("measurements.json", "fp16.npz", "pact-int8.npz", "fp32.npz", "manifest.json")
    ] == [True] * 5


def test_the_maps_shown_are_those_of_the_first_method_that_fp32_has(run: RunFolder) -> None:
    """Names that are no method's lead nowhere, whatever the file says."""
    hostile = [
        Measurement("deletion_auc", 0.5, "probability", "fp32", Where("cpu", "test", method=method))
        for method in ("../../predictions", "a\0b", "rise", "grad_cam")
    ]
    write_measurements(run.measurements, [*hostile, *read_measurements(run.measurements)])
    assert read_facts(run).saliency_method == "occlusion"
    path = run.maps("fp32", "grad_cam")
    path.parent.mkdir()
    path.write_bytes(run.maps("fp32", "occlusion").read_bytes())
    facts = read_facts(run)
    assert (facts.saliency_method, set(facts.saliency)) == ("grad_cam", {"fp32"})


def test_probabilities_sum_to_1_even_for_huge_logits() -> None:
    predictions = Predictions(np.array([[1e4, 0.0], [-1e4, 0.0]], dtype=np.float32), np.array([0, 0]))
    np.testing.assert_allclose(predictions.probabilities, [[1, 0], [0, 1]], atol=1e-12)
    assert predictions.top1.tolist() == [0, 1]


def test_the_task_is_the_datas_or_that_of_the_answers(labelled_run: RunFolder) -> None:
    facts = read_facts(labelled_run)
    assert facts.task == replace(facts, data=None).task == "multi_label"
    assert replace(facts, record=small_record()).task == "multi_class"
    assert facts.unreadable == ()


def test_a_labels_probability_is_its_sigmoid_and_above_half_is_yes() -> None:
    predictions = Predictions(np.array([[0.0, 800.0, -2.0]], dtype=np.float32), np.array([[0, 1, 0]]))
    np.testing.assert_allclose(predictions.probabilities, [[0.5, 1.0, 1 / (1 + np.exp(2))]], atol=1e-12)
    assert predictions.decisions.tolist() == [[False, True, False]]
