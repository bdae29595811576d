from __future__ import annotations

import numpy as np
from pydantic import TypeAdapter
from small_run import small_record

from foundation.image_by_image import MethodKey
from foundation.measurements import UNINFORMED, Measurement, Where
from foundation.metrics import METRICS
from foundation.record import StageRecord
from reports.facts import Facts
from reports.measured import (
    METHOD_NAMES,
    SALIENCY_TABLES,
    LatencySetting,
    find,
    latency_settings,
    reason_of,
    saliency_methods,
    shown_unit,
)
from reports.saliency_tables import KNOW_NOTHING, SUBGROUPS
from stages.validate.fidelity import FROM_MAPS
from stages.validate.lesion_size import lesion_sizes
from stages.validate.maps.methods import SALIENCY_METHODS


def test_the_report_knows_the_metrics_that_exist() -> None:
    """Each kind of number has its table: times, maps, and what is said of each class."""
    for name, row in METRICS.items():
        assert (row.table == "latency") == (row.inputs == "timing"), name
        assert (row.table in SALIENCY_TABLES) == (row.inputs in FROM_MAPS), name
        assert (row.table == "classes") == (row.inputs == "class"), name
        assert (row.table == "thresholds") == (row.inputs == "threshold"), name
        assert (row.table == "calibration") == (row.inputs == "calibration"), name
        assert (row.table in ("classes", "calibration", "thresholds")) == name.endswith("/CLASS"), name


def test_the_report_knows_the_names_that_the_measurements_carry() -> None:
    masks = np.arange(100).reshape(1, 10, 10) < np.arange(1, 31)[:, None, None]
    assert tuple(size.name for size in lesion_sizes(masks)) == SUBGROUPS
    assert set(METHOD_NAMES) <= set(SALIENCY_METHODS)
    for name in SALIENCY_METHODS:
        assert TypeAdapter(MethodKey).validate_python(name) == name
    assert set(KNOW_NOTHING) == set(UNINFORMED)


def test_the_test_split_on_the_cpu_is_taken_and_subgroups_are_not() -> None:
    facts = Facts(
        small_record(),
        measurements=(
            Measurement("accuracy", 0.1, "share", "fp16", Where("cpu", "validation")),
            Measurement("accuracy", 0.2, "share", "fp16", Where("cpu", "test", subgroup="white light")),
            Measurement("accuracy", 0.3, "share", "fp16", Where("openvino", "test")),
            Measurement("accuracy", 0.4, "share", "fp16", Where("cpu", "test")),
        ),
    )
    assert find(facts, "accuracy", "fp16").value == 0.4


def test_a_latency_is_taken_from_its_provider_and_threads() -> None:
    def latency(provider: str, threads: int, value: float) -> Measurement:
        return Measurement("latency_p50_ms", value, "ms", "fp16", Where(provider, "test", threads=threads))

    facts = Facts(
        small_record(), measurements=(latency("openvino", 1, 3.0), latency("cpu", 2, 2.0), latency("cpu", 1, 1.0))
    )
    cpu_1, cpu_2, openvino_1 = latency_settings(facts)
    assert (cpu_1, openvino_1) == (LatencySetting("cpu", 1), LatencySetting("openvino", 1))
    assert find(facts, "latency_p50_ms", "fp16", latency=cpu_2).value == 2.0


def test_saliency_is_taken_from_its_method() -> None:
    facts = Facts(
        small_record(),
        measurements=tuple(
            Measurement("saliency_ssim", value, "similarity", "fp16", Where(method=method))
            for method, value in (("occlusion", 0.8), ("gradient", 0.7))
        ),
    )
    assert saliency_methods(facts) == ("occlusion", "gradient")
    assert find(facts, "saliency_ssim", "fp16", saliency_method="gradient").value == 0.7


def test_an_absence_gives_the_stage_s_reason() -> None:
    stage = StageRecord("quantize", "inc-int8", "not_measured", "", {}, {}, None, "run `make inc` first")
    told = Measurement("accuracy", None, "share", "fp16", remarks={"reason": "no labels"})
    facts = Facts(small_record(stages=(stage,)), measurements=(told,))
    assert reason_of(find(facts, "accuracy", "inc-int8")) == "run `make inc` first"
    assert reason_of(find(facts, "accuracy", "fp16")) == "no labels"
    assert reason_of(find(facts, "accuracy", "static-int8")) == "the run holds no such measurement"


def test_an_auroc_is_no_percentage() -> None:
    assert shown_unit(Measurement("auroc/polyp", 0.9, "share", "fp16")) == "probability"
    assert shown_unit(Measurement("accuracy", 0.9, "share", "fp16")) == "share"
