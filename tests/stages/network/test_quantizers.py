"""PACT's clip and the weights' grid, against the paper's equations and autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.network.quantizers import (
    ClipQuantizer,
    InputQuantizer,
    clip_bounds,
    keep_clips_positive,
    learned_step_start,
    set_rounding,
)
from stages.network.weight_quantizers import WeightQuantizer

numbers = st.floats(-20, 20, width=32)


def test_forward_is_equation_2_of_the_paper():
    clip = ClipQuantizer(bits=2, alpha=3.0, signed=False)
    x = torch.tensor([-1.0, 0.0, 0.49, 0.51, 1.4, 2.6, 3.0, 9.0])
    # round(clip(x, 0, 3) · 3 / 3) · 3 / 3: four levels, 0 1 2 3
    assert clip(x).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 3.0]


def test_ties_go_to_the_even_step_as_in_onnx():
    clip = ClipQuantizer(bits=2, alpha=3.0, signed=False)
    assert clip(torch.tensor([0.5, 1.5, 2.5])).tolist() == [0.0, 2.0, 2.0]


def test_gradient_of_alpha_is_zero_below_it_and_one_from_it_on():
    clip = ClipQuantizer(bits=4, alpha=2.0, signed=False)
    x = torch.tensor([-1.0, 0.3, 1.999, 2.0, 5.0], requires_grad=True)
    clip(x).backward(torch.tensor([10.0, 20.0, 30.0, 1.0, 2.0]))
    assert clip.alpha.grad.item() == 3.0  # LSQ's gradient would add the rounding error of the three below α
    assert x.grad.tolist() == [0.0, 20.0, 30.0, 0.0, 0.0]


def test_gradient_without_rounding_is_that_of_autograd_through_a_clamp():
    x = torch.linspace(-3, 3, 101).requires_grad_(True)
    clip = ClipQuantizer(bits=8, alpha=1.25, signed=False)
    weights = torch.linspace(1, 2, 101)
    (clip(x) * weights).sum().backward()
    alpha = torch.tensor(1.25, requires_grad=True)
    y = torch.tensor(x.detach().numpy(), requires_grad=True)
    (torch.minimum(torch.relu(y), alpha) * weights).sum().backward()
    assert torch.equal(x.grad, y.grad)
    assert clip.alpha.grad.item() == pytest.approx(alpha.grad.item(), rel=1e-6)


def test_signed_clip_has_the_range_of_an_int8():
    clip = ClipQuantizer(bits=8, alpha=1.27, signed=True)
    assert clip.bounds == pytest.approx((-1.28, 1.27))
    counts = clip(torch.tensor([-9.0, -1.275, 0.0, 0.004, 0.006, 9.0])) / clip.scale
    assert counts.round().tolist() == [-128, -128, 0, 0, 1, 127]
    x = torch.tensor([-9.0, 0.5, 9.0], requires_grad=True)
    clip(x).sum().backward()
    assert clip.alpha.grad.item() == pytest.approx(1 - 128 / 127, abs=1e-6)
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


@given(st.lists(numbers, min_size=1, max_size=20), st.integers(2, 8), st.floats(0.125, 12, width=32), st.booleans())
def test_result_lies_on_the_grid_and_within_half_a_step(values, bits, alpha, signed):
    clip = ClipQuantizer(bits, alpha, signed)
    x = torch.tensor(values)
    y = clip(x)
    counts = (y / clip.scale).double().detach()
    low, high = clip.bounds
    assert torch.allclose(counts, counts.round(), atol=1e-3)
    assert counts.round().min().item() >= (-clip.levels - 1 if signed else 0)
    assert counts.round().max().item() <= clip.levels
    step = float(clip.scale)
    assert (y - x.clamp(low, high)).abs().max().item() <= step / 2 * (1 + 1e-3)
    assert torch.allclose(clip(y), y, atol=step * 1e-3)


def test_image_quantizer_holds_zero_and_its_256_levels():
    mean, std = 0.306, 0.319
    low, high = (0 - mean) / std, (1 - mean) / std
    quantizer = InputQuantizer(low, high)
    pixels = (torch.arange(256) / 255 - mean) / std
    counts = quantizer(pixels) / quantizer.scale + quantizer.zero_point
    assert torch.equal(counts.round(), torch.arange(256.0))
    assert quantizer(torch.zeros(1)).item() == 0.0  # the padding of a convolution
    x = torch.tensor([0.1], requires_grad=True)
    quantizer(x).backward()
    assert x.grad.item() == 1.0


@pytest.mark.parametrize(("bits", "levels"), [(8, 127), (4, 7), (2, 1)])
def test_weights_use_every_level_of_their_own_channel(bits, levels):
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[4] = 0
    quantizer = WeightQuantizer(bits)
    integers = quantizer.integers(weight)
    assert integers.dtype == torch.int8
    assert integers.flatten(1).abs().amax(1).tolist() == [levels] * 4 + [0]
    scale = weight.abs().amax((1, 2, 3)) / levels
    assert torch.allclose(quantizer.scale(weight)[:4], scale[:4])
    assert (quantizer(weight) - weight).abs().flatten(1).amax(1).le(scale / 2 + 1e-7).all()


def test_weight_gradient_is_straight_through():
    weight = torch.randn(2, 4, requires_grad=True)
    WeightQuantizer(2)(weight).backward(torch.arange(8.0).reshape(2, 4))
    assert weight.grad.flatten().tolist() == list(range(8))


def test_rounding_can_be_switched_off_everywhere():
    network = torch.nn.Sequential(ClipQuantizer(2, 1.0, signed=False), ClipQuantizer(2, 1.0, signed=True))
    x = torch.tensor([0.123, 0.77])
    set_rounding(network, False)
    assert torch.equal(network(x), x)
    set_rounding(network, True)
    assert not torch.equal(network(x), x)


def test_clips_stay_positive():
    network = torch.nn.Sequential(ClipQuantizer(8, 1.0, signed=False), ClipQuantizer(8, 2.0, signed=False))
    with torch.no_grad():
        network[0].alpha.fill_(-0.5)
    keep_clips_positive(network)
    assert np.allclose([alpha.item() for alpha in clip_bounds(network)], [1e-3, 2.0])


def test_learned_step_starts_at_twice_the_mean_over_the_root_of_the_levels():
    values = torch.randn(6, 36, generator=torch.Generator().manual_seed(0)) * 0.1
    start = learned_step_start(values, 1).item()
    assert start == pytest.approx(2 * values.abs().mean().item(), rel=1e-6)
    assert learned_step_start(values, 127).item() == values.abs().max().item()  # 22 times the mean lies beyond
    assert learned_step_start(torch.zeros(3), 7).item() == 1.0
