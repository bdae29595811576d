"""PACT goes into networks as they are written: where its quantizers stand, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foundation.errors import UsageError
from stages.network import PactSettings, build_network
from stages.network.pact import fit_clips, insert_pact
from stages.network.quantized_layer import FloatNorm, QuantizedLayer
from stages.network.quantizers import ClipQuantizer, InputQuantizer, set_rounding

GRAY = ((0.5,), (0.25,))
RGB = ((0.5,) * 3, (0.25,) * 3)


def clips(network, prefix=""):
    return {n: m for n, m in network.named_modules() if isinstance(m, ClipQuantizer) and n.startswith(prefix)}


class OneReluTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x):
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.head(x.mean((2, 3)))


def test_each_call_of_one_relu_gets_an_alpha_of_its_own():
    network = insert_pact(OneReluTwice(), PactSettings(), *GRAY)
    assert list(clips(network, "pact_")) == ["pact_0", "pact_1"]
    network.pact_0.alpha.data.fill_(0.25)
    assert network.pact_1.alpha.item() == 10.0


def test_functional_and_method_relus_are_found():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            x = torch.relu(self.c(self.b(F.relu6(self.a(x))).relu()))
            return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))

    network = insert_pact(Functional(), PactSettings(), *GRAY)
    found = clips(network, "pact_")
    assert [clip.alpha.item() for clip in found.values()] == [6.0, 10.0, 10.0]


def test_residual_network_is_quantized_on_both_sides_of_its_additions():
    network = insert_pact(build_network("resnet20", 3, 10, seed=0), PactSettings(), (0.5,) * 3, (0.2,) * 3)
    layers = [module for module in network.modules() if isinstance(module, QuantizedLayer)]
    assert len(layers) == 20
    assert len(clips(network, "pact_")) == 19
    assert len(clips(network, "output_clip_")) == 9  # the second convolution of each block
    assert all(clip.signed for clip in clips(network, "output_clip_").values())
    (pooled,) = clips(network, "input_clip_").values()
    assert not pooled.signed  # the mean of what a ReLU let through
    assert sum(isinstance(module, InputQuantizer) for module in network.modules()) == 1


def test_shortcuts_of_eight_bits_leave_two_bits_to_the_layers():
    settings = PactSettings(weight_bits=2, activation_bits=2, shortcut_bits=8)
    network = insert_pact(build_network("resnet20", 3, 10, seed=0), settings, *RGB)
    past = {name: clip.bits for name, clip in clips(network, "pact_").items() if "_layers" not in name}
    assert list(past.values()) == [8, *[2, 8] * 9]  # the stem's; inside and behind each of the nine blocks
    into = clips(network, "pact_0_layers") | clips(network, "pact_2_layers")
    assert {clip.bits for clip in into.values()} == {2}
    # Nine clips into the first layers of the blocks; what is averaged for the last layer keeps its eight bits.
    assert [name for name in clips(network, "pact_") if "_layers" in name] == [
        f"pact_{2 * block}_layers_0" for block in range(9)
    ]
    grids = [module.grid for module in network.modules() if isinstance(module, QuantizedLayer)]
    assert [getattr(grid, "bits", 8) for grid in grids] == [8, *[2, 2] * 9, 8]


def test_a_pool_in_front_of_a_shortcut_leaves_the_layers_their_bits():
    settings = PactSettings(weight_bits=2, activation_bits=2, shortcut_bits=8)
    network = insert_pact(build_network("resnet18", 3, 10, seed=0), settings, *RGB)
    assert clips(network, "pact_0")["pact_0"].bits == 8  # the stem's, whose max pool feeds a layer and an addition
    grids = [module.grid for module in network.modules() if isinstance(module, QuantizedLayer)]
    bits = [getattr(grid, "bits", 8) for grid in grids]
    assert (bits[0], set(bits[1:-1]), bits[-1]) == (8, {2}, 8)


def test_shortcut_bits_hold_in_front_of_an_average_and_leave_the_graph_alone_where_nothing_branches():
    plain, kept = (
        insert_pact(
            build_network("lenet5", 1, 10, seed=0), PactSettings(activation_bits=3, shortcut_bits=bits), *GRAY
        )
        for bits in (None, 8)
    )
    assert str(plain.graph) == str(kept.graph)
    assert [clip.bits for clip in clips(plain, "pact_").values()] == [3, 3, 3, 8]
    assert [clip.bits for clip in clips(kept, "pact_").values()] == [3, 3, 8, 8]


def test_first_and_last_layer_keep_eight_bits():
    settings = PactSettings(weight_bits=2, activation_bits=3)
    network = insert_pact(build_network("cnn-small", 1, 4, seed=0), settings, *GRAY)
    layers = [module for module in network.modules() if isinstance(module, QuantizedLayer)]
    assert [layer.quantizer.bits for layer in layers] == [8, 2, 2, 2, 8]
    assert {clip.bits for clip in clips(network, "pact_").values()} == {3}
    assert {clip.bits for clip in clips(network, "input_clip_").values()} == {8}


def test_with_rounding_off_and_wide_clips_nothing_changes():
    plain = build_network("mobilenet_v2", 3, 5, seed=1).eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = plain(images)
        network = insert_pact(plain, PactSettings(alpha_init=1e4), (0.5,) * 3, (0.2,) * 3).eval()
        set_rounding(network, False)
        assert torch.allclose(network(images), expected, atol=1e-5)


def test_inserted_clips_start_at_the_largest_value_they_see_and_leave_statistics_alone():
    network = insert_pact(build_network("resnet8", 1, 4, seed=0), PactSettings(), *GRAY).train()
    images = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    seen = {}
    set_rounding(network, False)
    fit_clips(network, images)
    for name, clip in clips(network).items():
        clip.register_forward_pre_hook(lambda _, x, name=name: seen.__setitem__(name, x[0].abs().max().item()))
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    assert {clip.alpha.item() for clip in clips(network, "pact_").values()} == {10.0}
    network(images)
    inserted = {name: clip for name, clip in clips(network).items() if not name.startswith("pact_")}
    assert inserted
    for name, clip in inserted.items():
        assert clip.alpha.item() == pytest.approx(seen[name], rel=1e-5)


def test_bits_of_a_layer_are_those_of_its_weights_and_of_the_relu_that_feeds_it():
    settings = PactSettings(
        weight_bits=4, activation_bits=4, layer_bits={"layer2.*.conv2": {"weight_bits": 2, "activation_bits": 3}}
    )
    network = insert_pact(build_network("resnet20", 3, 10, seed=0), settings, (0.5,) * 3, (0.2,) * 3)
    layers = [module for module in network.modules() if isinstance(module, QuantizedLayer)]
    assert [layer.quantizer.bits for layer in layers] == [8] + [4] * 6 + [4, 2] * 3 + [4] * 6 + [8]
    fed = [layer.grid.bits for layer in layers[1:-1]]
    assert fed == [4] * 6 + [4, 3] * 3 + [4] * 6


def test_a_relu_that_feeds_two_layers_takes_the_wider_ones_bits():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            x = F.relu(self.stem(x))
            x = F.relu(self.a(x)) + F.relu(self.b(F.max_pool2d(x, 1)))
            return self.head(x.mean((2, 3)))

    settings = PactSettings(layer_bits={"a": {"activation_bits": 2}, "b": {"activation_bits": 5}})
    assert insert_pact(Fork(), settings, *GRAY).pact_0.bits == 5


def test_dropout_between_the_last_relu_and_the_last_layer_does_not_take_its_eight_bits():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten(), nn.Dropout())
    network.append(nn.Linear(8, 2))
    network = insert_pact(network, PactSettings(weight_bits=2, activation_bits=2), *GRAY)
    assert [clip.bits for clip in clips(network, "pact_").values()] == [2, 8]


def test_a_batch_norm_in_front_of_its_layer_stays_in_float():
    network = insert_pact(build_network("densenet121", 1, 3, seed=0), PactSettings(weight_bits=4), *GRAY)
    norms = [module for module in network.modules() if isinstance(module, FloatNorm)]
    folded = [m for m in network.modules() if isinstance(m, QuantizedLayer) and m.norm is not None]
    assert (len(norms), len(folded)) == (62, 59)  # of DenseNet-121's 121 batch norms
    norm = norms[0].norm
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.weight.uniform_(-2, 2)
    x = torch.randn(2, norm.num_features, 4, 4)
    assert torch.allclose(norms[0].eval()(x), norm.eval()(x), atol=1e-5)


def test_lsq_starts_every_range_from_what_it_sees():
    settings = PactSettings(weight_bits=4, activation_bits=4, weight_quantizer="lsq", activation_quantizer="lsq")
    network = insert_pact(build_network("resnet8", 1, 4, seed=0), settings, *GRAY).train()
    images = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    layer = network.layer_1
    with torch.no_grad():
        layer.layer.parametrizations.weight.original.mul_(5)  # as when weights at hand are loaded
    seen = {}
    network.pact_1.register_forward_pre_hook(lambda _, x: seen.update(x=x[0]))
    fit_clips(network, images)
    weight = layer.original_weight.flatten(1)
    expected = torch.minimum(2.514 * weight.square().mean(dim=1).sqrt(), weight.abs().amax(dim=1))
    assert layer.quantizer.alpha.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    values = seen["x"].relu()
    expected = min(2 * values.mean().item() * 15**0.5, values.max().item())
    assert network.pact_1.alpha.item() == pytest.approx(expected, rel=1e-5)


def test_a_network_without_relu_is_refused():
    with pytest.raises(UsageError, match="found none"):
        insert_pact(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh()), PactSettings(), *GRAY)


def test_a_network_that_cannot_be_traced_is_refused_by_name():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(UsageError, match="Branching"):
        insert_pact(Branching(), PactSettings(), *GRAY)


def test_a_layer_called_twice_is_refused():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(1, 2)

        def forward(self, x):
            x = F.relu(self.conv(F.relu(self.conv(x))))
            return self.head(x.mean((2, 3)))

    with pytest.raises(UsageError, match="conv called several times"):
        insert_pact(Shared(), PactSettings(), *GRAY)
