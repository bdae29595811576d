"""Batch norms' statistics taken anew: PyTorch's own update of them is the reference."""

import pytest
import torch
from torch.optim.swa_utils import update_bn

from stages.network import NETWORKS, PactSettings
from stages.network.checkpoint import NetworkSpec
from stages.network.pact import fit_clips
from stages.train.norm_statistics import norms_of, retake_statistics


def built(name, pact=None):
    spec = NetworkSpec(name, ("a", "b", "c"), 3, 32, (0.5,) * 3, (0.25,) * 3, pact, "multi_class")
    network = spec.build(0)
    if pact:
        fit_clips(network.train(), torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    return network


def some_batches(*sizes):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(size, 3, 32, 32, generator=generator) for size in sizes]


@pytest.mark.parametrize("pact", [None, PactSettings(weight_bits=2, activation_bits=2)], ids=["float", "w2a2"])
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_statistics_are_those_of_pytorchs_update_and_nothing_else_changes(name, pact):
    network, reference = built(name, pact), built(name, pact)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    images = some_batches(8, 8, 5)
    retake_statistics(network, images)
    reference.train()
    update_bn(images, reference)
    expected = reference.state_dict()
    for key, tensor in network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            assert torch.allclose(tensor, expected[key], rtol=1e-4, atol=1e-5), key
            assert not torch.equal(tensor, before[key]), key
        elif not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, before[key]), key
    assert {norm.momentum for norm in norms_of(network)} == {0.1}
    assert not any(module.training for module in network.modules())


def test_the_same_batches_give_the_same_statistics_whatever_they_were_before():
    network = built("resnet20")
    images = some_batches(6, 6)
    retake_statistics(network, images)
    once = {key: tensor.clone() for key, tensor in network.state_dict().items() if "running" in key}
    retake_statistics(network, images)
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in once.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_only_lenet_has_no_batch_norms(name):
    assert bool(norms_of(built(name))) is (name != "lenet5")
