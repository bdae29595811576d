"""DoReFa, SAWB and LSQ on weights, against the papers' equations in numpy and the optimum that SAWB fits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from stages.network.weight_quantizers import (
    OPTIMAL_CLIP,
    SAWB_COEFFICIENTS,
    LearnedStepWeights,
    WeightQuantizer,
    weight_quantizer,
)

WEIGHT = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_dorefa_is_equation_9_times_the_largest_weight(bits):
    w = WEIGHT.double().numpy()
    steps = 2**bits - 1
    unit = np.tanh(w) / (2 * np.abs(np.tanh(w)).max()) + 0.5
    paper = 2 * np.round(unit * steps) / steps - 1
    found = WeightQuantizer(bits, "dorefa")(WEIGHT)
    assert np.allclose(found.numpy() / np.abs(w).max(), paper, atol=1e-6)
    assert np.abs(paper).min() > 0.9 / steps  # the grid has no zero


def test_dorefa_at_eight_bits_gives_up_one_level_for_a_zero_that_int8_holds():
    weight = torch.linspace(-0.3, 0.3, 4001).reshape(1, -1)
    integers = WeightQuantizer(8, "dorefa").integers(weight)
    assert integers.unique().tolist() == list(range(-127, 128))
    assert integers[0, 2000].item() == 0


def test_dorefa_gradient_is_that_of_the_tanh_it_rounds():
    weight = WEIGHT.clone().requires_grad_(True)
    factors = torch.linspace(-1, 1, WEIGHT.numel()).reshape(WEIGHT.shape)
    (WeightQuantizer(3, "dorefa")(weight) * factors).sum().backward()
    w = WEIGHT.double().requires_grad_(True)
    tanh = torch.tanh(w)
    (tanh / tanh.abs().max() * WEIGHT.abs().max() * factors).sum().backward()
    assert torch.allclose(weight.grad.double(), w.grad, atol=1e-5)


@pytest.mark.parametrize(
    ("bits", "c1", "c2"), [(2, 3.12, 2.064), (3, 7.509, 6.892), (4, 12.68, 12.80), (5, 17.74, 18.64)]
)
def test_sawb_clips_where_the_papers_coefficients_say(bits, c1, c2):
    w = WEIGHT.double().numpy()
    alpha = c1 * math.sqrt((w**2).mean()) - c2 * np.abs(w).mean()
    levels = np.linspace(-alpha, alpha, 2**bits)  # no zero among them
    nearest = levels[np.abs(w[..., None] - levels).argmin(-1)]
    assert np.allclose(WeightQuantizer(bits, "sawb")(WEIGHT).numpy(), nearest, atol=1e-6)


@pytest.mark.parametrize("bits", SAWB_COEFFICIENTS)
def test_sawb_is_near_the_least_error_on_the_distribution_it_was_fitted_to(bits):
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(1))

    def error(alpha):
        half = alpha / (2**bits - 1)
        steps = ((weight / half + 2**bits - 1) / 2).round().clamp(0, 2**bits - 1)
        return ((2 * steps - (2**bits - 1)) * half - weight).square().mean().item()

    best = min(error(alpha) for alpha in np.linspace(0.5, 4.5, 200))
    found = (WeightQuantizer(bits, "sawb")(weight) - weight).square().mean().item()
    symmetric = (WeightQuantizer(bits)(weight) - weight).square().mean().item()
    assert found <= 1.1 * best
    assert found < symmetric


@pytest.mark.parametrize("bits", [6, 7, 8])
def test_sawb_has_nothing_to_clip_from_six_bits_on(bits):
    assert torch.equal(WeightQuantizer(bits, "sawb")(WEIGHT), WeightQuantizer(bits)(WEIGHT))


def test_sawb_holds_its_clip_between_the_mean_and_the_largest_weight():
    binary = torch.tensor([[-0.5, 0.5, 0.5, -0.5]])  # c1·0.5 − c2·0.5 is negative at 4 bits
    assert torch.allclose(WeightQuantizer(4, "sawb")(binary), binary)


def test_sawb_keeps_the_gradient_of_what_it_clips():
    weight = torch.tensor([[0.1, -0.1, 0.1, 9.0]], requires_grad=True)
    WeightQuantizer(2, "sawb")(weight).backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert weight.grad.tolist() == [[1.0, 2.0, 3.0, 4.0]]


def learned_by_channel(quantizer, weight):
    """Steps, values in steps and the odd integers, by numpy's nearest of all levels."""
    high = 2**quantizer.bits - 1
    s = (quantizer.alpha.detach().double().numpy() / high).reshape(-1, *[1] * (weight.ndim - 1))
    v = weight.detach().double().numpy() / s
    grid = np.arange(-high, high + 1, 2)
    return s, v, grid[np.abs(v[..., None] - grid).argmin(axis=-1)], high


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_learned_steps_and_their_gradient_are_equations_1_to_3_on_levels_without_a_zero(bits):
    quantizer = LearnedStepWeights(bits, WEIGHT)
    with torch.no_grad():
        quantizer.alpha.mul_(torch.linspace(0.4, 0.9, len(WEIGHT)))  # so that some weights lie beyond
    weight = WEIGHT.clone().requires_grad_(True)
    gradient = torch.linspace(-1, 2, WEIGHT.numel()).reshape(WEIGHT.shape)
    found = quantizer(weight)
    found.backward(gradient)
    s, v, q, high = learned_by_channel(quantizer, WEIGHT)
    assert np.allclose(found.detach().numpy(), q * s, atol=1e-6)
    by_step = np.where(np.abs(v) >= high, np.sign(v) * high, q - v) * gradient.numpy()
    by_step = by_step.reshape(len(v), -1).sum(axis=1) / math.sqrt(v[0].size * high)
    # α = high·s moves under SGD as high times s would when its gradient is high times that of s.
    assert quantizer.alpha.grad.numpy() == pytest.approx(high * by_step, rel=1e-3, abs=1e-4)
    assert np.allclose(weight.grad.numpy(), np.where(np.abs(v) < high, gradient.numpy(), 0))


def test_sgd_moves_alpha_as_it_would_move_the_step():
    quantizer = LearnedStepWeights(4, WEIGHT)
    with torch.no_grad():
        quantizer.alpha.mul_(0.9)  # no weight exactly at the end
    s, v, q, high = learned_by_channel(quantizer, WEIGHT)
    quantizer(WEIGHT).backward(torch.ones_like(WEIGHT))
    by_step = np.where(np.abs(v) >= high, np.sign(v) * high, q - v).reshape(len(v), -1).sum(axis=1)
    by_step /= math.sqrt(v[0].size * high)
    torch.optim.SGD([quantizer.alpha], lr=0.01).step()
    assert quantizer.alpha.detach().numpy() / high == pytest.approx(s.ravel() - 0.01 * by_step, rel=1e-4)


@pytest.mark.parametrize("bits", range(2, 8))
def test_learned_steps_start_where_a_normal_distribution_loses_least(bits):
    high = 2**bits - 1

    def squared_error(clip):
        levels = np.arange(-high, high + 1, 2) / high * clip
        between = (levels[1:] + levels[:-1]) / 2
        edges = np.concatenate([[-12.0], between, [12.0]])  # in standard deviations
        share, mean = np.diff(norm.cdf(edges)), -np.diff(norm.pdf(edges))
        square = share - np.diff(edges * norm.pdf(edges))
        return (square - 2 * levels * mean + levels**2 * share).sum()

    best = minimize_scalar(squared_error, bounds=(1, 6), method="bounded").x
    assert OPTIMAL_CLIP[bits] == pytest.approx(best, abs=6e-4)
    weight = torch.randn(3, 50_000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [0.1], [7.0]])
    assert LearnedStepWeights(bits, weight).alpha.tolist() == pytest.approx([best, 0.1 * best, 7 * best], rel=0.01)
    assert LearnedStepWeights(bits, torch.ones(1, 9)).alpha.item() == 1  # never beyond the largest weight


def test_eight_bits_have_no_learned_step():
    assert torch.equal(weight_quantizer("lsq", 8, WEIGHT)(WEIGHT), WeightQuantizer(8)(WEIGHT))


@pytest.mark.parametrize("name", ["symmetric", "dorefa", "sawb", "lsq"])
@given(bits=st.integers(2, 8), seed=st.integers(0, 99), size=st.sampled_from([1e-4, 1.0, 30.0]))
def test_integers_times_scale_is_what_training_computes_with(name, bits, seed, size):
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)) * size
    quantizer = weight_quantizer(name, bits, weight)
    integers, scale = quantizer.integers(weight), quantizer.scale(weight)
    assert integers.dtype == torch.int8
    assert scale.shape == (3,)
    assert (scale > 0).all()
    assert integers.int().abs().max() <= 127  # a batch norm may turn the sign
    assert len(integers.unique()) <= 2**bits
    assert torch.allclose(integers * scale[:, None], quantizer(weight).detach(), rtol=1e-5, atol=1e-6 * size)


@pytest.mark.parametrize("name", ["symmetric", "dorefa", "sawb", "lsq"])
@pytest.mark.parametrize("bits", [2, 8])
def test_a_layer_of_zeros_stays_finite(name, bits):
    weight = torch.zeros(2, 3, requires_grad=True)
    quantizer = weight_quantizer(name, bits, weight)
    quantizer(weight).sum().backward()
    assert quantizer(weight).abs().max().item() <= 1e-9
    assert weight.grad.isfinite().all()


def test_without_rounding_dorefa_keeps_its_tanh_and_lsq_its_clip():
    dorefa, learned = WeightQuantizer(2, "dorefa"), LearnedStepWeights(2, WEIGHT)
    for quantizer in (dorefa, learned):
        quantizer.rounding = False
    expected = torch.tanh(WEIGHT) / torch.tanh(WEIGHT).abs().max() * WEIGHT.abs().max()
    assert torch.allclose(dorefa(WEIGHT), expected)
    alpha = learned.alpha.detach().reshape(-1, *[1] * (WEIGHT.dim() - 1))
    assert torch.allclose(learned(WEIGHT), WEIGHT.clamp(-alpha, alpha))
