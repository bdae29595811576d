"""The Grad-CAM twin against torch.autograd on the module whose output it should have found, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from quantizable import float_proto, prepared_data, write_float_model
from quantizable import images as sample_images
from torch import nn
from torch.nn import functional as F

from foundation.errors import NotMeasuredError
from stages.compilers import COMPILERS, CompileTask
from stages.export.onnx_file import write_onnx
from stages.export.pact_to_qdq import export_pact
from stages.export.settings import ExportSettings, PactExportSettings
from stages.network import PactSettings, build_network
from stages.network.checkpoint import NetworkSpec, load_checkpoint, save_checkpoint
from stages.network.normalisation import normalise
from stages.network.pact import fit_clips
from stages.saliency_twin.grad_cam import build_grad_cam, grad_cam_path, make_grad_cam

CLASSES = tuple("abcde")
FEATURES = {
    "resnet20": (32, lambda n, x: n.layer3(n.layer2(n.layer1(F.relu(n.bn1(n.conv1(x)))))), (8, 8)),
    "mobilenet_v2": (64, lambda n, x: n.features(x), (2, 2)),
    "lenet5": (28, lambda n, x: F.relu(n.conv3(F.max_pool2d(F.relu(n.conv1(x)), 2))), (10, 10)),
}
HEADS = {
    "resnet20": lambda n, a: n.linear(a.mean((2, 3))),
    "mobilenet_v2": lambda n, a: n.classifier(a.mean((2, 3))),
    "lenet5": lambda n, a: n.output(F.relu(n.fc6(F.relu(n.conv5(F.max_pool2d(a, 2))).mean((2, 3))))),
}
"""Each network in two parts, before and behind the last feature maps: size in pixels, part, height and width."""


def spec_of(network: str, size: int, pact: PactSettings | None = None) -> NetworkSpec:
    channels = 1 if network == "lenet5" else 3
    mean, std = (0.5, 0.4, 0.45)[:channels], (0.25, 0.3, 0.2)[:channels]
    return NetworkSpec(
        network=network, channels=channels, image_size=size, classes=CLASSES, mean=mean, std=std, pact=pact
    )


def with_statistics(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for values, low in ((norm.running_mean, -0.2), (norm.running_var, 0.5), (norm.weight, 0.5)):
                    values.copy_(low + torch.rand(values.shape, generator=generator))
    return network


def grad_cam(features, logits, classes):
    """Equations 1 and 2 of arXiv 1610.02391 by torch.autograd."""
    logit = logits.gather(1, torch.from_numpy(classes)[:, None]).sum()
    alpha = torch.autograd.grad(logit, features)[0].mean((2, 3), keepdim=True)
    return torch.relu((alpha * features).sum(1, keepdim=True)).detach().numpy()


@pytest.mark.parametrize("name", ["lenet5", "resnet20", pytest.param("mobilenet_v2", marks=pytest.mark.long)])
def test_the_map_is_that_of_autograd_at_the_last_feature_maps(name, tmp_path, session, pixels):
    size, part, coarse = FEATURES[name]
    spec = spec_of(name, size)
    network = with_statistics(build_network(name, spec.channels, len(CLASSES), 0)).eval()
    write_onnx(network, spec, ExportSettings(), "fp32", "0" * 64, tmp_path / "fp32.onnx")
    twin = make_grad_cam(tmp_path / "fp32.onnx")
    images, targets = pixels(3, spec.channels, size), np.array([4, 0, -1])

    (plain,) = session(tmp_path / "fp32.onnx").run(None, {"image": images})
    logits, found, explained = session(twin).run(None, {"image": images, "target": targets})

    assert twin == tmp_path / "fp32.gradcam.onnx" == grad_cam_path(tmp_path / "fp32.onnx")
    assert np.array_equal(logits, plain)
    assert explained.tolist() == [4, 0, plain[2].argmax()]
    inputs = normalise(torch.from_numpy(images), spec.mean, spec.std)
    features = part(network, inputs)
    expected = grad_cam(features, HEADS[name](network, features), explained)
    assert found.shape == (3, 1, *coarse)
    assert found.max() > 0
    assert np.abs(found - expected).max() < 1e-5 * expected.max()


def test_a_pact_file_has_the_map_of_its_integers_and_its_own_logits(tmp_path, session, pixels):
    spec = spec_of("resnet8", 16, PactSettings(alpha_init=3.0))
    images = pixels(4, 3, 16)
    network = with_statistics(spec.build(0))
    inputs = normalise(torch.from_numpy(images), spec.mean, spec.std)
    network.train()
    fit_clips(network, inputs)
    checkpoint = save_checkpoint(tmp_path / "checkpoint.safetensors", spec, network.eval())
    model = export_pact(
        checkpoint, "pact", PactExportSettings(target="x86-avx2"), ExportSettings(), images, tmp_path / "pact.onnx"
    )

    (plain,) = session(model.path).run(None, {"image": images})
    logits, found, explained = session(make_grad_cam(model.path)).run(
        None, {"image": images, "target": np.full(4, -1)}
    )

    assert np.array_equal(logits, plain)
    own = load_checkpoint(checkpoint)[1].eval()
    kept = []
    own.pact_6.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    own_logits = own(inputs)
    expected = grad_cam(kept[0], own_logits, explained)
    assert np.abs(found - expected).max() < 1e-5 * expected.max()


def classifier(body: str) -> onnx.ModelProto:
    """Return a model with the kernels k [4, 3, 1, 1] and l [4, 4, 1, 1] and the weight w [4, 2]."""
    text = "\n".join(body.split(";"))
    signature = "g (float[batch, 3, 4, 4] image) => (float[batch, 2] logits)"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {signature} {{{text}}}')
    rng = np.random.default_rng(0)
    for name, shape in {"k": (4, 3, 1, 1), "l": (4, 4, 1, 1), "w": (4, 2), "v": (48, 2)}.items():
        if any(name in node.input for node in model.graph.node):
            tensor = rng.normal(size=shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(tensor, name))
    return model


HEAD = "p = GlobalAveragePool(f); q = Flatten(p); logits = MatMul(q, w)"


@pytest.mark.parametrize(
    ("body", "side"),
    [
        ("f = Conv(image, k); " + HEAD, 4),
        # A sum of branches is passed by all paths, each branch only by some.
        ("a = Conv(image, k); b = Conv(a, l); r = Relu(b); f = Add(r, a); " + HEAD, 4),
        # Convolutions of single pixels, as in a squeeze-and-excitation or a classifier's head, are no feature maps.
        ("a = Conv(image, k); g = GlobalAveragePool(a); s = Conv(g, l); f = Mul(a, s); " + HEAD, 4),
        # What follows the last convolution and is smaller is a pool.
        ("a = Conv(image, k); f = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a); " + HEAD, 4),
        ("a = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (image); f = Conv(a, k); " + HEAD, 2),
        # Shapes that are read off the image influence nothing.
        ("f = Conv(image, k); n = Shape <start = 0, end = 1> (image); m = Constant <value_ints = [4]> ();"
         "s = Concat <axis = 0> (n, m); p = GlobalAveragePool(f); q = Reshape(p, s); logits = MatMul(q, w)", 4),
    ],
)  # fmt: skip
def test_of_a_linear_head_the_map_is_the_weighted_sum(body, side, session):
    """Through a mean and a matrix the gradient of a logit is w/(h·w) everywhere: class activation mapping."""
    twin = build_grad_cam(classifier(body))
    image = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)
    _, found, _ = session(twin).run(None, {"image": image, "target": np.array([0, 1])})
    assert found.shape == (2, 1, side, side)
    if body.startswith("f = Conv"):
        weights = {t.name: onnx.numpy_helper.to_array(t) for t in classifier(body).graph.initializer}
        features = np.einsum("kc,nchw->nkhw", weights["k"][:, :, 0, 0], image)
        expected = np.einsum("nkhw,kn->nhw", features, weights["w"]) / side**2
        assert found[:, 0] == pytest.approx(np.maximum(expected, 0), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("f = Flatten(image); logits = MatMul(f, v)", "expected a convolution between"),
        (
            "a = Conv(image, k); b = Conv(image, k); g = GlobalAveragePool(a); h = GlobalMaxPool(b); p = Add(g, h);"
            "q = Flatten(p); logits = MatMul(q, w)",
            "found several side by side",
        ),
    ],
)
def test_where_the_maps_are_out_of_reach_it_is_said(body, message):
    with pytest.raises(NotMeasuredError, match=message):
        build_grad_cam(classifier(body))


FORMATS = {
    "fp16": ("fp16", {}),
    "dynamic": ("dynamic", {}),
    "static QDQ": ("static", {"activation_type": "uint8", "images": 8}),
    "static QOperator": ("static", {"format": "QOperator", "images": 8}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_compiled_file_keeps_its_logits_and_gets_a_map_like_the_float_ones(name, tmp_path, session):
    method, settings = FORMATS[name]
    model = write_float_model(tmp_path / "fp32.onnx", float_proto())
    row = COMPILERS[method]
    task = CompileTask("v", row.settings.model_validate(settings), model, prepared_data(), tmp_path / "v.onnx")
    compiled = row.compile(task)
    batch = sample_images(4, 3)
    feed = {"image": batch, "target": np.full(4, 1)}
    (plain,) = session(compiled.path).run(None, {"image": batch})
    logits, found, _ = session(make_grad_cam(compiled.path)).run(None, feed)
    _, expected, _ = session(make_grad_cam(model.path)).run(None, feed)
    assert np.array_equal(logits, plain)
    assert found.shape == expected.shape
    assert found.max() > 0
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95
