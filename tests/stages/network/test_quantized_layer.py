"""Folding a batch norm into integers, against the unfolded arithmetic in float64."""

import pytest
import torch
from torch import nn

from stages.network.quantized_layer import QuantizedLayer
from stages.network.quantizers import ClipQuantizer
from stages.network.weight_quantizers import WeightQuantizer


def layer_with_norm(seed=0, groups=1):
    generator = torch.Generator().manual_seed(seed)
    conv, norm = nn.Conv2d(4, 6 if groups == 1 else 4, 3, padding=1, groups=groups, bias=False), None
    norm = nn.BatchNorm2d(conv.out_channels)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator))
        norm.weight.copy_(torch.randn(norm.weight.shape, generator=generator))  # both signs
        norm.bias.copy_(torch.randn(norm.bias.shape, generator=generator))
        norm.running_mean.copy_(torch.randn(norm.bias.shape, generator=generator))
        norm.running_var.copy_(torch.rand(norm.bias.shape, generator=generator) + 0.1)
    grid = ClipQuantizer(8, 3.0, signed=False)
    return QuantizedLayer(conv, norm, grid, None, WeightQuantizer(8)).eval(), grid


@pytest.mark.parametrize("groups", [1, 4])
def test_integers_are_the_layer_and_its_batch_norm(groups):
    layer, grid = layer_with_norm(groups=groups)
    x = grid(torch.rand(3, 4, 8, 8) * 4).detach()
    expected = layer.norm.double()(layer.layer.double()(x.double()))
    layer.float()
    found = layer(x).double()
    # What is left is the rounding of the bias to its own grid: half a step of s_x·s_w.
    bound = layer.integers().bias_scale.double().reshape(-1, 1, 1) * 0.5 + 1e-5
    assert ((found - expected).abs() <= bound).all()


def test_negative_gamma_flips_the_sign_of_the_integers_not_of_the_scale():
    layer, _ = layer_with_norm()
    trained = layer.quantizer.integers(layer.original_weight)
    shipped = layer.integers()
    signs = layer.norm.weight.sign().reshape(-1, 1, 1, 1)
    assert (layer.norm.weight < 0).any()
    assert torch.equal(shipped.weight, trained * signs.to(torch.int8))
    assert (shipped.weight_scale > 0).all()


def test_a_channel_that_batch_norm_switched_off_becomes_its_bias():
    layer, grid = layer_with_norm()
    with torch.no_grad():
        layer.norm.weight[2] = 0.0
        layer.norm.bias[2] = 0.75
    found = layer(grid(torch.rand(1, 4, 5, 5)))[0, 2]
    assert torch.allclose(found, torch.full_like(found, 0.75), atol=1e-3)


def test_a_bias_that_leaves_int32_moves_its_channel_to_a_coarser_grid():
    layer, grid = layer_with_norm()
    with torch.no_grad():
        layer.norm.weight[1] = 1e-9
        layer.norm.bias[1] = 5.0
    integers = layer.integers()
    assert integers.bias.abs().max().item() <= 2**31 - 1
    found = layer(grid(torch.rand(1, 4, 5, 5)))[0, 1]
    assert torch.allclose(found, torch.full_like(found, 5.0), rtol=1e-6)


def test_gradient_of_the_evaluated_layer_is_that_of_the_folded_convolution():
    layer, grid = layer_with_norm()
    x = grid(torch.rand(2, 4, 6, 6)).detach().requires_grad_(True)
    layer(x).sum().backward()
    integers = layer.integers()
    weight = integers.weight * integers.weight_scale.reshape(-1, 1, 1, 1)
    y = x.detach().clone().requires_grad_(True)
    nn.functional.conv2d(y, weight, padding=1).sum().backward()
    assert torch.allclose(x.grad, y.grad, rtol=1e-4, atol=1e-5)


def test_ties_are_decided_as_the_integer_kernel_decides_them():
    layer, grid = layer_with_norm()
    output = ClipQuantizer(8, 2.0, signed=True)
    decided = QuantizedLayer(
        nn.Conv2d(4, 6, 3, padding=1, bias=False), layer.norm, grid, output, WeightQuantizer(8)
    ).eval()
    with torch.no_grad():
        decided.layer.parametrizations.weight.original.copy_(layer.original_weight)
    x = grid(torch.rand(16, 4, 24, 24, generator=torch.Generator().manual_seed(1)) * 4).detach()
    integers = decided.integers()
    counts = (x / grid.scale).round().double()
    sums = nn.functional.conv2d(counts, integers.weight.double(), padding=1) + integers.bias.reshape(-1, 1, 1)
    multiplier = (integers.bias_scale / output.scale).reshape(-1, 1, 1)
    expected = torch.round(sums.float() * multiplier).clamp(-128, 127)  # QLinearConv, in its own float32 steps
    assert torch.equal((output(decided(x)) / output.scale).round(), expected)
