"""The rewritten first convolution gives what the original gives, and is left alone where it cannot."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantizable import float_proto, images, logits, node_types, prepared_data, write_float_model

from stages.quantize.methods.static import StaticSettings, quantize_static
from stages.quantize.rewrites.space_to_depth import with_space_to_depth
from stages.saliency_twin.twin import build_twin


def model(
    rows: int,
    columns: int,
    pads: list[int],
    channels: int = 3,
    size: int = 20,
    strides: tuple[int, int] = (2, 2),
    **more: object,
) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, channels, rows, columns)).astype(np.float32)
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Cast", ["image"], ["pixels"], "cast", to=TensorProto.FLOAT),
                helper.make_node("Sub", ["pixels", "mean"], ["input"], "sub"),
                helper.make_node(
                    "Conv", ["input", "weight", "bias"], ["logits"], "stem", strides=strides, pads=pads, **more
                ),
            ],
            "network",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", channels, size, size])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5, "rows", "columns"])],
            [
                numpy_helper.from_array(np.full((1, channels, 1, 1), 100, np.float32), "mean"),
                numpy_helper.from_array(weight, "weight"),
                numpy_helper.from_array(rng.normal(size=5).astype(np.float32), "bias"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )


def run(proto: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


@pytest.mark.parametrize(
    ("rows", "columns", "pads"),
    [
        (7, 7, [3, 3, 3, 3]),
        (3, 3, [1, 1, 1, 1]),
        (3, 3, [0, 0, 1, 1]),
        (3, 3, [0, 1, 1, 1]),
        (5, 3, [2, 1, 2, 1]),
        (2, 2, [0, 0, 0, 0]),
        (4, 4, [1, 1, 1, 1]),
        (3, 3, [1, 1, 0, 0]),
        (6, 6, [2, 2, 2, 2]),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_answers_stay(rows: int, columns: int, pads: list[int], channels: int) -> None:
    proto = model(rows, columns, pads, channels)
    images = np.random.default_rng(1).integers(0, 256, (3, channels, 20, 20)).astype(np.uint8)
    rewritten = with_space_to_depth(proto)
    assert [node.op_type for node in rewritten.graph.node] == ["Cast", "Sub", "SpaceToDepth", "Conv"]
    onnx.checker.check_model(rewritten, full_check=True)
    np.testing.assert_allclose(run(rewritten, images), run(proto, images), rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize(
    "proto",
    [
        model(3, 3, [1, 1, 1, 1], size=21), model(3, 3, [1, 1, 1, 1], strides=(1, 1)), model(3, 3, [0, 0, 0, 0]),
        model(3, 3, [1, 1, 1, 1], channels=8), model(3, 3, [2, 2, 2, 2], dilations=[2, 2]),
        model(3, 3, [1, 1, 1, 1], channels=3, strides=(2, 1)),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_left_alone(proto: onnx.ModelProto) -> None:
    assert with_space_to_depth(proto) is proto


def test_a_convolution_that_stays_in_float_keeps_its_image(tmp_path: Path) -> None:
    proto = float_proto()
    stem = next(node for node in proto.graph.node if node.op_type == "Conv")
    stem.attribute.append(helper.make_attribute("strides", [2, 2]))
    stem.name = "stem"
    model = write_float_model(tmp_path / "fp32.onnx", proto)
    settings = StaticSettings(target="x86-vnni", images=16, float_layers=("stem",))
    path = quantize_static(model, "int8", settings, prepared_data(), tmp_path / "int8.onnx").path
    written = onnx.load_model(path)
    assert "SpaceToDepth" not in node_types(written)
    assert [node.input[0] for node in written.graph.node if node.name == "stem"] == ["normalised"]


@pytest.mark.parametrize(("target", "blocks"), [("x86-vnni", 1), ("x86-avx2", 1), ("arm64", 0)])
def test_a_static_file_for_x86_has_it_with_the_answers_and_maps_of_one_without(
    target: str, blocks: int, tmp_path: Path
) -> None:
    proto = float_proto()
    stem = next(node for node in proto.graph.node if node.op_type == "Conv")
    stem.attribute.append(helper.make_attribute("strides", [2, 2]))
    model, data = write_float_model(tmp_path / "fp32.onnx", proto), prepared_data()
    pixels = images(16, 7)
    files, maps = [], []
    for name, wanted in (("with", True), ("without", False)):
        settings = StaticSettings(target=target, images=16, reduce_range=True, space_to_depth=wanted)
        path = quantize_static(model, name, settings, data, tmp_path / f"{name}.onnx").path
        files.append(onnx.load_model(path))
        session = onnxruntime.InferenceSession(
            build_twin(files[-1], None, None).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        feed = {"image": pixels, "target": np.zeros(len(pixels), np.int64)}
        answers, gradient = session.run(["logits", "saliency"], feed)
        np.testing.assert_array_equal(answers, logits(path, pixels))
        maps.append(gradient)
    assert node_types(files[0]).get("SpaceToDepth", 0) == blocks
    assert "SpaceToDepth" not in node_types(files[1])
    np.testing.assert_allclose(logits(files[0], pixels), logits(files[1], pixels), atol=1e-3)
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.999
