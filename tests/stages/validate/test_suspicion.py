"""A baseline that is no better than chance, or answers one class, is doubted aloud."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foundation.measurements import Measurement
from stages.validate.answers import Predictions
from stages.validate.suspicion import suspicions

LABELS = np.arange(40) % 4
NAMES = ("ant", "bee", "cat", "dog")


def doubts(answers, low, value, high):
    logits = np.eye(4, dtype=np.float32)[answers]
    measured = Measurement("balanced_accuracy", value, "share", "fp32", n=40, ci95=(low, high))
    return suspicions(Predictions("fp32", logits, LABELS, Path("unused.npz")), [measured], NAMES)


def test_one_answer_for_all_images_is_doubted():
    (found,) = doubts(np.full(40, 2), 0.2, 0.25, 0.3)
    assert found.startswith(
        "it answers all 40 test images with 'cat'. Likely causes are another order of the classes"
    )


def test_chance_is_doubted_by_its_interval():
    (found,) = doubts((LABELS + np.arange(40) // 20) % 4, 0.24, 0.4, 0.6)
    assert found.startswith("its balanced accuracy, 0.400 (95 % 0.240 to 0.600), is not above chance, 0.250.")
    assert doubts((LABELS + np.arange(40) // 20) % 4, 0.26, 0.4, 0.6) == []


def test_a_good_file_is_not_doubted():
    assert doubts(LABELS, 0.9, 1.0, 1.0) == []
