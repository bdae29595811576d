"""Missed limits in words."""

from reports.limits import missed


def test_shares_are_told_in_points_and_the_worst_comes_first():
    assert missed({"agreement": 0.008}) == "agreement by 0.80 points"
    told = missed({"accuracy_drop": 0.0125, "saliency_spearman": 0.05})
    assert told == "saliency by 0.050 of ρ, accuracy by 1.2 points"
