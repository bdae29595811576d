"""Every quantizer, bit width and form of network ships the integers it trained with."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from onnx_files.packed_weights import pack_weights
from stages.export.onnx_file import write_onnx
from stages.export.pact_to_qdq import export_pact, to_integers
from stages.export.settings import ExportSettings, PactExportSettings
from stages.network import PactSettings
from stages.network.checkpoint import NetworkSpec, load_checkpoint, save_checkpoint
from stages.network.normalisation import normalise
from stages.network.pact import fit_clips, insert_pact
from stages.network.quantizers import keep_clips_positive
from stages.network.settings import LayerBits

SAFE = PactExportSettings(target="x86-avx2")  # exact on every processor
MIXED = PactSettings(
    weight_bits=4,
    activation_bits=4,
    layer_bits={
        "blocks.1.0": LayerBits(weight_bits=2, activation_bits=3),
        "blocks.2.*": LayerBits(weight_bits=5, activation_bits=8),
        "blocks.3.0": LayerBits(activation_bits=2),
    },
)
METHODS = [("symmetric", "pact"), ("dorefa", "pact"), ("sawb", "pact"), ("lsq", "lsq")]
INTEGER_OPERATORS = ("QLinearConv", "QGemm", "QLinearMatMul")


def trained_a_little(data, pact, network="cnn-small"):
    spec = NetworkSpec(network, data.classes, 1, 16, data.mean, data.std, pact)
    network = spec.build(0).train()
    images = normalise(torch.from_numpy(data.train.images), spec.mean, spec.std)
    fit_clips(network, images[:48])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for _ in range(6):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), torch.from_numpy(data.train.labels)).backward()
        optimizer.step()
        keep_clips_positive(network)
    return network.eval(), spec


def run_onnx(path, images, optimized=""):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = optimized
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def relative_difference(found, expected):
    return np.abs(found - expected).max() / (expected.max() - expected.min())


@pytest.mark.parametrize("bits", ["mixed", *(pytest.param(bits, marks=pytest.mark.long) for bits in (8, 6, 4, 3, 2))])
@pytest.mark.parametrize(("weights", "activations"), METHODS)
def test_every_quantizer_ships_the_integers_it_trained_with(stripes, bits, weights, activations, tmp_path):
    pact = MIXED if bits == "mixed" else PactSettings(weight_bits=bits, activation_bits=bits)
    pact = pact.model_copy(update={"weight_quantizer": weights, "activation_quantizer": activations})
    checkpoint = save_checkpoint(tmp_path / "trained.safetensors", *reversed(trained_a_little(stripes, pact)))
    images = stripes.test.images
    model = export_pact(checkpoint, "low", SAFE, ExportSettings(), images, tmp_path / "low.onnx")
    spec, network = load_checkpoint(checkpoint)
    with torch.no_grad():
        expected = network(normalise(torch.from_numpy(images), spec.mean, spec.std)).numpy()
    assert relative_difference(run_onnx(model.path, images), expected) <= 1e-6  # the bound to ship is 1e-3
    assert model.notes.layers_run_in_integers == model.notes.layers == 5


def test_weights_in_int8_answer_as_packed_ones_and_keep_their_levels(stripes, tmp_path):
    pact = PactSettings(weight_bits=4, activation_bits=3)
    checkpoint = save_checkpoint(tmp_path / "trained.safetensors", *reversed(trained_a_little(stripes, pact)))
    images = stripes.test.images
    settings = PactExportSettings(target="x86-avx2", weight_storage="int8")
    packed = export_pact(checkpoint, "packed", SAFE, ExportSettings(), images, tmp_path / "packed.onnx")
    plain = export_pact(checkpoint, "plain", settings, ExportSettings(), images, tmp_path / "plain.onnx")
    assert np.array_equal(run_onnx(packed.path, images), run_onnx(plain.path, images))
    graph = onnx.load(plain.path).graph
    weights = [numpy_helper.to_array(i) for i in graph.initializer if len(i.dims) == 4]
    assert weights[1].dtype == np.int8  # a few bits cannot saturate
    assert sorted(np.unique(weights[1])) == list(range(-7, 8))
    unsigned = [numpy_helper.to_array(i) for i in graph.initializer if i.data_type == onnx.TensorProto.UINT8]
    assert 7 in [
        constant.item() for constant in unsigned if constant.size == 1
    ]  # activations end at 2^3 − 1, not at the end of uint8


@pytest.mark.parametrize("bits", [2, 4])
def test_shortcuts_of_eight_bits_beside_layers_of_fewer_ship_as_they_trained(stripes, bits, tmp_path):
    pact = PactSettings(
        weight_bits=bits, activation_bits=bits, shortcut_bits=8, weight_quantizer="lsq", activation_quantizer="lsq"
    )
    checkpoint = save_checkpoint(tmp_path / "a.safetensors", *reversed(trained_a_little(stripes, pact, "resnet8")))
    images = stripes.test.images
    model = export_pact(checkpoint, "low", SAFE, ExportSettings(), images, tmp_path / "low.onnx")
    spec, network = load_checkpoint(checkpoint)
    with torch.no_grad():
        expected = network(normalise(torch.from_numpy(images), spec.mean, spec.std)).numpy()
    assert relative_difference(run_onnx(model.path, images), expected) <= 1e-6
    assert model.notes.layers_run_in_integers == model.notes.layers == 8


@pytest.mark.long
def test_a_four_bit_resnet20_is_about_half_an_eight_bit_one(stripes, tmp_path):
    sizes = {}
    for bits in (8, 4, 2):
        pact = PactSettings(weight_bits=bits, activation_bits=bits)
        spec = NetworkSpec("resnet20", stripes.classes, 1, 16, stripes.mean, stripes.std, pact)
        network = spec.build(0).eval()
        to_integers(network, "x86-avx2")
        path = tmp_path / f"{bits}.onnx"
        write_onnx(network, spec, ExportSettings(), "resnet20", "0" * 64, path, [pack_weights])
        sizes[bits] = path.stat().st_size
    assert 0.5 < sizes[4] / sizes[8] < 0.6  # 0.27 million weights, and 30 kB of graph in both
    assert 0.25 < sizes[2] / sizes[8] < 0.4


class DenseLike(nn.Module):
    """Batch norm and ReLU in front of the convolution, concatenation, average pool between: DenseNet in small."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv1, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.pool = nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2)
        self.norm3, self.head = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.conv1(torch.relu(self.norm1(x)))], 1)
        x = self.pool(self.conv2(torch.relu(self.norm2(x))))
        return self.head(torch.relu(self.norm3(x)).mean((2, 3)))


class VggLike(nn.Module):
    """No batch norm, max pools, two linear layers with dropout between: LeNet and VGG in small."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 5), nn.MaxPool2d(2), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class BottleneckLike(nn.Module):
    """1×1, 3×3, 1×1 with a projected shortcut, then a linear bottleneck with ReLU6: ResNet-50 and MobileNetV2."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.main = nn.Sequential(
            nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 16, 1, bias=False), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.inverted = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.main(x) + self.shortcut(x))
        x = x + self.inverted(x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize("bits", [4, *(pytest.param(bits, marks=pytest.mark.long) for bits in (8, 2))])
@pytest.mark.parametrize(("form", "layers"), [(DenseLike, 4), (VggLike, 4), (BottleneckLike, 8)])
def test_networks_of_every_form_ship_their_own_integers(stripes, form, layers, bits, tmp_path):
    torch.manual_seed(0)
    # One α for all: additions and averages of such grids often fall exactly between two steps.
    pact = PactSettings(weight_bits=bits, activation_bits=bits, alpha_init=3.0)
    spec = NetworkSpec("small", stripes.classes, 1, 16, stripes.mean, stripes.std, pact)
    network = insert_pact(form(), pact, spec.mean, spec.std).train()
    images = normalise(torch.from_numpy(stripes.test.images), spec.mean, spec.std)
    with torch.no_grad():
        for _ in range(20):
            network(images)  # running statistics
        expected = network.eval()(images).numpy()
    to_integers(network, "x86-avx2")
    path, optimized = tmp_path / "small.onnx", tmp_path / "optimized.onnx"
    write_onnx(network, spec, ExportSettings(), "small", "0" * 64, path, [pack_weights])
    assert relative_difference(run_onnx(path, stripes.test.images, str(optimized)), expected) <= 1e-6
    operators = [node.op_type for node in onnx.load(optimized).graph.node]
    assert sum(operator in INTEGER_OPERATORS for operator in operators) == layers
    assert "QLinearAdd" not in operators  # it would round ties as no other runtime does
