from __future__ import annotations

import pytest

from foundation.errors import UsageError
from pipeline.judge.gate import Gate
from pipeline.judge.plan import plan


def test_each_gate_says_what_it_needs_or_why_it_cannot() -> None:
    tested = Gate(metric="accuracy", variant="int8", noninferior_to="fp32", margin=0.02)
    both = Gate(metric="accuracy", variant="int8", equivalent_to="fp32", margin=0.02)
    bound = Gate(metric="accuracy", variant="fp32", at_least=0.8, confidence="lower_bound")
    point = Gate(metric="accuracy", variant="fp32", at_least=0.8)
    area = Gate(metric="auroc_macro", variant="int8", noninferior_to="fp32", margin=0.02)
    found = plan([tested, both, bound, point, area], discordance=0.04, reserve=0.05)
    # (1.645·√0.0448 + 0.842·√0.04)² / 0.02² is about 670, and 90 % power and equivalence need more.
    assert 600 < found[0].images_80 < 750 < found[0].images_90
    assert found[1].images_80 == found[0].images_90
    assert found[2].images_80 == 471
    assert (found[3].images_80, found[4].images_80) == (None, None)
    assert "no error rate" in found[3].detail
    assert "not known before a run" in found[4].detail


def test_a_share_outside_0_and_1_is_refused() -> None:
    with pytest.raises(UsageError, match="--discordance: expected a share between 0 and 1, found 4"):
        plan([], discordance=4, reserve=0.05)


def test_agreement_counts_every_changed_answer_against_the_file():
    """0.02 of the answers may change: 4 % cannot pass, 1 % needs ((1.645·√(.98·.02) + .842·√(.99·.01)) / .01)²."""
    gate = Gate(metric="agreement", variant="static-int8", equivalent_to="fp32", margin=0.02)
    (never,), (planned,) = plan((gate,), 0.04, 0.05), plan((gate,), 0.01, 0.05)
    assert (never.images_80, never.detail) == (None, "cannot pass if 4% of the answers change")
    assert (planned.images_80, planned.images_90) == (987, 1281)


def test_agreement_with_fp32_may_go_both_ways_from_the_accepted_run_to_this_one():
    agreement, accuracy = (
        Gate(metric=metric, variant="int8", noninferior_to="accepted", margin=0.02)
        for metric in ("agreement", "accuracy")
    )
    found = plan((agreement, accuracy), 0.04, 0.05)
    assert found[0].images_80 == found[1].images_80  # and not "cannot pass"
    assert 600 < found[0].images_80 < 750
