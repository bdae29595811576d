"""Images made worse on purpose, and what is said of the answers to them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from stages.validate.answers import Answers
from stages.validate.robustness import KINDS, STRENGTHS, changed_images, changes, measure_robustness


def frames(channels: int = 3, size: int = 224) -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(4, channels, size, size)), axis=2), axis=3)
    low, high = smooth.min(axis=(1, 2, 3), keepdims=True), smooth.max(axis=(1, 2, 3), keepdims=True)
    return (40 + 120 * (smooth - low) / (high - low)).astype(np.uint8)


def distance(changed: np.ndarray, images: np.ndarray) -> float:
    return float(np.sqrt(np.square(changed.astype(float) - images).mean()))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_each_strength_is_farther_from_the_images_than_the_one_before(name: str, channels: int) -> None:
    images = frames(channels)
    worse = [changed_images(images, KINDS[name], strength, seed=3) for strength in STRENGTHS]
    assert all(one.shape == images.shape and one.dtype == np.uint8 for one in worse)
    distances = [distance(one, images) for one in worse]
    assert distances == sorted(distances)
    assert distances[0] > 0
    again = changed_images(images, KINDS[name], 5, seed=3)
    assert np.array_equal(again, worse[-1])


def test_the_strengths_are_those_that_are_stated() -> None:
    images = np.full((2, 3, 64, 64), 100, np.uint8)
    assert (changed_images(images, KINDS["brightness"], 2, 0) == 151).all()  # 100 + 0.2 · 255
    noise = changed_images(images, KINDS["noise"], 1, 0).astype(float) - 100
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.03)
    packed = io.BytesIO()
    Image.fromarray(np.moveaxis(frames()[0], 0, -1)).save(packed, "JPEG", quality=25)
    expected = np.moveaxis(np.asarray(Image.open(packed)), -1, 0)
    assert np.array_equal(changed_images(frames(), KINDS["jpeg"], 1, 0)[0], expected)
    dot = np.zeros((1, 1, 65, 65), np.uint8)
    dot[0, 0, 32, 60] = 255  # 28 px to the right of the middle
    row, column = np.unravel_index(changed_images(dot, KINDS["rotation"], 5, 0)[0, 0].argmax(), (65, 65))
    angle = np.degrees(np.arctan2(32 - row, column - 32))
    assert abs(angle) == pytest.approx(30, abs=2)


def test_a_blur_is_as_wide_as_the_image_allows() -> None:
    """3 px of 224 are 1.5 px of 112: a bright line keeps its sum and gets that standard deviation."""
    line = np.zeros((1, 1, 112, 112), np.uint8)
    line[..., 56] = 255
    profile = changed_images(line, KINDS["blur"], 3, 0)[0, 0, 50].astype(float)
    places = np.arange(112)
    mean = (profile * places).sum() / profile.sum()
    assert np.sqrt((profile * (places - mean) ** 2).sum() / profile.sum()) == pytest.approx(1.5, abs=0.05)


def test_every_change_has_its_accuracy_and_its_difference_from_fp32_on_the_same_images() -> None:
    labels = np.arange(60) % 2
    right = np.where(np.eye(2, dtype=bool)[labels], 2.0, 0.0).astype(np.float32)
    reference, own = ([right.copy() for _ in changes()] for _ in range(2))
    own[4][:6] = own[4][:6, ::-1]  # under jpeg 5
    answers = Answers("int8", right, labels, ("a", "b"), None, np.arange(60), 10)
    found = {(one.metric, one.where.change): one for one in measure_robustness(answers, own, reference)}
    assert len(found) == 2 * 25
    one = found["robust_accuracy", "jpeg 5"]
    assert (one.value, one.n) == (0.9, 60)
    interval = binomtest(54, 60).proportion_ci(method="wilson")
    assert one.ci95 == pytest.approx((interval.low, interval.high))
    assert one.difference is not None
    assert (one.difference.value, one.difference.lost) == (pytest.approx(-0.1), pytest.approx(0.1))
    assert one.difference.mcnemar_p == pytest.approx(2 * 0.5**6)
    assert found["robust_agreement", "jpeg 5"].value == 0.9
    assert found["robust_accuracy", "rotation 1"].value == 1.0
    of_fp32 = measure_robustness(answers, reference, None)
    assert {one.metric for one in of_fp32} == {"robust_accuracy"}
    assert all(one.difference is None for one in of_fp32)


def test_yes_and_no_are_counted_label_by_label() -> None:
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5)
    logits = np.where(labels == 1, 1.0, -1.0).astype(np.float32)
    logits[0, 0] = -1.0
    answers = Answers("fp32", logits, labels, ("a", "b"), None, np.arange(20), 10)
    found = measure_robustness(answers, [logits] * 25, None)
    assert found[0].value == pytest.approx(39 / 40)
