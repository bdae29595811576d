"""Deletion and insertion on a "network" whose answer is known: the mean brightness of the left half."""

import numpy as np
import pytest

from stages.validate.deletion import deletion_auc, insertion_auc


def left_brightness(images, targets):
    return images[:, 0, :, :4].mean(axis=(1, 2)) / 255.0


IMAGES = np.full((1, 1, 8, 8), 255, np.uint8)
BLACK = np.zeros(1, np.uint8)
TARGETS = np.zeros(1, np.int64)
LEFT = np.zeros((1, 8, 8))
LEFT[:, :, :4] = 1.0


@pytest.mark.parametrize(
    ("maps", "deleted", "inserted"),
    [
        (LEFT, 0.25, 0.75),  # all of what counts goes in the first half: a triangle of half the width
        (1 - LEFT, 0.75, 0.25),
    ],
    ids=["right", "wrong"],
)
def test_the_area_is_that_of_the_triangle(maps, deleted, inserted):
    assert deletion_auc(left_brightness, IMAGES, maps, TARGETS, BLACK)[0] == pytest.approx(deleted, abs=0.02)
    assert insertion_auc(left_brightness, IMAGES, maps, TARGETS, BLACK)[0] == pytest.approx(inserted, abs=0.02)


def test_a_map_that_knows_nothing_scores_one_half_on_both():
    rng = np.random.default_rng(0)
    maps = rng.random((200, 8, 8))
    images = np.repeat(IMAGES, 200, axis=0)
    targets = np.zeros(200, np.int64)
    assert deletion_auc(left_brightness, images, maps, targets, BLACK).mean() == pytest.approx(0.5, abs=0.02)
    assert insertion_auc(left_brightness, images, maps, targets, BLACK).mean() == pytest.approx(0.5, abs=0.02)


def test_deleted_pixels_take_the_fill_and_the_image_stays_as_it_was():
    seen = []

    def look(images, targets):
        seen.append(images.copy())
        return np.zeros(len(images))

    images = np.zeros((1, 3, 2, 2), np.uint8)
    deletion_auc(look, images, np.arange(4.0).reshape(1, 2, 2), TARGETS, np.array([1, 2, 3], np.uint8))
    assert np.array_equal(seen[0], images)
    assert seen[-1][0, :, 0, 0].tolist() == [1, 2, 3]
    assert seen[5][0, 0].tolist() == [[0, 0], [0, 1]]  # a quarter: the last pixel has the highest map
    assert images.max() == 0
