from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console
from small_run import VARIANT, accuracy, against_kernel, environment, latency, size, small_record, speedup, write_run

from foundation.errors import ExitCode, UsageError
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS
from foundation.record import read_record, write_record
from pipeline.judge.comparison import Comparison, Difference, compare
from pipeline.judge.comparison_text import comparison_table
from pipeline.judge.evidence import Evidence, read_evidence
from pipeline.judge.tolerances import ComparisonSettings, recorded_settings

DEFAULT = ComparisonSettings(tolerances={"latency_p50_ms": 0.15})


def evidence(*measurements: Measurement, cpu: str = "AMD EPYC") -> Evidence:
    return Evidence("run", small_record(environment=environment(cpu), exit_code=ExitCode.PASSED), measurements)


def judged(old: Measurement, new: Measurement, settings: ComparisonSettings = DEFAULT) -> Difference:
    (difference,) = compare(evidence(old), evidence(new), settings).differences
    return difference


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (accuracy(0.90), accuracy(0.90), "unchanged"),
        (accuracy(0.90), accuracy(0.89), "unchanged"),  # exactly the tolerance, and not a rounding error more
        (accuracy(0.91), accuracy(0.90), "unchanged"),
        (accuracy(0.90), accuracy(0.889), "regressed"),
        (accuracy(0.90), accuracy(0.92), "improved"),
        (size(1_000_000), size(1_020_000), "unchanged"),
        (size(1_000_000), size(1_020_001), "regressed"),
        (size(1_000_000), size(900_000), "improved"),
        (latency(10.0), latency(11.5), "unchanged"),
        (latency(10.0), latency(11.8), "regressed"),
        (latency(10.0), latency(8.0), "improved"),
        (speedup(3.0), speedup(2.71), "unchanged"),
        (speedup(3.0), speedup(2.6), "regressed"),
        (speedup(3.0), speedup(3.5), "improved"),
    ],
)
def test_each_metric_has_its_own_tolerance_and_direction(old: Measurement, new: Measurement, status: str) -> None:
    assert judged(old, new).status == status


def test_a_timing_within_its_own_uncertainty_is_no_regression() -> None:
    """12 ± 1.5 and 10 ± 1 meet at 10.5…11, although 12 is 20 % more than 10."""
    assert judged(latency(10.0, half_width=1.0), latency(12.0, half_width=1.5)).status == "unchanged"
    assert judged(latency(10.0, half_width=0.5), latency(12.0, half_width=1.0)).status == "regressed"


def test_a_score_is_judged_by_its_tolerance_whatever_its_interval() -> None:
    """Both runs answered the same images: the intervals are wide for a reason that both share."""
    difference = judged(accuracy(0.90), accuracy(0.86))
    assert difference.status == "regressed"
    assert difference.detail == "by more than 0.01"


def test_wall_clock_is_compared_only_on_request_because_nights_differ() -> None:
    comparison = compare(evidence(latency(10.0), speedup()), evidence(latency(40.0), speedup()), ComparisonSettings())
    assert [(one.metric, one.status) for one in comparison.differences] == [
        ("latency_p50_ms", "not_compared"),
        ("latency_speedup", "unchanged"),
    ]
    assert comparison.exit_code == ExitCode.PASSED


def test_latencies_of_another_processor_are_not_compared_but_speedups_are() -> None:
    old = evidence(latency(10.0), speedup(3.0))
    comparison = compare(old, evidence(latency(40.0), speedup(1.5), cpu="Cortex-A72"), DEFAULT)
    assert [(one.metric, one.status) for one in comparison.differences] == [
        ("latency_speedup", "regressed"),
        ("latency_p50_ms", "not_compared"),
    ]
    assert comparison.statements == ("Another processor: AMD EPYC → Cortex-A72; latencies in ms are not compared.",)
    assert comparison.exit_code == ExitCode.GATE_FAILED


@pytest.mark.parametrize("cpu", ["AMD EPYC", "Cortex-A72"])
def test_missing_now_is_incomplete_and_outranks_a_regression(cpu: str) -> None:
    absent = Measurement("latency_p50_ms", None, "ms", "static-int8", remarks={"reason": "worker killed"})
    comparison = compare(evidence(accuracy(0.9), latency(10.0)), evidence(accuracy(0.5), absent, cpu=cpu), DEFAULT)
    assert [one.status for one in comparison.differences] == ["regressed", "missing"]
    assert comparison.differences[1].detail == "worker killed"
    assert comparison.exit_code == ExitCode.INCOMPLETE
    assert comparison.summary == "1 regressed, 1 missing of 2 measurements compared"


def test_a_variant_that_is_gone_is_missing() -> None:
    comparison = compare(evidence(accuracy(), accuracy(0.91, "fp32")), evidence(accuracy(0.91, "fp32")), DEFAULT)
    assert comparison.differences[0].status == "missing"
    assert comparison.differences[0].detail == "measured in the accepted run, not in this one"


def test_what_was_absent_then_is_new_or_nothing_now() -> None:
    old = evidence(accuracy(), size(None), latency(None))
    comparison = compare(old, evidence(accuracy(), size(5), latency(None)), DEFAULT)
    assert [(one.metric, one.status) for one in comparison.differences] == [
        ("size_bytes", "new"),
        ("accuracy", "unchanged"),
    ]
    assert comparison.exit_code == ExitCode.PASSED


def test_measurements_pair_by_thread_count_whatever_their_order_and_other_settings() -> None:
    old = evidence(latency(10.0, threads=1), latency(6.0, threads=2))
    new = evidence(latency(6.0, threads=2), latency(10.0, threads=1))
    assert {one.status for one in compare(old, new, DEFAULT).differences} == {"unchanged"}


def test_measurements_pair_by_subgroup_whatever_their_order() -> None:
    """Another split of the same classes lists its subgroups in another order, and one may be gone."""

    def of(subgroup: str, value: float) -> Measurement:
        return Measurement("accuracy", value, "share", "fp32", Where("cpu", "test", subgroup=subgroup))

    old = evidence(of("narrow-band", 0.6), of("white light", 0.9))
    swapped = compare(old, evidence(of("white light", 0.9), of("narrow-band", 0.6)), DEFAULT)
    assert {one.status for one in swapped.differences} == {"unchanged"}
    (missing, same) = compare(old, evidence(of("white light", 0.9)), DEFAULT).differences
    assert (missing.status, missing.where.subgroup) == ("missing", "narrow-band")
    assert same.status == "unchanged"


def test_two_equal_names_are_both_compared() -> None:
    comparison = compare(evidence(accuracy(0.9), accuracy(0.8)), evidence(accuracy(0.9), accuracy(0.7)), DEFAULT)
    assert [(one.accepted, one.current, one.status) for one in comparison.differences] == [
        (0.8, 0.7, "regressed"),
        (0.9, 0.9, "unchanged"),
    ]


@pytest.mark.parametrize("name", ["random-map", "centre-prior"])
def test_a_map_that_knows_nothing_is_no_variant(name: str) -> None:
    floor = Measurement("saliency_spearman", 0.02, "correlation", name)
    worse = Measurement("saliency_spearman", -0.5, "correlation", name)
    comparison = compare(evidence(accuracy(), floor), evidence(accuracy(), worse), DEFAULT)
    assert [one.metric for one in comparison.differences] == ["accuracy"]


@pytest.mark.parametrize(
    ("metric", "unit", "status"),
    [
        ("deletion_auc", "probability", "regressed"),
        ("sanity_spearman", "correlation", "regressed"),
        ("insertion_auc", "probability", "improved"),
        ("iou_at_mask_area", "share", "improved"),
    ],
)
def test_what_rises_by_more_than_its_tolerance(metric: str, unit: str, status: str) -> None:
    """Of the saliency scores two get worse as they rise; small lesions are compared with small lesions."""

    def of(every: float, small: float) -> tuple[Measurement, ...]:
        return (
            Measurement(metric, every, unit, VARIANT, Where(method="gradient")),
            Measurement(metric, small, unit, VARIANT, Where(method="gradient", subgroup="small lesions")),
        )

    comparison = compare(evidence(*of(0.30, 0.50)), evidence(*of(0.31, 0.53)), DEFAULT)
    assert [(one.where.subgroup, one.status) for one in comparison.differences] == [
        ("small lesions", status),
        (None, "unchanged"),
    ]


def test_an_accepted_run_without_a_number_is_refused() -> None:
    with pytest.raises(UsageError, match="expected measurements to compare with, found none"):
        compare(evidence(accuracy(None)), evidence(accuracy()), DEFAULT)


def test_a_metric_of_another_version_is_named_not_judged() -> None:
    old = Measurement("gone_metric", 1.0, "share", "fp32")
    assert judged(old, Measurement("gone_metric", 0.0, "share", "fp32")).status == "not_compared"


def test_tolerances_of_the_configuration() -> None:
    settings = ComparisonSettings(tolerances={"accuracy": 0.05, "auroc/CLASS": 0.1, "auroc/polyp": 0.0})
    assert judged(accuracy(0.90), accuracy(0.86), settings).status == "unchanged"
    of_class = {name: Measurement(f"auroc/{name}", 0.9, "share", "fp32") for name in ("polyp", "ulcer")}
    worse = {name: Measurement(f"auroc/{name}", 0.85, "share", "fp32") for name in ("polyp", "ulcer")}
    assert judged(of_class["polyp"], worse["polyp"], settings).status == "regressed"
    assert judged(of_class["ulcer"], worse["ulcer"], settings).status == "unchanged"


@pytest.mark.parametrize(
    ("tolerances", "message"),
    [
        ({"acuracy": 0.1}, "did you mean 'accuracy'"),
        ({"zzz": 0.1}, "known are accuracy, "),
        ({"accuracy": -0.1}, "greater than or equal to 0"),
        ({"accuracy": float("nan")}, "finite|greater than or equal"),
        ({"accuracy": "0.1"}, "valid number"),
    ],
)
def test_impossible_tolerances_are_refused(tolerances: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ComparisonSettings(tolerances=tolerances)


@pytest.mark.parametrize("metric", METRICS)
@given(value=st.floats(0.01, 1e6), factor=st.floats(0.0, 100.0))
def test_laws_over_every_metric(metric: str, value: float, factor: float) -> None:
    """Nothing regresses against itself, and the direction is the table's."""
    name = metric.replace("CLASS", "polyp")
    one, other = (Measurement(name, number, METRICS[metric].unit, "fp32") for number in (value, value * factor))
    settings = ComparisonSettings(tolerances={name: 0.15})
    assert judged(one, one, settings).status == "unchanged"
    status = judged(one, other, settings).status
    if status != "unchanged":
        assert (status == "improved") == ((factor > 1) == METRICS[metric].higher_is_better)


def test_what_else_differs_is_stated_first(tmp_path: Path) -> None:
    old = read_evidence(write_run(tmp_path / "old"))
    new = read_evidence(
        write_run(tmp_path / "new", configuration="1" * 64, gates="2" * 64, images=b"others", onnxruntime="1.32.0")
    )
    comparison = compare(old, new, DEFAULT)
    assert [statement.split(":")[0] for statement in comparison.statements] == [
        "Not comparable",
        "Another configuration",
        "Another gates",
        "Another data",
        "Other versions",
    ]
    assert comparison.statements[4] == "Other versions: onnxruntime 1.31.1 → 1.32.0."
    assert comparison.exit_code == ExitCode.PASSED
    assert (comparison.accepted, comparison.current) == ("old", "new")


def test_evidence_of_a_run_that_ended_early_and_of_no_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "early", exit_code=None)
    run.measurements.unlink()
    record = read_record(run)
    files = {path: of for path, of in record.files.items() if path.startswith("data/")}
    write_record(run, replace(record, files=files))
    assert read_evidence(run).measurements == ()
    run.record.write_text('{"name": "early"}')
    with pytest.raises(UsageError, match="expected the record of a run"):
        read_evidence(run)
    run.record.write_text("[]")
    with pytest.raises(UsageError, match="expected the record of a run"):
        read_evidence(run)


def test_the_tolerances_of_a_run_are_those_of_its_own_configuration() -> None:
    record = small_record(configuration={"comparison": {"tolerances": {"accuracy": 0.05}}})
    assert recorded_settings(record).tolerance("accuracy").limit == 0.05
    assert recorded_settings(small_record()).tolerance("accuracy").limit == 0.01
    for damaged in ({"tolerances": {"gone_metric": 0.1}}, [], 3, {"tolerances": {"accuracy": "much"}}):
        with pytest.raises(UsageError, match="small: expected the key `comparison` of its configuration"):
            recorded_settings(small_record(configuration={"comparison": damaged}))


def rendered(comparison: Comparison) -> str:
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(comparison_table(comparison))
    return capture.get()


def test_table_fits_80_columns_and_shows_what_is_red() -> None:
    long = "a-variant-with-quite-a-long-name"
    old = evidence(accuracy(0.9, long), latency(10.0, threads=16), speedup(), size())
    new = evidence(accuracy(0.5, long), speedup(1.0), size())
    text = rendered(compare(old, new, DEFAULT))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "regressed: by" in text
    assert "2 regressed, 1 missing of 4 measurements compared." in text
    assert "size_bytes" not in text
    assert "│" not in rendered(compare(old, old, DEFAULT))


def test_json_carries_the_whole_comparison() -> None:
    record = compare(evidence(accuracy()), evidence(accuracy(0.5)), DEFAULT).as_json()
    assert (record["format_version"], record["exit_code"], record["counts"]) == (1, 1, {"regressed": 1})
    (difference,) = record["differences"]
    assert difference["current"] == 0.5
    assert [difference[key] for key in ("provider", "split", "settings")] == ["cpu", "test", {}]


def test_a_slow_down_of_every_file_is_seen_against_the_kernel_and_another_processor_is_not_one() -> None:
    """Both files take twice as long: the speed-up stays, and milliseconds are not compared."""
    old = evidence(latency(10.0), speedup(), against_kernel(0.2))
    new = evidence(latency(20.0), speedup(), against_kernel(0.1))
    comparison = compare(old, new, ComparisonSettings())
    assert [(one.metric, one.status) for one in comparison.differences] == [
        ("latency_against_kernel", "regressed"),
        ("latency_p50_ms", "not_compared"),
        ("latency_speedup", "unchanged"),
    ]
    elsewhere = evidence(latency(20.0), speedup(), against_kernel(0.1), cpu="Cortex-A72")
    assert not compare(old, elsewhere, ComparisonSettings()).exit_code
