from __future__ import annotations

import sys

import onnx
import pytest
from onnx.parser import parse_model

from foundation.errors import UsageError
from onnx_files.reading import read_foreign_model
from onnx_files.trial_run import run_guarded_once

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 3, {}, {}] image) => (float[n, m] y) '
GROWING = (
    "<int64[2] times = {1, 30000000}> { f = Flatten (image) t = Tile (f, times) y = ReduceSum <keepdims = 1> (t) }"
)


def test_a_model_that_answers_passes(tmp_path):
    """Nothing is raised, and nothing is left beside the model."""
    model = parse_model(HEAD.format("h", "w") + "{ y = Flatten (image) }")
    run_guarded_once(model, tmp_path / "m.onnx", (1, 3, 4, 4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no process's memory this way")
def test_what_takes_all_memory_once_its_sizes_are_known_does_so_in_a_child(tmp_path):
    # Open sizes: nothing can be said of the model as it is read.
    model, path = parse_model(HEAD.format("h", "w") + GROWING), tmp_path / "m.onnx"
    onnx.save(model, path)
    read_foreign_model(path)
    with pytest.raises(UsageError, match=r"m\.onnx: expected a model that ONNX Runtime \S+ can run, found one that"):
        run_guarded_once(model, path, (1, 3, 8, 8))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no process's memory this way")
def test_of_fixed_sizes_it_is_refused_as_it_is_read(tmp_path):
    onnx.save(parse_model(HEAD.format(8, 8) + GROWING), tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"m\.onnx: expected a model that ONNX Runtime \S+ can run, found one that"):
        read_foreign_model(tmp_path / "m.onnx")


def test_an_operator_that_onnx_runtime_lacks_is_a_sentence(tmp_path):
    model = parse_model(HEAD.format(8, 8) + "{ y = Flatten (image) }")
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(
        UsageError, match=r"expected a model that ONNX Runtime \S+ can run, found one that it refuses"
    ):
        run_guarded_once(model, tmp_path / "m.onnx", (1, 3, 8, 8))
