"""Deletion and insertion on a "network" whose answer is known: the mean brightness of the left half."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from stages.validate.deletion import blurred, deletion_auc, insertion_auc


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
    deletion_auc(look, images, np.arange(4.0).reshape(1, 2, 2), TARGETS, np.array([1, 2, 3], np.uint8)[:, None, None])
    assert np.array_equal(seen[0], images)
    assert seen[-1][0, :, 0, 0].tolist() == [1, 2, 3]
    assert seen[5][0, 0].tolist() == [[0, 0], [0, 1]]  # a quarter: the last pixel has the highest map
    assert images.max() == 0


def test_insertion_may_begin_with_the_blurred_image():
    """Of the whole image's answer the blurred one gives a part from the beginning; the mean colour gives none."""
    images = np.zeros((1, 1, 8, 8), np.uint8)
    images[..., :2] = 200
    start = blurred(images)
    from_black, from_blurred = (
        insertion_auc(left_brightness, images, LEFT, TARGETS, each)[0] for each in (BLACK, start)
    )
    assert from_blurred > from_black + 0.01
    smooth = gaussian_filter(images[0, 0].astype(float), 2, mode="nearest")
    assert start[0, 0] == pytest.approx(smooth, abs=1)


def test_the_blur_is_five_pixels_of_224_in_the_papers_proportion():
    """A blurred step at the edge of a plateau: half a standard deviation out, Φ(−½) of it is left."""
    images = np.zeros((1, 1, 224, 224), np.uint8)
    images[..., :112] = 255
    row = blurred(images)[0, 0, 100].astype(float) / 255
    assert row[111] + row[112] == pytest.approx(1.0, abs=0.01)
    assert row[114] == pytest.approx(0.3085, abs=0.01)  # its centre is 2.5 px behind the edge
