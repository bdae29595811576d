"""Augmentation: what is drawn and what becomes of the pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from stages.train.augmentation import Draws, augment, draw
from stages.train.settings import AugmentSettings

CPU = torch.device("cpu")


def drawn(n, mirrored=(False, False), shift=(0, 0), angle=0.0, colour=(1.0, 1.0, 1.0)):
    return Draws(
        torch.tensor([mirrored] * n), torch.tensor([shift] * n), torch.full((n,), angle), torch.tensor([colour] * n)
    )


def test_flips_keep_the_pixels_and_happen_half_of_the_time():
    images = torch.arange(12, dtype=torch.uint8).reshape(1, 1, 3, 4).repeat(4000, 1, 1, 1)
    settings = AugmentSettings()
    flipped = augment(images, settings, draw(4000, settings, torch.Generator().manual_seed(0)))
    corners = flipped[:, 0, 0, 0]
    counts = [(corners == value).sum().item() for value in (0, 3, 8, 11)]
    assert sum(counts) == 4000
    assert all(850 < count < 1150 for count in counts)
    assert (flipped.flatten(1).sort(dim=1).values == torch.arange(12)).all()


def test_horizontal_flips_never_turn_an_image_upside_down():
    images = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 4, 1).repeat(50, 1, 1, 1)
    settings = AugmentSettings(flip="horizontal")
    assert torch.equal(augment(images, settings, draw(50, settings, torch.Generator().manual_seed(0))), images)


def test_a_crop_moves_the_image_over_black():
    image = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3)
    settings = AugmentSettings(flip="none", crop=2)
    moved = augment(image, settings, drawn(1, shift=(1, -2)))
    assert moved[0, 0].tolist() == [[0, 0, 4], [0, 0, 7], [0, 0, 0]]


def test_shifts_reach_both_ends_and_no_further():
    shifts = draw(2000, AugmentSettings(crop=3), torch.Generator().manual_seed(0)).shift
    assert shifts.unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]


@pytest.mark.parametrize("degrees", [90.0, 30.0])
def test_a_rotation_is_pillows(degrees):
    rows, columns = np.mgrid[:33, :33]
    picture = (120 + 100 * np.sin(rows / 7) * np.cos(columns / 5)).astype(np.uint8)
    settings = AugmentSettings(flip="none", rotation_degrees=180.0)
    turned = augment(torch.from_numpy(picture)[None, None], settings, drawn(1, angle=degrees))[0, 0].numpy()
    expected = np.asarray(Image.fromarray(picture).rotate(degrees, Image.Resampling.BILINEAR), np.float64)
    middle = slice(8, 25)
    assert np.abs(turned - expected)[middle, middle].max() < 2.0


def test_colour_scales_brightness_contrast_and_saturation():
    image = torch.tensor([100, 50, 20], dtype=torch.uint8).reshape(1, 3, 1, 1).repeat(1, 1, 4, 4)
    settings = AugmentSettings(flip="none", colour=0.5)
    brighter = augment(image, settings, drawn(1, colour=(1.5, 1.0, 1.0)))
    assert brighter[0, :, 0, 0].tolist() == [150.0, 75.0, 30.0]
    gray = augment(image, settings, drawn(1, colour=(1.0, 1.0, 0.0)))
    luma = 0.299 * 100 + 0.587 * 50 + 0.114 * 20
    assert gray[0, :, 0, 0].tolist() == pytest.approx([luma] * 3, abs=1e-4)
    assert augment(image, settings, drawn(1, colour=(9.0, 1.0, 1.0))).max().item() == 255.0


def test_a_part_of_a_batch_draws_what_the_whole_would_have_drawn():
    settings = AugmentSettings(crop=4, rotation_degrees=20, colour=0.3)
    images = torch.randint(0, 256, (10, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    draws = draw(10, settings, torch.Generator().manual_seed(0))
    whole = augment(images, settings, draws)
    parts = [augment(images[part], settings, draws.part(part, CPU)) for part in (slice(0, 6), slice(6, 10))]
    assert torch.equal(whole, torch.cat(parts))
