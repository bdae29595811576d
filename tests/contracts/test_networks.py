"""Every row of NETWORKS: plain modules that PACT goes into, with seeded weights and logits of the right shape."""

import hashlib

import pytest
import torch

from stages.network import NETWORKS, PactSettings, build_network, check_network_name
from stages.network.pact import insert_pact
from stages.network.quantized_layer import QuantizedLayer
from stages.network.quantizers import ClipQuantizer

# From torchvision's table of models, at 1,000 classes; its VGG is the one with batch norm.
_TORCHVISION_WEIGHTS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "vgg11": 132_868_840,
    "vgg16": 138_365_992,
    "mobilenet_v2": 3_504_872,
    "densenet121": 7_978_856,
}
_VGG_HEAD = 512 * 49 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
_LIGHT_HEAD = 512 * 1000 + 1000
# He et al., table 6: 0.27, 0.46 and 0.85 million; ResNet-20's and -56's are those of akamaster's files.
_CIFAR_WEIGHTS = {"resnet20": 269_722, "resnet32": 464_154, "resnet56": 853_018}
# sha256 over the lines "name shape" of torchvision 0.29.1's state dict at 1,000 classes; VGG's without `classifier`.
_TORCHVISION_LAYOUTS = {
    "resnet18": (122, "84fb10d9c6905a1cbb020b284537dc97c4f4ec55fb2a780a41152a23a2dd0e9d"),
    "resnet50": (320, "d7e4f8bb0a5363446a59c81c3887ccf66900a11651a0ae2dec96d1bb1eb6ea81"),
    "vgg11": (56, "f7c4807262a63b1c127c84bf641e33a1424e51d1e5b0cab590a68a833b207d99"),
    "vgg16": (91, "4c6cd1a93c88397f6083518f6fcfd1cd0e28b244c50e700ce5966c4504883b67"),
    "mobilenet_v2": (314, "37bbbce8932fd0c49fe8e941719a7aa7b25b60c17b428749b72562f754135844"),
    "densenet121": (727, "aa0fd9923b0003b813430af55d9350bcf2555273dedae08042b92025727ccac8"),
}
_STRIDE_32 = ("resnet18", "resnet50", "vgg11", "vgg16", "mobilenet_v2", "densenet121")


def _without_memory(name: str, channels: int, classes: int) -> torch.nn.Module:
    with torch.device("meta"):
        return NETWORKS[name].build(channels, classes)


def _weights(name: str, channels: int, classes: int) -> int:
    return sum(weight.numel() for weight in _without_memory(name, channels, classes).parameters())


@pytest.mark.parametrize("name", NETWORKS)
class TestEveryNetwork:
    @pytest.mark.parametrize(("channels", "classes", "size"), [(1, 2, 32), (3, 8, 48)])
    def test_gives_one_logit_per_class_whatever_else_is_in_the_batch(self, name, channels, classes, size):
        network = build_network(name, channels, classes, seed=0).eval()
        images = torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            together, alone = network(images), network(images[:1])
        assert together.shape == (3, classes)
        assert torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-4)

    def test_has_weights_that_follow_the_seed(self, name):
        first, again, other = (build_network(name, 1, 2, seed=seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert any(not torch.equal(first[key], other[key]) for key in first)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_takes_pact_into_every_layer(self, name, channels):
        plain = build_network(name, channels, 4, seed=0)
        layers = sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in plain.modules())
        network = insert_pact(plain, PactSettings(), (0.5,) * channels, (0.2,) * channels).eval()
        quantized = [module for module in network.modules() if isinstance(module, QuantizedLayer)]
        assert len(quantized) == layers
        assert not any(isinstance(module, torch.nn.ReLU | torch.nn.ReLU6) for module in network.modules())
        network(torch.randn(2, channels, 32, 32)).sum().backward()
        clips = [module for module in network.modules() if isinstance(module, ClipQuantizer)]
        assert all(clip.alpha.grad is not None for clip in clips)

    def test_states_the_smallest_image_that_it_takes(self, name):
        least = NETWORKS[name].least_image_size
        network = _without_memory(name, 1, 2).eval()
        assert network(torch.zeros(2, 1, least, least, device="meta")).shape == (2, 2)
        if least > 1:
            with pytest.raises(RuntimeError):
                network(torch.zeros(2, 1, least - 1, least - 1, device="meta"))

    def test_says_what_it_is_and_how_large(self, name):
        description = NETWORKS[name].description
        assert 10 < len(description) < 80
        stated = float(description.split(" M weights")[0].split()[-1]) * 1e6
        assert _weights(name, 3, 4) == pytest.approx(stated, rel=0.07)

    def test_is_a_name_that_the_settings_take(self, name):
        check_network_name(name)


@pytest.mark.parametrize("name", _TORCHVISION_WEIGHTS)
def test_has_as_many_weights_as_published(name):
    published = _TORCHVISION_WEIGHTS[name]
    if name.startswith("vgg"):
        published += _LIGHT_HEAD - _VGG_HEAD
    assert _weights(name, 3, 1000) == published


@pytest.mark.parametrize("name", _CIFAR_WEIGHTS)
def test_cifar_resnet_has_as_many_weights_as_published(name):
    assert _weights(name, 3, 10) == _CIFAR_WEIGHTS[name]


def test_lenet5_has_its_61706_weights():
    # Every map of S2 connected to each of C3, pooling without weights: 156 + 2416 + 48120 + 10164 + 850.
    assert _weights("lenet5", 1, 10) == 61_706


@pytest.mark.parametrize("name", _TORCHVISION_LAYOUTS)
def test_names_and_shapes_its_tensors_as_torchvision_does(name):
    lines = [f"{key} {tuple(value.shape)}" for key, value in _without_memory(name, 3, 1000).state_dict().items()]
    if name.startswith("vgg"):
        lines = [line for line in lines if not line.startswith("classifier")]
    count, sha256 = _TORCHVISION_LAYOUTS[name]
    assert len(lines) == count
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == sha256


@pytest.mark.parametrize("name", _STRIDE_32)
def test_leaves_seven_by_seven_of_an_imagenet_image(name):
    network, sizes = _without_memory(name, 3, 2).eval(), []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, result: sizes.append(tuple(result.shape[2:])))
    network(torch.zeros(1, 3, 224, 224, device="meta"))
    assert sizes[0] in {(112, 112), (224, 224)}
    assert sizes[-1] == ((14, 14) if name.startswith("vgg") else (7, 7))


def test_the_stem_for_small_images_keeps_their_size_until_the_second_stage():
    network, sizes = _without_memory("resnet18-small", 1, 2).eval(), []
    for stage in (network.conv1, network.layer1, network.layer2, network.layer3, network.layer4):
        stage.register_forward_hook(lambda _, __, result: sizes.append(result.shape[-1]))
    network(torch.zeros(1, 1, 28, 28, device="meta"))
    assert sizes == [28, 28, 14, 7, 4]
