from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from reports import overlays


def shown(picture: Image.Image) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_without_saliency_the_overlay_is_the_grey_image(channels: int) -> None:
    image = np.full((channels, 8, 8), 100, dtype=np.uint8)
    pixels = shown(overlays.overlay(image, np.zeros((4, 4), dtype=np.float32)))
    assert pixels.shape == (overlays.SIDE, overlays.SIDE, 3)
    assert (pixels == 100).all()


def test_only_positive_saliency_is_coloured_and_its_scale_does_not_matter() -> None:
    image = np.full((3, 8, 8), 100, dtype=np.uint8)
    saliency = np.zeros((8, 8), dtype=np.float32)
    saliency[1, 1], saliency[6, 6] = 2.0, -50.0
    pixels = shown(overlays.overlay(image, saliency))
    step = overlays.SIDE // 8
    red, _, blue = (int(value) for value in pixels[step + step // 2, step + step // 2])
    assert red > blue + 40
    assert (pixels[6 * step + step // 2, 6 * step + step // 2] == 100).all()
    assert (shown(overlays.overlay(image, saliency * 1000)) == pixels).all()


def test_nan_and_infinity_are_shown_as_no_saliency() -> None:
    saliency = np.array([[np.nan, np.inf], [-np.inf, 0.0]], dtype=np.float32)
    assert (shown(overlays.overlay(np.full((1, 4, 4), 7, np.uint8), saliency)) == 7).all()


def test_the_outline_runs_along_the_mask_and_spares_its_middle() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:6, 2:6] = True
    pixels = shown(overlays.picture(np.full((3, 8, 8), 90, dtype=np.uint8), mask))
    edge, middle = overlays.SIDE // 4, overlays.SIDE // 2
    assert (pixels[middle, edge - 3 : edge + 3] == 255).any()
    assert (pixels[middle, edge - 6 : edge + 6] == 0).any()
    assert (pixels[middle, middle] == 90).all()


def test_a_data_address_is_a_png_and_the_same_every_time() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    first, second = (overlays.data_url(overlays.picture(image)) for _ in range(2))
    assert first == second
    head, body = first.split(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(body))).size == (overlays.SIDE, overlays.SIDE)
