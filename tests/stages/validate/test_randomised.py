from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from onnx_files.sessions import open_session, predict, session_preprocessing
from stages.validate.randomised import weighted_layers, write_randomised


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_every_weight_is_a_permutation_of_itself_and_the_normalisation_stays(
    make_model: Callable[..., OnnxModel], tmp_path: Path
) -> None:
    source, target = make_model(channels=3).path, tmp_path / "random" / "fp32.onnx"
    assert write_randomised(source, target, seed=1) == 4  # kernel and head, each with its bias
    before, after = tensors(source), tensors(target)
    for name in ("kernel", "kernel_bias", "head", "head_bias"):
        assert after[name].shape == before[name].shape
        assert after[name].dtype == before[name].dtype
        assert np.sort(after[name], axis=None) == pytest.approx(np.sort(before[name], axis=None), abs=0)
    assert (after["kernel"] != before["kernel"]).mean() > 0.9
    for name in ("scale", "shift"):
        assert (after[name] == before[name]).all()


def test_it_runs_gives_other_answers_and_keeps_the_metadata(
    make_model: Callable[..., OnnxModel], tmp_path: Path
) -> None:
    source = make_model().path
    write_randomised(source, tmp_path / "a.onnx", seed=0)
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    real, random = (open_session(path, "cpu", 1) for path in (source, tmp_path / "a.onnx"))
    assert session_preprocessing(random) == session_preprocessing(real)
    assert np.abs(predict(random, images, 4) - predict(real, images, 4)).max() > 0.1


def test_a_seed_gives_its_own_bytes_every_time(make_model: Callable[..., OnnxModel], tmp_path: Path) -> None:
    source = make_model().path
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_randomised(source, tmp_path / f"{name}.onnx", seed)
    a, b, c = ((tmp_path / f"{name}.onnx").read_bytes() for name in "abc")
    assert a == b != c


def test_a_file_without_float_weights_is_refused(corner_model: OnnxModel, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"corner\.onnx: expected float weights of Conv.*float export"):
        write_randomised(corner_model.path, tmp_path / "random.onnx", 0)
    assert not (tmp_path / "random.onnx").exists()


def test_a_cascade_begins_at_the_answer_and_builds_on_itself(
    make_model: Callable[..., OnnxModel], tmp_path: Path
) -> None:
    source = make_model(channels=3).path
    assert weighted_layers(source) == 2
    steps = []
    for topmost in (1, 2, None):
        path = tmp_path / f"{topmost}.onnx"
        write_randomised(source, path, seed=3, topmost=topmost)
        steps.append(tensors(path))
    before, (head, both, everything) = tensors(source), steps
    assert (head["head"] != before["head"]).any()
    assert (head["kernel"] == before["kernel"]).all()
    for name in ("kernel", "kernel_bias", "head", "head_bias"):
        assert (both[name] == everything[name]).all()
    assert (both["head"] == head["head"]).all()
    assert (both["kernel"] != before["kernel"]).any()
