"""The spellings of official splits."""

from __future__ import annotations

import pytest

from calibration_data.datasets.official_splits import split_named


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", "train"),
        (" Training ", "train"),
        ("training_set", "train"),
        ("VAL", "validation"),
        ("Valid", "validation"),
        ("validate", "validation"),
        ("validation", "validation"),
        ("dev", "validation"),
        ("Test", "test"),
        ("TESTING", "test"),
        ("testset", "test"),
        ("Hold-out", "test"),
        ("holdout", "test"),
        ("trains", None),
        ("images", None),
        ("set", None),
        ("", None),
        ("0", None),
    ],
)
def test_the_usual_spellings_are_known_in_any_case(text, split):
    assert split_named(text) == split
