from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from reports import tiles


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def rgba(address: str) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return np.asarray(opened(address).convert("RGBA"))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_a_jpeg_of_its_own_size_or_smaller(channels: int) -> None:
    small, large = (np.full((channels, side, 2 * side), 100, np.uint8) for side in (8, 300))
    assert opened(tiles.photograph(small)).size == (16, 8)
    assert opened(tiles.photograph(large)).size == (192, 96)
    assert tiles.photograph(small).startswith("data:image/jpeg;base64,")
    pixels = np.asarray(opened(tiles.photograph(small)).convert("RGB"))
    assert abs(pixels.astype(int) - 100).max() <= 1


def test_only_positive_saliency_is_opaque_and_its_scale_does_not_matter() -> None:
    saliency = np.zeros((8, 8), dtype=np.float32)
    saliency[1, 1], saliency[6, 6] = 2.0, -50.0
    pixels = rgba(tiles.heat(saliency))
    assert pixels.shape == (8, 8, 4)
    assert pixels[1, 1, 3] == round(255 * tiles.FULLY_OPAQUE)
    assert pixels[1, 1, 0] > pixels[1, 1, 2] + 40
    assert (np.delete(pixels[:, :, 3].ravel(), 9) == 0).all()
    assert tiles.heat(saliency * 1000) == tiles.heat(saliency)


def test_nan_and_infinity_are_shown_as_no_saliency() -> None:
    saliency = np.array([[np.nan, np.inf], [-np.inf, 0.0]], dtype=np.float32)
    assert (rgba(tiles.heat(saliency))[:, :, 3] == 0).all()


def test_a_map_keeps_its_shape_where_it_is_shrunk() -> None:
    assert opened(tiles.heat(np.ones((224, 112), np.float32))).size == (32, 64)


def test_a_difference_is_clear_where_maps_agree_orange_for_more_and_purple_for_less() -> None:
    fp32, variant = np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32)
    fp32[0, 0] = fp32[1, 1] = 1.0
    variant[0, 0] = variant[1, 3] = 5.0
    pixels = rgba(tiles.difference(variant, fp32)).astype(int)
    assert pixels[0, 0, 3] <= 15
    assert pixels[0, 2, 3] <= 15
    less, more = pixels[1, 1], pixels[1, 3]
    assert less[3] > 200
    assert more[3] > 200
    assert more[0] > more[2]
    assert less[2] > less[0]
    assert tiles.difference(variant, fp32[:1]) == ""


def test_the_outline_runs_along_the_mask_and_spares_its_middle() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:6, 2:6] = True
    pixels = rgba(tiles.outline(mask))
    edge, middle = tiles.OUTLINE_PIXELS // 4, tiles.OUTLINE_PIXELS // 2
    across = pixels[middle, edge - 6 : edge + 6]
    assert ((across[:, 0] == 255) & (across[:, 3] == 255)).any()
    assert ((across[:, 0] == 0) & (across[:, 3] == 255)).any()
    assert pixels[middle, middle, 3] == 0
    assert tiles.outline(np.zeros((8, 8), dtype=bool)) == ""


def test_the_same_arrays_give_the_same_bytes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    assert tiles.photograph(image) == tiles.photograph(image.copy())
    saliency = image[0].astype(np.float32)
    assert tiles.heat(saliency) == tiles.heat(saliency.copy())
