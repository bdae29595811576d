"""Maps from the twin against torch.autograd on the same weights, for files of pixels and files of floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from onnx_files.sessions import open_session
from stages.validate.maps import gradients
from stages.validate.maps.queries import Twin

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
TARGETS = np.array([2, 0, 1])
GRAY = 1 / (255 * 0.25)
"""One gray value of a normalised image."""

both_inputs = pytest.mark.parametrize("input_type", ["uint8", "float32"])


def twin_of(files, batch_size=16):
    return Twin(open_session(files.twin, "cpu", 1), batch_size)


@both_inputs
def test_the_gradient_is_per_gray_value_or_per_unit_of_the_input(classifier, input_type):
    files, reference = classifier(input_type)
    found = gradients.gradient_maps(twin_of(files), IMAGES, TARGETS)
    expected = np.abs(reference.gradient(reference.normal(IMAGES), TARGETS)).mean(axis=1)
    assert found == pytest.approx(expected * (GRAY if input_type == "uint8" else 1), rel=1e-4, abs=1e-9)
    in_twos = gradients.gradient_maps(twin_of(files, 2), IMAGES, TARGETS)
    assert in_twos == pytest.approx(found, rel=1e-6)


@both_inputs
def test_gradient_x_input_is_of_the_normalised_image_and_signed(classifier, input_type):
    files, reference = classifier(input_type)
    found = gradients.gradient_x_input_maps(twin_of(files), IMAGES, TARGETS)
    normal = reference.normal(IMAGES)
    expected = (normal.numpy() * reference.gradient(normal, TARGETS)).sum(axis=1)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert (found < 0).any()


@both_inputs
def test_smooth_grad_is_the_mean_over_the_same_noise(classifier, input_type):
    files, reference = classifier(input_type)
    image = np.clip(IMAGES[:1], 40, 140)
    noise = np.random.default_rng(7).standard_normal((10, 3, 8, 8), dtype=np.float32)
    gray = image + 0.2 * 100 * noise  # the image's values span 100
    assert gray.min() < 0  # so that clipping shows
    if input_type == "uint8":
        gray = np.clip(np.round(gray), 0, 255)
    expected = reference.gradient(reference.normal(gray), np.full(10, 2)).mean(axis=0)
    for batch_size in (16, 3):
        found = gradients.smooth_grad_maps(twin_of(files, batch_size), image, TARGETS[:1], 10, 0.2, 7)
        scale = GRAY if input_type == "uint8" else 1
        assert found[0] == pytest.approx(scale * np.abs(expected).mean(axis=0), rel=1e-4, abs=1e-8)


@both_inputs
def test_without_noise_or_contrast_smooth_grad_is_the_gradient(classifier, input_type):
    twin = twin_of(classifier(input_type)[0])
    plain = gradients.gradient_maps(twin, IMAGES, TARGETS)
    assert gradients.smooth_grad_maps(twin, IMAGES, TARGETS, 3, 0.0, 0) == pytest.approx(plain, rel=1e-6)
    blank = np.full_like(IMAGES, 90)
    plain = gradients.gradient_maps(twin, blank, TARGETS)
    assert gradients.smooth_grad_maps(twin, blank, TARGETS, 3, 0.5, 0) == pytest.approx(plain, rel=1e-6)


def test_integrated_gradients_add_up_to_the_logits_change(classifier):
    """The completeness axiom; the mean colour is the zero of the first layer, and the network's own answer to it."""
    files, reference = classifier("float32")
    normal = reference.normal(IMAGES)
    with torch.no_grad():
        change = reference.logits(normal) - reference.logits(torch.zeros_like(normal))
    expected = change.numpy()[np.arange(3), TARGETS]
    errors = {
        steps: np.abs(
            gradients.integrated_gradients_maps(twin_of(files), IMAGES, TARGETS, steps).sum(axis=(1, 2)) - expected
        ).max()
        for steps in (1, 20, 400)
    }
    assert errors[400] < 1e-3 * np.abs(expected).max()
    assert errors[400] < errors[20] < errors[1]


@both_inputs
def test_what_the_map_should_add_up_to_is_the_logits_gain_over_the_mean_colour(classifier, input_type):
    files, reference = classifier(input_type)
    # A uint8 file cannot take 127.5, and numpy rounds to the even 128.
    zero = np.full_like(IMAGES, 127.5 if input_type == "float32" else 128, dtype=np.float64)
    with torch.no_grad():
        change = reference.logits(reference.normal(IMAGES)) - reference.logits(reference.normal(zero))
    expected = change.numpy()[np.arange(3), TARGETS]
    assert gradients.logit_gains(twin_of(files, 2), IMAGES, TARGETS) == pytest.approx(expected, abs=1e-5)


@both_inputs
@pytest.mark.parametrize("batch_size", [16, 7])
def test_integrated_gradients_follow_the_straight_path_from_the_mean_colour(classifier, input_type, batch_size):
    files, reference = classifier(input_type)
    found = gradients.integrated_gradients_maps(twin_of(files, batch_size), IMAGES, TARGETS, 20)
    for index, target in enumerate(TARGETS):
        times = (np.arange(20)[:, None, None, None] + 0.5) / 20
        path = 127.5 + times * (IMAGES[index] - 127.5)
        # A float32 path point may fall on the other side of a half gray value than the float64 one.
        tolerance = 1e-6 if input_type == "float32" else 0.02
        gray = path if input_type == "float32" else np.round(path)
        slope = reference.gradient(reference.normal(gray), np.full(20, target)).mean(axis=0)
        expected = (reference.normal(IMAGES[index]).numpy() * slope).sum(axis=0)
        assert found[index] == pytest.approx(expected, rel=1e-4, abs=tolerance * np.abs(expected).max() + 1e-6)


@both_inputs
def test_grad_cam_is_drawn_bilinearly_over_the_image(classifier, input_type, tmp_path):
    files, reference = classifier(input_type)
    session = open_session(files.grad_cam, "cpu", 1)
    found = gradients.grad_cam_maps(Twin(session, 2), IMAGES, TARGETS)
    features = reference.features(reference.normal(IMAGES)).requires_grad_()
    chosen = reference.head(features).gather(1, torch.from_numpy(TARGETS)[:, None]).sum()
    alpha = torch.autograd.grad(chosen, features)[0].mean((2, 3), keepdim=True)
    coarse = torch.relu((alpha * features).sum(1, keepdim=True))
    expected = F.interpolate(coarse, (8, 8), mode="bilinear", align_corners=False)[:, 0].detach().numpy()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)
