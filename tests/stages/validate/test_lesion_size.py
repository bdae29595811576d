from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.validate.lesion_size import LEAST_MASKS, lesion_sizes


def masks_of(areas: list[int]) -> np.ndarray:
    """Masks of 10×10 pixels with so many pixels each."""
    return np.arange(100).reshape(1, 10, 10) < np.array(areas)[:, None, None]


def test_thirds_by_area_with_their_bounds() -> None:
    areas = [*range(1, 37)]
    small, medium, large = lesion_sizes(masks_of(areas))
    assert [size.members.sum() for size in (small, medium, large)] == [12, 12, 12]
    assert small.members.tolist() == [area <= 12 for area in areas]
    assert large.members.tolist() == [area > 24 for area in areas]
    assert (small.mask_share, medium.mask_share, large.mask_share) == (
        "at most 12.00 %",
        "above 12.00 %, at most 24.00 %",
        "above 24.00 %",
    )
    assert [size.name for size in (small, medium, large)] == ["small lesions", "medium lesions", "large lesions"]


def test_too_few_masks_of_a_size_say_so() -> None:
    """Nine masks are too few and ten are enough: 29 masks leave one size short, 30 none."""
    reasons = [size.reason for size in lesion_sizes(masks_of([*range(1, 30)]))]
    assert [bool(reason) for reason in reasons].count(True) == 1
    assert "only 9 of the explained images" in next(reason for reason in reasons if reason)
    assert not any(size.reason for size in lesion_sizes(masks_of([*range(1, 31)])))
    assert LEAST_MASKS == 10


def test_masks_of_one_area_are_of_one_size() -> None:
    """Boxes that are all alike tell nothing of sizes."""
    small, medium, large = lesion_sizes(masks_of([25] * 40))
    assert [int(size.members.sum()) for size in (small, medium, large)] == [40, 0, 0]
    assert medium.reason
    assert large.reason


@given(arrays(np.int64, st.integers(1, 80), elements=st.integers(1, 100)))
def test_every_mask_has_one_size_and_none_is_larger_than_one_of_the_next(areas: np.ndarray) -> None:
    sizes = lesion_sizes(masks_of(areas.tolist()))
    assert (np.sum([size.members for size in sizes], axis=0) == 1).all()
    present = [areas[size.members] for size in sizes if size.members.any()]
    assert all(a.max() < b.min() for a, b in pairwise(present))
