"""Calibration images: from the training split, balanced, seeded."""

import numpy as np
import pytest

from calibration_data.sampling import choose_calibration_images
from foundation.errors import UsageError


def test_classes_are_balanced_and_images_distinct(stripes):
    chosen = choose_calibration_images(stripes, 31, seed=5)
    assert len(set(chosen.tolist())) == 31
    assert np.bincount(stripes.train.labels[chosen]).tolist() == [11, 10, 10]


def test_every_batch_is_balanced_too(stripes):
    labels = stripes.train.labels[choose_calibration_images(stripes, 30, seed=5)]
    assert labels.reshape(10, 3).tolist() == [[0, 1, 2]] * 10


def test_the_seed_decides(stripes):
    first = choose_calibration_images(stripes, 30, seed=5)
    assert first.tolist() == choose_calibration_images(stripes, 30, seed=5).tolist()
    assert set(first.tolist()) != set(choose_calibration_images(stripes, 30, seed=6).tolist())


def test_more_images_contain_the_fewer(stripes):
    few, many = (choose_calibration_images(stripes, n, seed=5) for n in (30, 60))
    assert many[:30].tolist() == few.tolist()


def test_all_images_can_be_asked_for(stripes):
    assert sorted(choose_calibration_images(stripes, 120, seed=0).tolist()) == list(range(120))


def test_of_too_few_images_all_are_taken(stripes):
    assert sorted(choose_calibration_images(stripes, 121, seed=0).tolist()) == list(range(120))


@pytest.mark.parametrize("n", [0, -1])
def test_no_image_at_all_is_refused_by_key(stripes, n):
    with pytest.raises(UsageError, match=f"`quantize.images`: expected one training image or more .*found {n}"):
        choose_calibration_images(stripes, n, seed=0, key="quantize.images")
