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
from onnx_files import limits, reading
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
def test_a_model_that_asks_for_all_memory_stops_its_child_alone(write, monkeypatch):
    # A sparse file costs no disk; the model names 400 MB of it three times.
    path = write(kept_in("weights.bin"))
    with (path.parent / "holes.bin").open("wb") as file:
        os.truncate(file.fileno(), 400_000_000)
    model = kept_in("holes.bin", 0, 400_000_000)
    for copy in range(2):
        model.graph.initializer.append(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"copy{copy}"
    path = write(model)
    monkeypatch.setattr(limits, "LEAST_ADDRESS_SPACE_BYTES", 1_000_000_000)
    monkeypatch.setattr(limits, "_TIMES_THE_FILE", 0)
    with pytest.raises(UsageError, match=r"model\.onnx: expected an ONNX model.*, found"):
        read_foreign_model(path)


def test_weights_beyond_every_limit_are_refused_before_they_are_read(write):
    path = write(kept_in("weights.bin"))
    with (path.parent / "holes.bin").open("wb") as file:
        os.truncate(file.fileno(), 6_000_000_000)
    with pytest.raises(UsageError, match=r"expected at most 1,500,000,000 bytes with its weights, found 6,000,000,"):
        read_model(write(kept_in("holes.bin", 0, 6_000_000_000)))


def test_what_a_child_may_use_follows_the_file_and_the_weights_beside_it(write, monkeypatch):
    monkeypatch.setattr(limits, "_PER_PROCESSOR_BYTES", 0)
    assert limits.limits_for(1000).address_space_bytes == 2_000_000_000
    assert limits.limits_for(500_000_000).address_space_bytes == 10_000_000_000
    assert (limits.limits_for(1000).seconds, limits.limits_for(500_000_000).seconds) == (120, 500)
    assert limits.size_with_weights(write(linear(numpy_helper.from_array(WEIGHT, "w")))) < 2000
    path = write(kept_in("weights.bin"))
    beside = path.parent / "weights.bin"
    assert limits.size_with_weights(path) == path.stat().st_size + beside.stat().st_size
    assert limits.size_with_weights(path.parent) == 0


def nested_functions(depth: int) -> ModelProto:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(f"F{depth - 1}", ["image"], ["logits"], domain="f")],
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("f", 1)],
        ir_version=8,
    )
    for number in reversed(range(depth)):
        operator, domain = (f"F{number - 1}", "f") if number else ("Relu", "")
        nodes = [helper.make_node(operator, [a], [b], domain=domain) for a, b in (("x", "y"), ("y", "z"))]
        model.functions.append(helper.make_function("f", f"F{number}", ["x"], ["z"], nodes, model.opset_import))
    return model


def test_functions_that_stand_for_a_thousand_million_nodes_are_counted_and_not_written_out(write):
    assert limits.number_of_nodes(nested_functions(3)) == 8
    with pytest.raises(UsageError, match=r"expected at most 20,000 nodes, found 1,073,741,824"):
        read_model(write(nested_functions(30)))


def test_a_parser_that_crashes_or_hangs_takes_its_child_alone(write, monkeypatch):
    path = write(linear(numpy_helper.from_array(WEIGHT, "w")))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UsageError, match="found a file that breaks the parser"):
        read_foreign_model(path)
    monkeypatch.undo()
    monkeypatch.setattr(limits, "TIME_LIMIT_S", 0.001)
    with pytest.raises(UsageError, match=r"can be read within 0\.001 s"):
        read_foreign_model(path)


def test_a_chain_longer_than_any_classifier_is_refused_before_anything_is_made_of_it(write):
    model = linear(numpy_helper.from_array(WEIGHT, "w"))
    model.graph.node.extend(helper.make_node("Relu", [f"c{n}"], [f"c{n + 1}"]) for n in range(30_000))
    with pytest.raises(UsageError, match=r"expected at most 20,000 nodes, found 30,00\d"):
        read_model(write(model))
