"""The example of the documentation runs as it stands there, with nothing but what it says it needs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from stages.saliency_twin.twin_file import make_twin

PAGE = Path(__file__).resolve().parents[1] / "docs" / "saliency-on-the-device.md"
EXAMPLE = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[0]


@pytest.fixture
def brightness(tmp_path):
    """A classifier of 8 × 8 gray images whose second logit is the mean of the upper left quarter."""
    weight = np.zeros((2, 64), np.float32)
    weight[1].reshape(8, 8)[:4, :4] = 1 / 16
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w"], ["logits"], transB=1),
        ],
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "brightness.onnx"
    onnx.save(model, path)
    return path


def test_the_overlay_shows_what_the_model_looks_at(brightness, tmp_path):
    twin = make_twin(brightness, None, None, None)
    assert twin.name == "brightness.saliency.onnx"
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(tmp_path / "image.png")
    (tmp_path / "overlay.py").write_text(EXAMPLE)
    done = subprocess.run(
        [sys.executable, "overlay.py", twin.name, "image.png", "overlay.png"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "class 1 with logit 100.000\n"
    overlay = np.asarray(Image.open(tmp_path / "overlay.png")).astype(int)
    assert overlay[:4, :4].reshape(-1, 3).mean(axis=0) == pytest.approx(
        [208, 58, 30], abs=1
    )  # 30 % gray, 70 % orange
    assert (overlay[4:] == 100).all()


def test_it_imports_nothing_that_a_device_would_lack():
    imports = set(re.findall(r"^(?:import|from) (\w+)", EXAMPLE, re.MULTILINE))
    assert imports == {"sys", "numpy", "onnxruntime", "PIL"}
