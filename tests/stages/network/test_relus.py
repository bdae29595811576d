"""Every ReLU of a network as a module: the same answers, the same order in a float network and in its PACT form."""

import pytest
import torch
from torch import nn

from foundation.errors import UsageError
from stages.network import NETWORKS, PactSettings, build_network
from stages.network.pact import insert_pact
from stages.network.quantizers import ClipQuantizer, set_rounding
from stages.network.relus import block_ends, relu_modules

SIZES = {"densenet121": 32, "vgg11": 32, "vgg16": 32, "resnet18": 32, "resnet50": 32, "mobilenet_v2": 32}


def passed(network, relus, images):
    outputs = []
    for relu in relus:
        relu.register_forward_hook(lambda _, inputs, output: outputs.append(output.clone()))
    with torch.no_grad():
        logits = network(images)
    return logits, outputs


@pytest.mark.parametrize("name", NETWORKS)
def test_a_student_with_wide_clips_and_no_rounding_passes_what_its_float_teacher_does(name):
    torch.manual_seed(0)
    images = torch.randn(4, 3, SIZES.get(name, 28), SIZES.get(name, 28))
    teacher = build_network(name, 3, 5, seed=1).train()
    for module in teacher.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        expected = teacher(images)
    float_network, relus = relu_modules(teacher, "setting")
    logits, hints = passed(float_network, relus, images)
    assert torch.equal(logits, expected)

    quantized = insert_pact(teacher, PactSettings(alpha_init=1e6), (0.5,) * 3, (0.25,) * 3).train()
    set_rounding(quantized, False)
    same, clips = relu_modules(quantized, "setting")
    assert same is quantized
    assert all(isinstance(clip, ClipQuantizer) for clip in clips)
    logits, features = passed(quantized, clips, images)
    assert [f.shape for f in features] == [h.shape for h in hints]
    for ours, theirs in zip(features, hints, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max())


def test_resnet20_has_nineteen_and_the_clips_behind_shortcuts_are_not_among_them():
    settings = PactSettings(weight_bits=2, activation_bits=2, shortcut_bits=8)
    network = insert_pact(build_network("resnet20", 3, 10, seed=0), settings, (0.5,) * 3, (0.25,) * 3)
    _, relus = relu_modules(network, "setting")
    assert len(relus) == 19
    # The stem and each block's end go past layers, with eight bits; within a block the next layer's two bits suffice.
    assert [relu.bits for relu in relus] == [8] + [2, 8] * 9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("resnet20", (0, 2, 4, 6, 8, 10, 12, 14, 16, 18), id="shortcuts that only select"),
        pytest.param("resnet18", (0, 2, 4, 6, 8, 10, 12, 14, 16), id="shortcuts with a layer and a pool"),
        pytest.param("resnet50", tuple(range(0, 49, 3)), id="bottlenecks"),
        pytest.param("vgg11", tuple(range(8)), id="no shortcuts"),
        pytest.param("densenet121", tuple(range(121)), id="nothing added"),
        pytest.param("mobilenet_v2", tuple(range(35)), id="shortcuts without a ReLU"),
    ],
)
def test_blocks_end_where_shortcuts_leave_and_behind_the_last_layer(name, expected):
    assert block_ends(build_network(name, 3, 10, seed=0), "setting") == expected


def test_the_parameters_stay_those_of_the_network():
    network = build_network("cnn-small", 1, 3, seed=0)
    other, _ = relu_modules(network, "setting")
    assert {id(p) for p in other.parameters()} == {id(p) for p in network.parameters()}
    assert list(other.state_dict()) == list(network.state_dict())


def test_a_network_without_relus_is_refused_by_the_setting_that_asks():
    with pytest.raises(UsageError, match=r"^train\.x: expected a network with ReLU or ReLU6, found none"):
        relu_modules(nn.Sequential(nn.Conv2d(1, 2, 1), nn.SiLU()), "train.x")


def test_a_network_that_cannot_be_traced_is_refused_by_the_setting_that_asks():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(UsageError, match=r"^train\.x: expected a network that torch\.fx can trace, found that Br"):
        relu_modules(Branches(), "train.x")
