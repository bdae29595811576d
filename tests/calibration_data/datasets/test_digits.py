"""The digits of scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits

from calibration_data.datasets.digits import DigitsSettings, open_digits


def test_there_are_1797_scans_of_ten_digits():
    dataset = open_digits(DigitsSettings())
    assert dataset.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    # Counts per digit as the UCI test set states them.
    counts = np.bincount([record.label for record in dataset.records])
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_pixels_are_scaled_from_16_levels_to_255():
    dataset = open_digits(DigitsSettings())
    source = load_digits().images[42]
    pixels = dataset.load(dataset.records[42]).pixels
    assert pixels.shape == (8, 8, 1)
    assert pixels[source == 16].min() == 255
    assert np.abs(pixels[:, :, 0] - source * 255 / 16).max() <= 0.5
