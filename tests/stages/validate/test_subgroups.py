"""What is measured of subgroups, and what compression changed in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom, norm, ttest_rel
from sklearn.metrics import roc_auc_score

from calibration_data.prepared import PreparedSplit
from foundation.measurements import PairedDifference
from stages.validate.accuracy import AccuracySettings, measure_accuracy
from stages.validate.intervals.multiple import holm, loss_p, one_sided_p, two_sided_p
from stages.validate.intervals.paired import bounds, paired_means, paired_shares, tail_at_zero
from stages.validate.intervals.proportions import Decisions
from stages.validate.subgroups import subgroups_of

CLASSES = ("polyp", "mucosa", "ulcer")
SETTINGS = AccuracySettings(resamples=1000)


def test_lesions_of_a_size_are_a_subgroup_where_there_are_ten(make_split: Callable[..., PreparedSplit]) -> None:
    """32 masks of 1 to 32 pixels, four images without one, and a source that knows of dim images."""
    split = make_split(n=36)
    masks = np.zeros((36, 8, 8), bool)
    for index in range(32):
        masks[index].ravel()[: index + 1] = True
    has = np.arange(36) < 34  # two masks are empty
    known = tuple(("dim",) if index % 2 else () for index in range(36))
    found = subgroups_of(replace(split, masks=masks, has_mask=has, subgroups=known))
    assert found[0] == ("lesion: small",)
    assert found[31] == ("dim", "lesion: large")
    assert found[32:] == ((), ("dim",), (), ("dim",))
    counts = Counter(name for names in found for name in names)
    assert counts == {"dim": 18, "lesion: small": 11, "lesion: medium": 11, "lesion: large": 10}
    few = replace(split, masks=masks, has_mask=np.arange(36) < 20, subgroups=known)
    assert subgroups_of(few) == known


def test_a_subgroup_has_the_measures_of_its_classes_from_ten_images_on() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(90) % 3)
    logits = rng.standard_normal((90, 3)).astype(np.float32)
    logits[np.arange(90), labels] += np.float32(1.0)
    subgroups = [("left",) if place % 2 else ("right",) for place in range(90)]
    subgroups[0] = ("rare",)
    rows = measure_accuracy(
        "fp32", logits, labels, CLASSES, None, [f"patient {place}" for place in range(90)], subgroups, SETTINGS
    )
    found = {(row.metric, row.where.subgroup): row for row in rows}
    left = np.arange(90) % 2 == 1
    polyps = left & (labels == CLASSES.index("polyp"))
    answered = logits.argmax(axis=1)
    sensitivity = found["sensitivity/polyp", "left"]
    assert (sensitivity.value, sensitivity.n) == (
        pytest.approx((answered[polyps] == CLASSES.index("polyp")).mean()),
        int(polyps.sum()),
    )
    scores = softmax(logits, axis=1)[left]
    assert found["auroc/ulcer", "left"].value == pytest.approx(roc_auc_score(labels[left] == 2, scores[:, 2]))
    assert found["sensitivity/polyp", "rare"].reason == (
        "only 1 positive image in the subgroup 'rare'; min_positives asks for 10"
    )


def test_what_changed_in_a_subgroup_is_corrected_for_the_other_subgroups() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    reference = np.where(np.eye(2, dtype=bool)[labels], 3.0, 0.0).astype(np.float32)
    logits = reference.copy()
    logits[:8] = logits[:8, ::-1]  # eight answers broken, all of the first subgroup
    logits[150:151] = logits[150:151, ::-1]
    subgroups = [("old",)] * 60 + [("middle",)] * 60 + [("young",)] * 80
    names = [f"patient {place}" for place in rng.permutation(200)]
    rows = measure_accuracy("int8", logits, labels, ("a", "b"), reference, names, subgroups, SETTINGS)
    found = {one.where.subgroup: one.difference for one in rows if one.metric == "accuracy" and one.where.subgroup}
    # Tango's test of no difference is McNemar's score test: z = 8/√8, two-sided p .0047, the smallest of three.
    assert found["old"] is not None
    assert found["old"].holm_p == pytest.approx(3 * 2 * norm.sf(8 / np.sqrt(8)), rel=1e-6)
    assert [found[name].holm_p for name in ("middle", "young")] == [
        1.0,
        pytest.approx(2 * 2 * norm.sf(1.0), rel=1e-6),
    ]


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))  # R's p.adjust(…, "holm")
    assert holm([]) == ()


def test_holm_does_not_count_what_could_not_be_as_small() -> None:
    assert holm([0.03, 0.5, 0.04], [0.01, 0.5, 0.04]) == pytest.approx((0.03, 0.5, 0.04))
    assert holm([0.03, 0.5, 0.04], [0.01, 0.03, 0.04]) == pytest.approx((0.06, 0.5, 0.08))


@pytest.mark.parametrize(("lost", "gained"), [(4, 0), (3, 1), (0, 0), (0, 3), (2, 2)])
def test_the_p_of_a_loss_of_independent_answers_is_mcnemars_mid_p(lost: int, gained: int) -> None:
    after, before = np.ones(50), np.ones(50)
    after[:lost], before[lost : lost + gained] = 0.0, 0.0
    first, second = (Decisions(one[None, None], np.arange(50)) for one in (after, before))
    changed = lost + gained
    wanted = binom.sf(lost, changed, 0.5) + binom.pmf(lost, changed, 0.5) / 2
    assert loss_p(paired_shares(first, second), True) == (pytest.approx(wanted), 0.5 ** (changed + 1))
    in_pairs = (replace(one, units=np.arange(50) // 2) for one in (first, second))
    clustered = paired_shares(*in_pairs)
    assert loss_p(clustered, True) == (one_sided_p(clustered, True), 0.0)


def test_the_p_of_a_difference_is_that_of_its_own_interval() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=40)
    after = before + rng.normal(0.1, 0.3, size=40)
    found = paired_means(after, before, np.arange(40))
    assert two_sided_p(found) == pytest.approx(ttest_rel(after, before).pvalue, rel=1e-6)
    changed = PairedDifference(-0.05, None, "tango", 100, 100, 0.02, 0.07, 100.0, 100.0)
    assert two_sided_p(changed) == pytest.approx(2 * norm.sf(5 / 3), rel=1e-6)
    assert two_sided_p(PairedDifference(0.0, None, "tango", 9, 3, no_interval="too few")) is None


@pytest.mark.parametrize("units", [500, 60])
@pytest.mark.parametrize("strata", [1, 4])
def test_a_difference_is_just_shown_at_the_tail_of_no_difference(units: int, strata: int) -> None:
    """Of independent images, of patients, and of a mean over classes."""
    rng = np.random.default_rng(units)
    of_class, unit = rng.integers(0, strata, 500), np.arange(500) % units
    asked = np.where(np.arange(strata)[:, None, None] == of_class, 1.0, np.nan)
    after, before = (Decisions(asked * (rng.random(500) < share), unit) for share in (0.85, 0.92))
    found = paired_shares(after, before)
    tail = tail_at_zero(found)
    assert tail is not None
    assert 0 < tail < 0.05
    a_bit_less, a_bit_more = (bounds(found, tail * factor) for factor in (0.999, 1.001))
    assert a_bit_less is not None
    assert a_bit_more is not None
    assert a_bit_more[1] < 0 < a_bit_less[1]
