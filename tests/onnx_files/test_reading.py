"""Files that may come from anywhere: read whole, or refused with a sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from foundation.errors import UsageError
from onnx_files import reading
from onnx_files.reading import read_foreign_model, read_model


def linear(weight: TensorProto) -> ModelProto:
    """logits = image · weight."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", weight.name], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 30])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


WEIGHT = np.arange(120, dtype=np.float32).reshape(4, 30)


def kept_in(location: str, offset: int = 0, length: int = WEIGHT.nbytes) -> ModelProto:
    """The model with its weights in another file."""
    weight = numpy_helper.from_array(WEIGHT, "w")
    onnx.external_data_helper.set_external_data(weight, location, offset=offset, length=length)
    weight.ClearField("raw_data")
    return linear(weight)


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "elsewhere.bin").write_bytes(WEIGHT.tobytes())

    def to_file(model: ModelProto) -> Path:
        path = tmp_path / "models" / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return to_file


@pytest.mark.parametrize("read", [read_model, read_foreign_model])
def test_weights_within_and_beside_the_file_are_the_same_model(write, read):
    within = read(write(linear(numpy_helper.from_array(WEIGHT, "w"))))
    beside = read(write(kept_in("weights.bin")))
    for model in (within, beside):
        np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHT)


@pytest.mark.parametrize("location", ["../elsewhere.bin", "/etc/hostname", "", "absent.bin", "link.bin"])
def test_weights_from_outside_the_folder_are_refused(write, location):
    path = write(kept_in(location))
    (path.parent / "link.bin").symlink_to(path.parent.parent / "elsewhere.bin")
    with pytest.raises(UsageError, match=r"model\.onnx: expected an ONNX model, found"):
        read_foreign_model(path)


@pytest.mark.parametrize(("offset", "length"), [(40, 480), (0, 10**12), (-1, 480), (0, 476)])
def test_weights_beyond_the_end_of_their_file_are_refused(write, offset, length):
    with pytest.raises(UsageError, match=r"model\.onnx: expected an ONNX model, found something else"):
        read_foreign_model(write(kept_in("weights.bin", offset, length)))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"GIF89a" + bytes(range(256)), b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="expected an ONNX model, found something else"):
        read_foreign_model(path)


def test_a_folder_and_an_absent_file(tmp_path):
    with pytest.raises(UsageError, match="expected an ONNX model, found something else"):
        read_foreign_model(tmp_path)
    with pytest.raises(UsageError, match=r"absent\.onnx: expected an ONNX model, found no file"):
        read_foreign_model(tmp_path / "absent.onnx")


def test_the_size_counts_the_weights_beside_the_file(write, monkeypatch):
    path = write(kept_in("weights.bin"))
    monkeypatch.setattr(reading, "LARGEST_FILE_BYTES", path.stat().st_size + WEIGHT.nbytes // 2)
    with pytest.raises(UsageError, match=r"expected at most \d+ bytes with its weights"):
        read_model(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no process's memory this way")
def test_a_model_that_asks_for_all_memory_stops_its_child_alone(write):
    # A sparse file costs no disk; the model names 6 GB of it eight times.
    path = write(kept_in("weights.bin"))
    with (path.parent / "holes.bin").open("wb") as file:
        os.truncate(file.fileno(), 6_000_000_000)
    model = kept_in("holes.bin", 0, 6_000_000_000)
    for copy in range(8):
        model.graph.initializer.append(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"copy{copy}"
    path = write(model)
    with pytest.raises(UsageError, match=r"model\.onnx: expected an ONNX model, found"):
        read_foreign_model(path)


def test_a_parser_that_crashes_or_hangs_takes_its_child_alone(write, monkeypatch):
    path = write(linear(numpy_helper.from_array(WEIGHT, "w")))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UsageError, match="found a file that breaks the parser"):
        read_foreign_model(path)
    monkeypatch.undo()
    monkeypatch.setattr(reading, "TIME_LIMIT_S", 0.001)
    with pytest.raises(UsageError, match=r"can be read within 0\.001 s"):
        read_foreign_model(path)
