from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from foundation.artifacts import OnnxModel
from onnx_files.sessions import open_session, predict
from stages.validate.maps.occlusion import occlusion_maps

FILL = np.array([128], dtype=np.uint8)


def log_odds(logits: np.ndarray, target: int) -> float:
    p = np.exp(logits.astype(np.float64) - logits.max())
    p /= p.sum()
    return float(np.log(p[target]) - np.log(1 - p[target]))


def brute_force(session: object, image: np.ndarray, target: int, patch: int, stride: int, fill: int) -> np.ndarray:
    """One pixel at a time, one image per query."""
    side = image.shape[1]
    starts = [*range(0, side - patch, stride), side - patch]
    intact = log_odds(predict(session, image[None], 1)[0], target)
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for row in starts:
        for column in starts:
            hidden = image.copy()
            for y in range(row, row + patch):
                for x in range(column, column + patch):
                    hidden[:, y, x] = fill
            drop = intact - log_odds(predict(session, hidden[None], 1)[0], target)
            for y in range(row, row + patch):
                for x in range(column, column + patch):
                    total[y, x] += drop
                    count[y, x] += 1
    return total / count


@pytest.mark.parametrize(("patch", "stride", "batch_size"), [(3, 2, 4), (2, 2, 100), (3, 3, 1), (8, 8, 2)])
def test_occlusion_against_a_loop_over_pixels(
    make_model: Callable[..., OnnxModel], patch: int, stride: int, batch_size: int
) -> None:
    session = open_session(make_model(channels=3).path, "cpu", 1)
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    targets = np.array([2, 0])
    fill = np.full(3, 77, dtype=np.uint8)
    before = images.copy()
    maps = occlusion_maps(session, images, targets, "multi_class", patch, stride, fill, batch_size)
    expected = [brute_force(session, image, t, patch, stride, 77) for image, t in zip(images, targets, strict=True)]
    assert maps == pytest.approx(np.array(expected), abs=1e-4)
    assert maps.dtype == np.float32
    assert (images == before).all()


def test_the_map_of_a_model_that_reads_one_corner(corner_model: OnnxModel) -> None:
    """Class 0's log-odds are twice the corner's sum: a patch over all nine bright pixels takes 2·9·2 = 36 away."""
    session = open_session(corner_model.path, "cpu", 1)
    image = np.full((1, 1, 8, 8), 255, dtype=np.uint8)
    maps = occlusion_maps(session, image, np.array([0]), "multi_class", 3, 1, np.array([128], dtype=np.uint8), 8)
    assert maps[0, 0, 0] == pytest.approx(36, rel=0.01)
    assert maps[0].argmax() == 0
    # Patches that start at row or column 3 and beyond see nothing of the corner.
    assert maps[0, 5:, :] == pytest.approx(np.zeros((3, 8)), abs=1e-4)
    against = occlusion_maps(session, image, np.array([1]), "multi_class", 3, 1, np.array([128], dtype=np.uint8), 8)
    assert against == pytest.approx(-maps, abs=1e-4)


def test_a_labels_map_is_the_drop_of_its_own_logit(corner_model: OnnxModel) -> None:
    """The corner model's logits are ±sum; by softmax the log-odds are twice as much."""
    session = open_session(corner_model.path, "cpu", 1)
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), dtype=np.uint8)
    of_label, of_class = (
        occlusion_maps(session, image, np.array([0]), task, 3, 2, FILL, 8) for task in ("multi_label", "multi_class")
    )
    assert of_label == pytest.approx(of_class / 2, abs=1e-4)
