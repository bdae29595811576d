"""The autograd function under the learned clips: gradients in numpy, types, memory formats, repeated passes."""

import math

import numpy as np
import pytest
import torch

from stages.network.clip_function import clip_and_round
from stages.network.quantizers import ClipQuantizer

X = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 2
GRADIENT = torch.linspace(-1, 3, X.numel()).reshape(X.shape)


@pytest.mark.parametrize(("bits", "signed"), [(2, False), (4, False), (8, False), (3, True), (8, True)])
def test_lsq_gradients_are_equation_3_with_the_scale_of_section_2_2(bits, signed):
    clip = ClipQuantizer(bits, 1.5, signed, learning="lsq")
    x = X.clone().requires_grad_(True)
    clip(x).backward(GRADIENT)
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    low = -(2 ** (bits - 1)) if signed else 0
    v = X.double().numpy() * high / 1.5
    by_step = np.where(v <= low, low, np.where(v >= high, high, np.round(v) - v))
    scale = 1 / math.sqrt(3 * 5 * 5 * high)  # the features of one image
    assert clip.alpha.grad.item() == pytest.approx(high * (by_step * GRADIENT.numpy()).sum() * scale, rel=1e-3)
    assert np.allclose(x.grad.numpy(), np.where((v > low) & (v < high), GRADIENT.numpy(), 0))


@pytest.mark.parametrize("learning", ["pact", "lsq"])
@pytest.mark.parametrize("signed", [False, True])
def test_gradient_may_be_taken_twice_over_one_forward_pass(learning, signed):
    clip = ClipQuantizer(4, 1.5, signed, learning)
    x = X.clone().requires_grad_(True)
    y = (clip(x) * GRADIENT).sum()
    (first,) = torch.autograd.grad(y, x, retain_graph=True)
    y.backward()
    assert torch.equal(first, x.grad)
    alone = ClipQuantizer(4, 1.5, signed, learning)
    (alone(X) * GRADIENT).sum().backward()
    assert torch.equal(clip.alpha.grad, alone.alpha.grad)


@pytest.mark.parametrize("learning", ["pact", "lsq"])
@pytest.mark.parametrize("signed", [False, True])
def test_channels_last_changes_nothing(learning, signed):
    plain, last = (ClipQuantizer(4, 1.5, signed, learning) for _ in range(2))
    x = X.clone(memory_format=torch.channels_last).requires_grad_(True)
    y = last(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, plain(X))
    y.backward(GRADIENT)  # in the other format
    plain(X).backward(GRADIENT)
    assert last.alpha.grad.item() == pytest.approx(plain.alpha.grad.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("learning", ["pact", "lsq"])
def test_half_precision_goes_in_and_out_and_alpha_learns_in_float32(dtype, learning):
    clip, exact = (ClipQuantizer(4, 1.5, signed=False, learning=learning) for _ in range(2))
    x = X.to(dtype).requires_grad_(True)
    y = clip(x)
    y.backward(GRADIENT.to(dtype))
    assert y.dtype == x.grad.dtype == dtype
    assert clip.alpha.grad.dtype == torch.float32
    assert torch.equal(y, exact(X.to(dtype).float()).to(dtype))  # the steps are chosen in float32
    exact(X.to(dtype).float()).backward(GRADIENT.to(dtype).float())
    assert clip.alpha.grad.item() == pytest.approx(exact.alpha.grad.item(), rel=2e-2)


def test_autocast_leaves_the_grid_as_it_is():
    clip = ClipQuantizer(8, 1.5, signed=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clip(X), clip(X.clone()))
        assert clip(X).dtype == torch.float32


@pytest.mark.parametrize("alpha", np.linspace(0.1, 12, 40, dtype=np.float32))
def test_a_value_at_alpha_counts_as_clipped_whatever_the_division_gives(alpha):
    parameter = torch.tensor(alpha, requires_grad=True)
    x = torch.tensor([alpha], requires_grad=True)
    clip_and_round(x, parameter, 0, 255, True, 0).sum().backward()
    assert (x.grad.item(), parameter.grad.item()) == (0.0, 1.0)
