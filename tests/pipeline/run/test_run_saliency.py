"""Saliency in a whole run on real digits: every method that is asked for, what it is read against, and its gates."""

from pathlib import Path

import numpy as np
import pytest

from foundation.errors import ExitCode, UsageError
from foundation.image_by_image import read_image_by_image
from foundation.measurements import read_measurements
from foundation.progress import Silent
from foundation.record import read_record
from foundation.run_folder import RunFolder
from pipeline.configuration_file import parse_configuration
from pipeline.flow import compile_and_validate
from stages.saliency_twin import twin_file

ROOT = Path(__file__).resolve().parents[3]
METHODS = ("integrated_gradients", "gradient", "rise", "grad_cam")
FROM_EVERY_FILE = {"deletion_auc", "insertion_auc", "sparseness"}
AGAINST_FP32 = {"saliency_spearman", "saliency_ssim", "saliency_top10_overlap"}


def configuration(methods, **changes):
    values = {
        "name": "tiny",
        "data": {"source": {"name": "digits"}, "image_size": 12, "channels": 1},
        "train": {"network": "cnn-small", "epochs": 2, "augment": {"flip": "none"}, "threads": 1},
        "variants": {"dynamic-int8": {"method": "dynamic"}},
        "validation": {
            "accuracy": {"batch_size": 64, "resamples": 1000},
            "saliency": {
                "images": 10,
                "resamples": 1000,
                "methods": methods,
                "rise_masks": 40,
                "integration_steps": 4,
                "sanity_draws": 2,
                "sanity_cascade": 2,
                "sensitivity_samples": 2,
                "insertion_start": "blur",
            },
            "latency": {"rounds": 5, "time_budget_s": 0.0, "queries_per_round": 8, "warmup_queries": 1},
        },
        "gates": [
            {"metric": "deletion_auc", "variant": "dynamic-int8", "at_most": 1.0, "method": "rise"},
            {"metric": "insertion_auc", "variant": "dynamic-int8", "at_least": 0.01, "relative_to_fp32": "ratio"},
            {"metric": "sanity_spearman", "variant": "fp32", "at_most": 0.999, "method": "gradient"},
            {"metric": "sanity_spearman", "variant": "dynamic-int8", "at_most": 1.0},
            {"metric": "mass_in_mask", "variant": "fp32", "at_least": 0.0, "subgroup": "small lesions"},
        ],
    }
    return parse_configuration({**values, **changes}, "tiny", ROOT)


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("explained"))
    return run, compile_and_validate(configuration(METHODS), run, Silent())


def rows_of(run, method):
    return [row for row in read_measurements(run.measurements) if row.where.method == method]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_every_number_of_every_file_and_of_the_maps_that_know_nothing(explained, method):
    run, _ = explained
    found = {}
    for row in rows_of(run, method):
        if row.value is not None:
            found.setdefault(row.variant, set()).add(row.metric)
    uninformed = FROM_EVERY_FILE | AGAINST_FP32 | {"sanity_spearman", "cascade_spearman"}
    # Integrated gradients alone promise a sum, and maps that know nothing answer to no noise.
    of_file = FROM_EVERY_FILE | {"max_sensitivity"}
    of_file |= {"completeness_error"} if method == "integrated_gradients" else set()
    assert found == {
        "fp32": of_file | {"sanity_spearman", "cascade_spearman"},
        "dynamic-int8": of_file | AGAINST_FP32,
        "random-map": uninformed,
        "centre-prior": uninformed,
    }
    with np.load(run.maps("dynamic-int8", method)) as stored:
        assert stored["maps"].shape == (10, 12, 12)
    statuses = {stage.name: stage.status for stage in read_record(run).stages}
    assert statuses[f"{method}/dynamic-int8"] == "done"


def test_a_random_map_knows_less_than_the_files_own(explained):
    """Integrated gradients of a digit: without its pixels the answer goes, and with them it comes."""
    run, _ = explained
    value = {(row.metric, row.variant): row.value for row in rows_of(run, "integrated_gradients")}
    assert value["deletion_auc", "fp32"] < value["deletion_auc", "random-map"]
    assert value["insertion_auc", "fp32"] > value["insertion_auc", "random-map"]
    assert value["sanity_spearman", "random-map"] == pytest.approx(0, abs=0.1)


def test_the_cascade_ends_with_every_layer_and_the_draws_are_told(explained):
    rows = rows_of(explained[0], "gradient")
    steps = [row.where.change for row in rows if (row.metric, row.variant) == ("cascade_spearman", "fp32")]
    first, last = (step.split() for step in steps)
    assert 0 < int(first[1]) < int(first[3]) == int(last[1]) == int(last[3])
    sanity = next(row for row in rows if (row.metric, row.variant) == ("sanity_spearman", "fp32"))
    assert sanity.remarks["draws"] == len(sanity.remarks["of_draws"]) == 2
    assert sanity.value == pytest.approx(np.mean(sanity.remarks["of_draws"]), abs=1e-4)
    page = (explained[0].report / "index.html").read_text()
    assert "Cascading sanity check" in page
    assert "Max-sensitivity" in page


def test_maps_are_paired_with_fp32s_where_they_answer_to_their_own_file(explained):
    rows = {row.variant: row for row in rows_of(explained[0], "rise") if row.metric == "deletion_auc"}
    row, fp32 = rows["dynamic-int8"], rows["fp32"]
    assert row.difference.value == pytest.approx(row.value - fp32.value, abs=1e-9)
    assert row.difference.n == 10


def test_the_first_method_is_the_one_that_is_shown(explained):
    shown = read_image_by_image(explained[0].image_by_image)
    assert (shown.maps.method, shown.maps.compared) == ("integrated_gradients", 10)
    assert [change.variant for change in shown.answers.changes] == ["dynamic-int8"]
    page = (explained[0].report / "index.html").read_text()
    assert "Maps by integrated gradients." in page
    assert "Saliency Spearman with fp32 (integrated gradients)" in page


def test_gates_hold_what_was_measured_and_say_what_was_not(explained):
    _, outcome = explained
    assert [verdict.status for verdict in outcome.verdicts] == ["passed", "passed", "passed", "missing", "missing"]
    assert "the sanity check is made of fp32" in outcome.verdicts[3].detail
    assert outcome.exit_code == ExitCode.INCOMPLETE


def test_the_randomised_file_does_not_stay(explained):
    assert not list(explained[0].root.rglob("*randomised*"))


def test_a_file_without_a_twin_keeps_what_needs_none(tmp_path, monkeypatch):
    """fp32 has a twin and the variant has none: its gradients are missing with the reason, its occlusion is there."""
    make_twin = twin_file.make_twin

    def refuse_dynamic(path, *rest):
        if path.stem == "dynamic-int8":
            raise UsageError("no rule for Einsum of node 'head'")
        return make_twin(path, *rest)

    monkeypatch.setattr(twin_file, "make_twin", refuse_dynamic)
    run = RunFolder(tmp_path)
    outcome = compile_and_validate(configuration(("occlusion", "gradient"), gates=[]), run, Silent())
    assert outcome.exit_code == ExitCode.INCOMPLETE
    statuses = {stage.name: stage.status for stage in read_record(run).stages}
    assert statuses["twin/dynamic-int8"] == "not_measured"
    assert statuses["occlusion/dynamic-int8"] == "done"
    gradient = [row for row in rows_of(run, "gradient") if row.variant == "dynamic-int8"]
    assert {row.reason for row in gradient} == {"no rule for Einsum of node 'head'"}
    assert {"deletion_auc", "saliency_spearman"} <= {row.metric for row in gradient}
    occlusion = {row.metric: row.value for row in rows_of(run, "occlusion") if row.variant == "dynamic-int8"}
    assert occlusion["saliency_spearman"] is not None
