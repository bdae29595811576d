"""The twin's map against torch.autograd of the network that was exported: float, and PACT in its integers.

The size of Grad-CAM's maps of the deepest networks is asked here too, where their files are.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from stages.export.onnx_file import write_onnx
from stages.export.pact_to_qdq import export_pact
from stages.export.settings import ExportSettings, PactExportSettings
from stages.network import PactSettings, build_network
from stages.network.checkpoint import NetworkSpec, load_checkpoint, save_checkpoint
from stages.network.normalisation import normalise
from stages.network.pact import fit_clips
from stages.saliency_twin.grad_cam import make_grad_cam
from stages.saliency_twin.twin_file import make_twin

CLASSES = 5
PREDICTED = -1


class SqueezeAndExcitation(nn.Module):
    """A small network of EfficientNet's parts: SiLU, depthwise convolution, squeeze-and-excitation, shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.expand = nn.Sequential(
            nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.SiLU(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.SiLU()
        )
        self.squeeze = nn.Sequential(nn.Conv2d(16, 4, 1), nn.SiLU(), nn.Conv2d(4, 16, 1), nn.Sigmoid())
        self.project = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = self.stem(x)
        wide = self.expand(stem)
        x = stem + self.project(wide * self.squeeze(wide.mean((2, 3), keepdim=True)))
        return self.head(x.mean((2, 3)))


def spec_of(network: str, size: int, pact: PactSettings | None = None) -> NetworkSpec:
    channels = 1 if network == "lenet5" else 3
    mean, std = (0.5, 0.4, 0.45)[:channels], (0.25, 0.3, 0.2)[:channels]
    return NetworkSpec(
        network=network, channels=channels, image_size=size, classes=tuple("abcde"), mean=mean, std=std, pact=pact
    )


def with_statistics(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and slopes that differ from channel to channel."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for values, low in ((norm.running_mean, -0.2), (norm.running_var, 0.5), (norm.weight, 0.5)):
                    values.copy_(low + torch.rand(values.shape, generator=generator))
    return network


def autograd_map(network, spec, images, classes):
    leaf = torch.from_numpy(images).float().requires_grad_()
    logits = network(normalise(leaf, spec.mean, spec.std))
    (gradient,) = torch.autograd.grad(logits.gather(1, torch.from_numpy(classes)[:, None]).sum(), leaf)
    return gradient.numpy()


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


DEEP = {"resnet20": 32, "resnet18": 64, "vgg11": 32, "mobilenet_v2": 64, "densenet121": 64}
FLOAT = [
    ("lenet5", 28),
    ("squeeze-and-excitation", 32),
    *(pytest.param(name, size, marks=pytest.mark.long) for name, size in DEEP.items()),
]


@pytest.fixture(scope="module")
def float_file(tmp_path_factory):
    """Return what gives what a network takes, the network, and its file, which is written once: that costs most."""

    @cache
    def written(name, size):
        spec, network = spec_of(name, size), float_network(name, size)
        path = tmp_path_factory.mktemp(name) / "fp32.onnx"
        write_onnx(network, spec, ExportSettings(), "fp32", "0" * 64, path)
        return spec, network, path

    return written


def float_network(name, size):
    if name == "squeeze-and-excitation":
        torch.manual_seed(0)
        network = SqueezeAndExcitation()
    else:
        network = build_network(name, spec_of(name, size).channels, CLASSES, 0)
    return with_statistics(network).eval()


@pytest.mark.parametrize(("name", "size"), FLOAT)
def test_a_float_network_has_autograds_map_and_its_own_logits(name, size, float_file, session, pixels):
    spec, network, path = float_file(name, size)
    twin = make_twin(path, None, None, None)
    images = pixels(2, spec.channels, size)

    (plain,) = session(path).run(None, {"image": images})
    targets = np.array([PREDICTED, 3])
    logits, saliency, explained = session(twin).run(None, {"image": images, "target": targets})

    assert np.array_equal(logits, plain)
    assert explained.tolist() == [int(plain[0].argmax()), 3]
    assert saliency.shape == images.shape
    assert relative_error(saliency, autograd_map(network, spec, images, explained)) < 1e-5
    # The weights stand in the file once.
    assert twin.stat().st_size < 1.02 * path.stat().st_size + 15_000


@pytest.mark.long
@pytest.mark.parametrize("name", ["vgg11", "densenet121"])
def test_the_maps_before_the_last_pool_are_found(name, float_file, session, pixels):
    _, _, path = float_file(name, DEEP[name])
    _, found, _ = session(make_grad_cam(path)).run(None, {"image": pixels(1, 3, DEEP[name]), "target": np.array([1])})
    assert found.shape == (1, 1, 2, 2)


TWO_BITS = PactSettings(weight_bits=2, activation_bits=2, weight_quantizer="lsq", activation_quantizer="lsq")
PACT = [
    ("resnet8", PactSettings(alpha_init=3.0)),
    ("resnet8", PactSettings(alpha_init=3.0, weight_bits=4, activation_bits=4)),
    pytest.param("cnn-small", TWO_BITS, marks=pytest.mark.long),
    pytest.param("lenet5", PactSettings(alpha_init=3.0), marks=pytest.mark.long),
    pytest.param("resnet20", PactSettings(weight_bits=4, activation_bits=4), marks=pytest.mark.long),
    pytest.param("mobilenet_v2", PactSettings(), marks=pytest.mark.long),
]


@pytest.mark.parametrize(("name", "settings"), PACT)
def test_a_pact_file_has_the_map_of_the_networks_own_fake_quantization(name, settings, tmp_path, session, pixels):
    size = {"lenet5": 28, "mobilenet_v2": 32}.get(name, 16)
    spec = spec_of(name, size, settings)
    images = pixels(8, spec.channels, size)
    network = with_statistics(spec.build(0))
    batch = normalise(torch.from_numpy(images), spec.mean, spec.std)
    network.train()
    fit_clips(network, batch)
    checkpoint = save_checkpoint(tmp_path / "checkpoint.safetensors", spec, network.eval())
    model = export_pact(
        checkpoint, "pact", PactExportSettings(target="x86-avx2"), ExportSettings(), images, tmp_path / "pact.onnx"
    )
    twin = make_twin(model.path, None, None, None)

    (plain,) = session(model.path, tmp_path / "plain.optimized.onnx").run(None, {"image": images})
    twin_session = session(twin, tmp_path / "twin.optimized.onnx")
    logits, saliency, explained = twin_session.run(None, {"image": images, "target": np.full(8, PREDICTED)})

    assert np.array_equal(logits, plain)
    _, own = load_checkpoint(checkpoint)
    # Values on a clip's bound (0, often) decide: one of them taken for a value beside it costs a percent.
    assert relative_error(saliency, autograd_map(own.eval(), spec, images, explained)) < 1e-5
    # The forward half still runs in integers.
    counts = [
        Counter(n.op_type for n in onnx.load(tmp_path / f"{which}.optimized.onnx").graph.node)
        for which in ("plain", "twin")
    ]
    for operator in ("QLinearConv", "QGemm"):
        assert counts[0][operator] == counts[1][operator] > 0
