"""Saliency-guided training: what is masked, with what, and the loss, against the paper's algorithm written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch import nn

from stages.train.saliency_guided import mask_least_salient, saliency_guided_terms
from stages.train.settings import SaliencyGuidedSettings


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_like(images, seed):
    return torch.rand(images.shape, generator=generator(seed))


def test_the_lowest_gradients_are_replaced_and_the_rest_is_untouched():
    images = torch.rand(2, 3, 4, 4, generator=generator())
    gradient = torch.arange(16.0).reshape(1, 1, 4, 4).expand(2, 3, 4, 4)
    settings = SaliencyGuidedSettings(masked_fraction=0.25)
    masked = mask_least_salient(images, gradient, settings, noise_like(images, 1))
    changed = (masked != images).any(dim=1)
    assert changed[0].flatten().nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert torch.equal(masked[:, :, 1:], images[:, :, 1:])


def test_ranking_by_magnitude_and_by_sign_mask_different_pixels():
    images = torch.rand(1, 1, 1, 4, generator=generator())
    gradient = torch.tensor([[[[-9.0, -1.0, 2.0, 5.0]]]])

    def replaced(rank_by):
        settings = SaliencyGuidedSettings(masked_fraction=0.5, rank_by=rank_by)
        return (mask_least_salient(images, gradient, settings, noise_like(images, 1)) != images).flatten().tolist()

    assert replaced("magnitude") == [False, True, True, False]
    assert replaced("signed") == [True, True, False, False]


def test_the_mask_is_shared_by_the_channels_but_the_noise_is_not():
    images = torch.rand(1, 3, 8, 8, generator=generator())
    gradient = torch.randn(1, 3, 8, 8, generator=generator(2))
    masked = mask_least_salient(images, gradient, SaliencyGuidedSettings(), noise_like(images, 1))
    changed = masked != images
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert changed[:, 0].sum().item() == 32
    assert len(set(masked[changed].tolist())) == 96


@given(st.floats(0.05, 0.95), st.integers(0, 1000))
def test_noise_stays_between_the_extremes_of_image_and_channel(fraction, seed):
    images = torch.randn(3, 2, 6, 6, generator=generator(seed)) * torch.tensor([1.0, 5.0]).reshape(2, 1, 1)
    gradient = torch.randn(3, 2, 6, 6, generator=generator(seed + 1))
    settings = SaliencyGuidedSettings(masked_fraction=fraction)
    masked = mask_least_salient(images, gradient, settings, noise_like(images, seed))
    assert (masked.amax((2, 3)) <= images.amax((2, 3))).all()
    assert (masked.amin((2, 3)) >= images.amin((2, 3))).all()
    assert (masked != images).any(1).sum((1, 2)).tolist() == [round(fraction * 36)] * 3


def test_the_term_is_kl_of_plain_against_masked():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images, labels = torch.randn(5, 1, 4, 4, generator=generator()), torch.tensor([0, 1, 2, 1, 0])
    settings = SaliencyGuidedSettings()
    logits, divergence = saliency_guided_terms(
        network, images, labels, "multi_class", settings, noise_like(images, 9)
    )

    # For a linear network the gradient of the true class's logit is its row of weights.
    weight = network[1].weight.detach()
    gradient = weight[labels].reshape(5, 1, 4, 4)
    masked = mask_least_salient(images, gradient, settings, noise_like(images, 9))
    p = softmax(network(images).detach().numpy(), axis=1)
    log_p = log_softmax(network(images).detach().numpy(), axis=1)
    log_q = log_softmax(network(masked).detach().numpy(), axis=1)
    expected = (p * (log_p - log_q)).sum(axis=1).mean()
    assert expected > 0.01
    assert divergence.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(logits, network(images))


def test_one_input_gradient_and_two_forward_passes_per_batch():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.calls = nn.Linear(4, 2), []

        def forward(self, x):
            self.calls.append(len(x))
            return self.linear(x.flatten(1))

    network = Counting()
    images, labels = torch.rand(7, 1, 2, 2), torch.zeros(7, dtype=torch.int64)
    logits, divergence = saliency_guided_terms(
        network, images, labels, "multi_class", SaliencyGuidedSettings(), noise_like(images, 0)
    )
    (logits.sum() + divergence).backward()
    assert network.calls == [7, 7]  # no per-image loop
    assert network.linear.weight.grad.abs().sum() > 0


def test_masked_images_do_not_move_the_running_statistics():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3))
    images, labels = 5 + torch.randn(6, 1, 4, 4, generator=generator()), torch.zeros(6, dtype=torch.int64)
    saliency_guided_terms(network, images, labels, "multi_class", SaliencyGuidedSettings(), noise_like(images, 0))
    assert network[0].running_mean.item() == pytest.approx(0.1 * images.mean().item(), rel=1e-5)
    assert network[0].momentum == 0.1
