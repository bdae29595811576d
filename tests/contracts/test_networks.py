"""Every row of NETWORKS: plain modules that PACT goes into, with seeded weights and logits of the right shape."""

import pytest
import torch

from stages.network import NETWORKS, PactSettings, build_network
from stages.network.pact import insert_pact
from stages.network.quantized_layer import QuantizedLayer
from stages.network.quantizers import ClipQuantizer


@pytest.mark.parametrize("name", NETWORKS)
class TestEveryNetwork:
    @pytest.mark.parametrize(("channels", "classes", "size"), [(1, 2, 32), (3, 8, 48)])
    def test_gives_one_logit_per_class(self, name, channels, classes, size):
        network = build_network(name, channels, classes, seed=0).eval()
        assert network(torch.zeros(2, channels, size, size)).shape == (2, classes)

    def test_has_weights_that_follow_the_seed(self, name):
        first, again, other = (build_network(name, 1, 2, seed=seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert any(not torch.equal(first[key], other[key]) for key in first)

    def test_takes_pact_into_every_layer(self, name):
        plain = build_network(name, 3, 4, seed=0)
        layers = sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in plain.modules())
        network = insert_pact(plain, PactSettings(), (0.5,) * 3, (0.2,) * 3)
        quantized = [module for module in network.modules() if isinstance(module, QuantizedLayer)]
        assert len(quantized) == layers
        assert not any(isinstance(module, torch.nn.ReLU | torch.nn.ReLU6) for module in network.modules())
        network.eval()(torch.randn(2, 3, 32, 32)).sum().backward()
        clips = [module for module in network.modules() if isinstance(module, ClipQuantizer)]
        assert all(clip.alpha.grad is not None for clip in clips)

    def test_says_what_it_is(self, name):
        assert 10 < len(NETWORKS[name].description) < 80
