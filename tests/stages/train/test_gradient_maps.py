"""Gradient maps of the float and of the rounded network."""

import numpy as np
import torch

from stages.network import PactSettings
from stages.network.checkpoint import NetworkSpec, load_checkpoint, save_checkpoint
from stages.network.normalisation import normalise
from stages.train.gradient_maps import gradient_maps

SPEC = NetworkSpec("resnet8", ("a", "b"), 3, 12, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), PactSettings(weight_bits=3))


def test_map_is_the_mean_magnitude_of_the_gradient_by_finite_differences(tmp_path):
    plain = NetworkSpec("cnn-small", ("a", "b"), 1, 8, (0.5,), (0.2,), None)
    checkpoint = save_checkpoint(tmp_path / "c.safetensors", plain, plain.build(seed=0))
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
    maps = gradient_maps(checkpoint, images, np.array([1, 0]), rounding=False)
    _, network = load_checkpoint(checkpoint)
    network = network.double()
    x = normalise(torch.from_numpy(images), plain.mean, plain.std).double()
    step = torch.zeros_like(x)
    step[0, 0, 3, 4] = 1e-6
    with torch.no_grad():
        difference = (network(x + step)[0, 1] - network(x - step)[0, 1]).item() / 2e-6
    assert maps.shape == (2, 8, 8)
    assert maps[0, 3, 4] == np.float32(maps[0, 3, 4])
    assert abs(maps[0, 3, 4] - abs(difference)) < 1e-4 * max(abs(difference), 1e-3)


def test_rounding_changes_the_map_and_batches_do_not(tmp_path):
    checkpoint = save_checkpoint(tmp_path / "c.safetensors", SPEC, SPEC.build(seed=0))
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 12, 12), dtype=np.uint8)
    targets = np.zeros(5, dtype=np.int64)
    rounded = gradient_maps(checkpoint, images, targets, rounding=True)
    plain = gradient_maps(checkpoint, images, targets, rounding=False)
    assert (rounded >= 0).all()
    assert not np.allclose(rounded, plain, rtol=1e-2)
    one_by_one = gradient_maps(checkpoint, images, targets, rounding=True, batch_size=1)
    assert np.allclose(rounded, one_by_one, rtol=1e-3, atol=1e-6)
