from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics

from calibration_data.prepared import PreparedSplit
from foundation.arrays import write_arrays
from foundation.artifacts import OnnxModel
from foundation.errors import StageError, UsageError
from foundation.measurements import Measurement
from foundation.metrics import METRICS, Definition, Metric
from stages.validate import COMPUTATIONS, Computation, metrics
from stages.validate.accuracy import AccuracySettings, measure_accuracy, measure_size, predict_variant
from stages.validate.answers import Predictions
from stages.validate.intervals import resampling

CLASSES = ("polyp", "mucosa", "ulcer")
SETTINGS = AccuracySettings(resamples=1000)


def alone(n: int) -> list[str]:
    return [f"patient-{index}" for index in range(n)]


def logits_and_labels(n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3)
    logits = rng.standard_normal((n, 3)).astype(np.float32)
    logits[np.arange(n), labels] += np.float32(1.0)
    return logits, labels


def measure(logits: np.ndarray, labels: np.ndarray, reference: np.ndarray | None = None) -> dict[str, Measurement]:
    rows = measure_accuracy(
        "int8", logits, labels, CLASSES, reference, alone(len(labels)), [""] * len(labels), SETTINGS
    )
    assert len({row.metric for row in rows}) == len(rows)
    return {row.metric: row for row in rows}


def test_every_metric_of_the_contract_is_there() -> None:
    logits, labels = logits_and_labels()
    per_class = {
        f"{name}/{c}" for name in ("auroc", "average_precision", "sensitivity", "specificity") for c in CLASSES
    } | {f"calibration_{name}/{c}" for name in ("slope", "intercept") for c in CLASSES}
    plain = {"accuracy", "balanced_accuracy", "ece", "brier", "agreement", "logits_sqnr_db"}
    macro = {"auroc_macro", "average_precision_macro"}
    assert set(measure(logits, labels, logits)) == per_class | plain | macro


def test_values_against_scikit_learn_and_intervals_against_scipy() -> None:
    logits, labels = logits_and_labels()
    rows, answers = measure(logits, labels), logits.argmax(axis=1)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    correct = int((answers == labels).sum())
    wilson = binomtest(correct, 90).proportion_ci(0.95, method="wilson")
    assert rows["accuracy"].value == pytest.approx(correct / 90)
    assert rows["accuracy"].ci95 == pytest.approx((wilson.low, wilson.high))
    assert rows["balanced_accuracy"].value == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, answers))
    assert rows["auroc_macro"].value == pytest.approx(sklearn_metrics.roc_auc_score(labels, p, multi_class="ovr"))
    assert rows["average_precision/mucosa"].value == pytest.approx(
        sklearn_metrics.average_precision_score(labels == 1, p[:, 1])
    )
    assert rows["auroc/mucosa"].value == pytest.approx(sklearn_metrics.roc_auc_score(labels == 1, p[:, 1]))
    found = int((answers[labels == 1] == 1).sum())
    assert rows["sensitivity/mucosa"].value == pytest.approx(found / 30)
    assert rows["sensitivity/mucosa"].n == 30
    assert rows["specificity/mucosa"].n == 60
    for row in rows.values():
        if row.value is not None and row.metric != "ece":
            assert row.ci95 is not None
            assert row.ci95[0] <= row.value <= row.ci95[1]
            assert (row.where.provider, row.where.split) == ("cpu", "test")


def test_bootstrap_interval_of_auroc_is_near_delongs() -> None:
    """DeLong et al. 1988: variance from the placement values of positives and negatives."""
    logits, labels = logits_and_labels(n=300, seed=4)
    row = measure(logits, labels)["auroc/polyp"]
    p = np.exp(logits.astype(np.float64))
    score = p[:, 0] / p.sum(axis=1)
    wins = (score[labels == 0][:, None] > score[labels != 0][None, :]).astype(float)
    variance = wins.mean(axis=1).var(ddof=1) / 100 + wins.mean(axis=0).var(ddof=1) / 200
    assert row.ci95 is not None
    assert row.ci95[1] - row.ci95[0] == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.12)


def test_ece_has_no_interval_because_its_bootstrap_may_not_hold_it() -> None:
    """Labels drawn with the stated probabilities: the true ECE is 0, and resampling adds scatter to each gap."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, (1000, 3)).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    labels = (rng.random(1000)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    ece = measure(logits, labels)["ece"]
    draws = resampling.resampled({0: metrics.expected_calibration_sums(logits, labels)}, np.arange(1000), 1000, 0)[0]
    assert ece.value is not None
    assert 0 < ece.value < np.quantile(draws, 0.025)
    assert (ece.ci95, ece.n) == (None, 1000)
    by_chance = ece.remarks["calibrated_would_show"]
    assert ece.remarks == {
        "bins": 15,
        "binning": "equal-width",
        "no_interval": "its bias is as large as its scatter",
        "calibrated_would_show": by_chance,
    }


def test_what_a_calibrated_model_would_show_is_the_mean_ece_of_its_samples() -> None:
    """The bias that an ECE has where there is nothing to find, against a thousand samples of a calibrated model."""
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 1.5, (200, 3)).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    once, eces = np.ones((1, 200)), []
    for _ in range(1000):
        labels = (rng.random(200)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, 2)
        eces.append(metrics.expected_calibration_error(logits, labels, once)[0])
    by_chance = measure(logits, labels)["ece"].remarks["calibrated_would_show"]
    assert by_chance == pytest.approx(np.mean(eces), rel=0.05)


def test_perfect_separation_has_an_auroc_of_1_and_a_bound_by_the_smaller_class() -> None:
    """DeLong and the bootstrap would both give [1, 1], with 4 images as with 4,000."""
    labels = np.arange(12) % 3
    logits = np.where(np.eye(3, dtype=bool)[labels], 5.0, 0.0).astype(np.float32)
    rows = measure(logits, labels)
    for name in ("auroc_macro", "auroc/polyp", "auroc/mucosa", "auroc/ulcer"):
        assert (rows[name].value, rows[name].n) == (1.0, 12)
        assert rows[name].ci95 == pytest.approx(binomtest(4, 4).proportion_ci(0.95, "wilson"))
    assert rows["accuracy"].ci95 == pytest.approx(binomtest(12, 12).proportion_ci(0.95, "wilson"))


def test_a_new_row_of_the_table_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def errors_of_class(logits: np.ndarray, labels: np.ndarray, index: int, weights: np.ndarray) -> np.ndarray:
        of_class = labels == index
        return weights[:, of_class] @ (logits.argmax(axis=1) != index)[of_class] / weights[:, of_class].sum(axis=1)

    definition = Definition("share missed", sample="class")
    row = Metric("share", False, "class", "classes", "Missed", {"multi_class": definition})
    monkeypatch.setitem(METRICS, "miss/CLASS", row)

    def by_image(logits: np.ndarray, labels: np.ndarray, index: int) -> np.ndarray:
        return np.where(labels == index, logits.argmax(axis=1) != index, np.nan)[None, None]

    computation = Computation(errors_of_class, "share", by_image=by_image)
    monkeypatch.setitem(COMPUTATIONS, "miss/CLASS", {"multi_class": computation})
    logits, labels = logits_and_labels()
    rows = measure(logits, labels)
    missed = int((logits.argmax(axis=1) != 1)[labels == 1].sum())
    assert (rows["miss/mucosa"].value, rows["miss/mucosa"].n) == (pytest.approx(missed / 30), 30)
    assert rows["miss/mucosa"].ci95 == pytest.approx(binomtest(missed, 30).proportion_ci(0.95, "wilson"))


def test_deviation_from_fp32() -> None:
    logits, labels = logits_and_labels()
    rows = measure(logits * np.float32(1.01), labels, logits)
    assert rows["agreement"].value == 1.0
    assert rows["agreement"].ci95 == pytest.approx(binomtest(90, 90).proportion_ci(0.95, "wilson"))
    assert rows["logits_sqnr_db"].value == pytest.approx(40.0, abs=1e-3)


def test_fp32_itself_has_nothing_to_agree_with() -> None:
    rows = measure(*logits_and_labels())
    for name in ("agreement", "logits_sqnr_db"):
        assert rows[name].value is None
        assert rows[name].remarks == {"reason": "int8 is the reference itself"}


OF_SCORES = (
    "auroc_macro",
    "average_precision_macro",
    "auroc/polyp",
    "average_precision/ulcer",
    "ece",
    "brier",
    "logits_sqnr_db",
)


def test_the_number_of_a_class_is_no_score() -> None:
    logits, labels = logits_and_labels()
    one_hot = np.eye(3, dtype=np.float32)[logits.argmax(axis=1)]
    found = {
        row.metric: row
        for row in measure_accuracy(
            "int8", one_hot, labels, CLASSES, one_hot, alone(90), [()] * 90, SETTINGS,
            unscored=frozenset(("int8", "fp32")),
        )
    }  # fmt: skip
    for name in OF_SCORES:
        assert (found[name].value, found[name].ci95) == (None, None)
        assert found[name].reason == "the model gives the number of a class, no scores"
    scored = measure(logits, labels, logits)
    for name in ("accuracy", "balanced_accuracy", "sensitivity/polyp", "specificity/ulcer", "agreement"):
        assert (found[name].value, found[name].ci95) == (scored[name].value, scored[name].ci95)


def test_scores_are_not_compared_with_the_number_of_a_class() -> None:
    logits, labels = logits_and_labels()
    rows = measure_accuracy(
        "int8", logits, labels, CLASSES, logits, alone(90), [()] * 90, SETTINGS, unscored=frozenset(("fp32",))
    )
    assert {row.metric: row.reason for row in rows if row.value is None} == {
        "logits_sqnr_db": "fp32 gives the number of a class, no scores"
    }


def test_a_class_without_test_images_is_a_reason_not_a_crash() -> None:
    logits, labels = logits_and_labels()
    kept = labels != 2
    rows = measure(logits[kept], labels[kept])
    for name in ("balanced_accuracy", "auroc_macro", "auroc/ulcer", "sensitivity/ulcer"):
        assert rows[name].value is None
        assert rows[name].remarks["reason"]
    assert "ulcer" in str(rows["balanced_accuracy"].remarks["reason"])
    assert rows["auroc/polyp"].value == pytest.approx(0.8, abs=0.2)
    assert rows["specificity/ulcer"].n == 60


def test_a_single_class_leaves_every_auroc_open() -> None:
    logits, labels = logits_and_labels()
    rows = measure(logits[labels == 0], labels[labels == 0])
    assert [rows[f"auroc/{name}"].value for name in CLASSES] == [None] * 3
    assert rows["specificity/polyp"].value is None
    assert rows["accuracy"].n == 30


def test_accuracy_of_each_known_subgroup() -> None:
    logits, labels = logits_and_labels()
    subgroups = [("dim",)] * 30 + [("bright",)] * 40 + [()] * 20
    rows = measure_accuracy("fp32", logits, labels, CLASSES, None, alone(90), subgroups, SETTINGS)
    found = {row.where.subgroup: row for row in rows if row.where.subgroup is not None and row.metric == "accuracy"}
    correct = logits.argmax(axis=1) == labels
    assert list(found) == ["bright", "dim"]
    assert (found["dim"].value, found["dim"].n) == (pytest.approx(correct[:30].mean()), 30)
    assert (found["bright"].value, found["bright"].n) == (pytest.approx(correct[30:70].mean()), 40)


def test_an_image_counts_in_the_subgroups_of_all_its_axes() -> None:
    logits, labels = logits_and_labels()
    subgroups = [("sex: female", "age: <40")] * 20 + [("sex: female",)] * 30 + [("age: <40",)] * 10 + [()] * 30
    rows = measure_accuracy("fp32", logits, labels, CLASSES, None, alone(90), subgroups, SETTINGS)
    correct = logits.argmax(axis=1) == labels
    young = np.r_[0:20, 50:60]
    assert [
        (row.where.subgroup, row.value, row.n) for row in rows if row.where.subgroup and row.metric == "accuracy"
    ] == [
        ("age: <40", pytest.approx(correct[young].mean()), 30),
        ("sex: female", pytest.approx(correct[:50].mean()), 50),
    ]  # fmt: skip


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_name_the_variant(poison: float) -> None:
    logits, labels = logits_and_labels()
    logits[[3, 5], 1] = poison
    with pytest.raises(StageError, match=r"int8: expected finite logits.*2 of 90 images"):
        measure(logits, labels)


def test_logits_of_another_split_are_refused() -> None:
    logits, labels = logits_and_labels()
    with pytest.raises(StageError, match=r"90 images.*\[89, 3\]"):
        measure(logits[:-1], labels)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    logits, labels = logits_and_labels()
    assert measure(logits, labels) == measure(logits, labels)
    other = measure_accuracy(
        "int8", logits, labels, CLASSES, None, alone(90), [""] * 90, AccuracySettings(resamples=1000, seed=1)
    )
    assert {row.metric: row.ci95 for row in other}["brier"] != measure(logits, labels)["brier"].ci95


def test_predictions_are_written_and_read_back(
    make_model: Callable[..., OnnxModel], make_split: Callable[..., PreparedSplit], tmp_path: Path
) -> None:
    model, data, target = make_model("static-int8"), make_split(), tmp_path / "predictions" / "static-int8.npz"
    predictions = predict_variant(model, data, AccuracySettings(), target)
    first = target.read_bytes()
    again = Predictions.read("static-int8", target)
    assert (again.logits == predictions.logits).all()
    assert again.logits.dtype == np.float32
    assert (again.labels == data.labels).all()
    predict_variant(model, data, AccuracySettings(), target)
    assert target.read_bytes() == first
    assert [path.name for path in target.parent.iterdir()] == ["static-int8.npz"]


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    path = tmp_path / "fp16.npz"
    path.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UsageError, match=r"fp16\.npz: expected the arrays logits, labels, scored"):
        Predictions.read("fp16", path)
    with pytest.raises(UsageError, match="found nothing"):
        Predictions.read("fp16", tmp_path / "gone.npz")
    write_arrays(path, {"logits": np.zeros((3, 2)), "labels": np.zeros(4), "scored": np.array(True)})
    with pytest.raises(UsageError, match=r"expected logits \[n, classes\] and labels .* found \(3, 2\) and \(4,\)"):
        Predictions.read("fp16", path)


def test_size_is_the_files(make_model: Callable[..., OnnxModel]) -> None:
    model, other = make_model("fp32", channels=3), make_model("fp16")
    (row,) = measure_size(model, model)
    assert (row.value, row.unit) == (len(model.path.read_bytes()), "bytes")
    _, over = measure_size(other, model)
    assert (over.metric, over.variant) == ("size_against_fp32", "fp16")
    assert over.value == len(other.path.read_bytes()) / len(model.path.read_bytes()) < 1


@pytest.mark.long
def test_ten_thousand_images_take_seconds_and_little_memory() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 10_000)
    logits = (rng.standard_normal((10_000, 10)) + 2 * np.eye(10)[labels]).astype(np.float32)
    names = [str(index) for index in range(10)]
    tracemalloc.start()
    started = time.process_time()
    rows = measure_accuracy(
        "int8", logits, labels, names, logits, alone(10_000), [""] * 10_000, AccuracySettings(resamples=2000)
    )
    seconds, (_, peak_bytes) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 68
    assert seconds < 20
    assert peak_bytes < 200e6


def test_a_model_of_more_classes_is_judged_by_those_that_occur() -> None:
    logits, labels = logits_and_labels()
    more = np.concatenate([logits, np.full((len(logits), 97), -50, np.float32)], axis=1)
    names = (*CLASSES, *(f"other-{index}" for index in range(97)))
    groups, none = alone(len(labels)), [()] * len(labels)
    few = measure_accuracy("fp32", logits, labels, CLASSES, None, groups, none, SETTINGS)
    many = measure_accuracy("fp32", more, labels, names, None, groups, none, SETTINGS, present_only=True)
    mean_of = {row.metric: row for row in many}
    assert {row.metric for row in many} == {row.metric for row in few}
    assert mean_of["balanced_accuracy"].value == pytest.approx(
        next(row.value for row in few if row.metric == "balanced_accuracy")
    )
    assert mean_of["balanced_accuracy"].remarks["classes"] == f"{len(CLASSES)} of {len(names)}"
