from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.validate import metrics
from stages.validate.intervals import groups, resampling
from stages.validate.intervals.sums import Sums


def test_groups_are_numbered_as_they_appear() -> None:
    assert groups.units_of(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert not groups.come_in_groups(groups.units_of(["b", "a", "c"]))
    assert groups.come_in_groups(groups.units_of(["b", "a", "b"]))


def test_chunks_are_small_and_many_and_change_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = resampling.unit_weights(8, 25, seed=3)
    monkeypatch.setattr(resampling, "_CHUNK_ELEMENTS", 30)
    chunks = list(resampling.unit_weights(8, 25, seed=3))
    assert [chunk.shape[1] for chunk in chunks] == [3] * 8 + [1]
    assert [chunk.shape[1] for chunk in resampling.unit_weights(8, 25, seed=3, widest=15)] == [2] * 12 + [1]
    assert (np.concatenate(chunks, axis=1) == whole).all()
    assert (whole.sum(axis=0) == 8).all()


def test_weights_follow_the_multinomial() -> None:
    weights = np.concatenate(list(resampling.unit_weights(10, 20_000, seed=0)), axis=1)
    assert weights.mean(axis=1) == pytest.approx(np.ones(10), abs=0.03)
    assert weights.var(axis=1) == pytest.approx(np.full(10, 0.9), abs=0.04)


def average_precision_by_hand(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    """Mean over the positive images, each as often as it counts, of the precision among all that score as high."""
    precision = [
        (weights * positive)[scores >= score].sum() / weights[scores >= score].sum() if weight else 0.0
        for score, weight in zip(scores[positive], weights[positive], strict=True)
    ]
    total = weights[positive].sum()
    return float((weights[positive] * precision).sum() / total) if total else np.nan


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_resamples_of_groups_are_the_formula_image_by_image(images: list[tuple[int, int, bool]]) -> None:
    """Average precision with ties, against its definition with each image counting as often as its group is drawn."""
    of, scores, positive = (np.array(column) for column in zip(*images, strict=True))
    units = groups.units_of([str(group) for group in of])
    if not positive.any():
        return
    draws = resampling.resampled({0: metrics.precision_recall_sums(scores, positive)}, units, 20, 7)[0]
    (drawn,) = resampling.unit_weights(int(units.max()) + 1, 20, 7)
    expected = [average_precision_by_hand(scores, positive, weights[units]) for weights in drawn.T.astype(float)]
    assert draws == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 100))
def test_sums_of_groups_are_those_of_their_images(names: list[int], seed: int) -> None:
    """SQNR and calibration error of every resample, from the groups' sums and from weights of the images."""
    rng, units = np.random.default_rng(seed), groups.units_of([str(group) for group in names])
    logits, reference = rng.normal(size=(2, len(units), 3)).astype(np.float32)
    labels = rng.integers(0, 3, len(units))
    (drawn,) = resampling.unit_weights(int(units.max()) + 1, 20, seed)
    weights = drawn[units].T.astype(float)
    found = resampling.resampled(
        {"db": metrics.sqnr_sums(logits, reference), "ece": metrics.expected_calibration_sums(logits, labels)},
        units, 20, seed,
    )  # fmt: skip
    signal, noise = (weights @ np.square(part.astype(float)).sum(axis=1) for part in (reference, logits - reference))
    assert found["db"] == pytest.approx(10 * np.log10(signal / noise), abs=1e-5)
    p = np.exp(logits.astype(float))
    p = (p / p.sum(axis=1, keepdims=True)).max(axis=1)
    gaps = (logits.argmax(axis=1) == labels) - p
    bins = np.ceil(p * 15) == np.arange(1, 16)[:, None]
    expected = sum(np.abs(weights @ (gaps * of_bin)) for of_bin in bins) / weights.sum(axis=1)
    assert found["ece"] == pytest.approx(expected, abs=1e-12)


def test_the_error_of_a_mean_is_the_textbooks() -> None:
    """The bootstrap's variance is that of n, √(g/(g−1)) makes it that of n − 1."""
    values = np.random.default_rng(0).gamma(2.0, size=12)
    mean = Sums(np.stack([values, np.ones(12)]), lambda sums: sums[0] / sums[1])
    draws = resampling.resampled({0: mean}, np.arange(12), 40_000, 1)[0]
    assert resampling.bootstrap_error(draws, 12) == pytest.approx(values.std(ddof=1) / np.sqrt(12), rel=0.02)


def test_a_mean_of_average_precisions_is_covered_where_percentiles_do_not() -> None:
    """Six labels on 8 % of 250 images, positives one standard deviation higher: the population's value is 0.254."""
    rng = np.random.default_rng(3)
    many = rng.random(1_000_000) < 0.08
    truth = metrics.area_under_precision_recall(rng.normal(size=len(many)) + many, many, np.ones((1, len(many))))[0]
    assert truth == pytest.approx(0.254, abs=0.005)
    covered, percentiles = 0, 0
    for trial in range(60):
        positive = rng.random((250, 6)) < 0.08
        scores = rng.normal(size=(250, 6)) + positive

        pairs = enumerate(zip(scores.T, positive.T, strict=True))
        of_labels = {label: metrics.precision_recall_sums(*pair) for label, pair in pairs}
        draws = np.mean(list(resampling.resampled(of_labels, np.arange(250), 300, trial).values()), axis=0)
        value = np.mean([sums(np.ones((250, 1)))[0] for sums in of_labels.values()])
        low, high = resampling.bootstrap_t_interval(value, draws, 250, "logit")
        covered += low <= truth <= high
        low, high = np.quantile(draws, [0.025, 0.975])
        percentiles += low <= truth <= high
    assert covered / 60 >= 0.87
    assert percentiles / 60 < 0.75


def test_an_interval_stays_inside_its_scale_and_needs_scatter() -> None:
    draws = np.random.default_rng(0).normal(0.97, 0.03, 1001)
    low, high = resampling.bootstrap_t_interval(0.97, draws, 20, "logit")
    assert 0.7 < low < 0.97 < high < 1.0
    assert resampling.bootstrap_t_interval(0.97, np.full(1001, 0.97), 20, "logit") is None
    assert resampling.bootstrap_t_interval(1.0, draws, 20, "logit") is None


def test_resamples_that_lack_a_label_are_left_out() -> None:
    draws = np.r_[np.full(400, np.nan), np.linspace(0, 1, 601)]
    assert resampling.bootstrap_error(draws, 100) == pytest.approx(np.linspace(0, 1, 601).std() * np.sqrt(100 / 99))
    mostly = np.r_[np.full(602, np.nan), np.linspace(0, 1, 600)]
    assert resampling.mostly_undefined(mostly)
    assert resampling.bootstrap_t_interval(0.5, mostly, 100, "logit") is None
