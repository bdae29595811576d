"""The tools that `quantization_files.py` compares: each writes an int8 file from the same float file and images.

The normalisation stays in float for every tool, because it is part of these files and not of those that the tools
were made for; options called `defaults` leave everything to the tool.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData
    from foundation.artifacts import OnnxModel

OURS = "edgeproof"
RECOVERY: dict[str, dict[str, Any]] = {
    "": {},
    "equalization": {"equalization": True},
    "bias correction": {"bias_correction": True},
    "both": {"equalization": True, "bias_correction": True},
    "rounding": {"compensated_rounding": {}},
}


@dataclass(frozen=True)
class Inputs:
    """What every tool gets.

    Attributes:
        model: the float file.
        data: its training split has the calibration images.
        chosen: int64 [n], which of them.
        normalisation: nodes that stay in float.
        nncf_python: of an environment with NNCF; None for none.
    """

    model: OnnxModel
    data: PreparedData
    chosen: NDArray[np.int64]
    normalisation: tuple[str, ...]
    nncf_python: Path | None

    @property
    def images(self) -> NDArray[np.uint8]:
        """The calibration images, uint8 [n, channels, height, width]."""
        return self.data.train.images[self.chosen]


@dataclass(frozen=True)
class File:
    """One compiled file, or why there is none.

    Attributes:
        tool, options: who wrote it, and how.
        model: the file; None where the tool failed.
        reason: why it failed.
    """

    tool: str
    options: str
    model: OnnxModel | None
    reason: str = ""


def ours(inputs: Inputs, calibration: str, recovery: str, path: Path) -> None:
    """`method: static`."""
    from stages.quantize.methods.static import StaticSettings, quantize_static
    from stages.quantize.recovery.steps import RecoverySettings

    settings = StaticSettings(
        calibration=calibration,  # type: ignore[arg-type]
        recovery=RecoverySettings(**RECOVERY[recovery]),
        images=len(inputs.chosen),
    )
    quantize_static(inputs.model, path.stem, settings, inputs.data, path, check_saturation=False)


def onnxruntime_defaults(inputs: Inputs, path: Path) -> None:
    """`quantize_static(model, path, reader)`."""
    from onnxruntime.quantization import quantize_static

    quantize_static(inputs.model.path, path, _Reader(inputs.images))


def onnxruntime_documented(inputs: Inputs, method: str, path: Path) -> None:
    """What its documentation asks for on x86 with VNNI: prepared graph, QDQ, U8S8, per channel, all eight bits."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(inputs.model.path, prepared, skip_symbolic_shape=True)
    try:
        quantize_static(
            prepared, path, _Reader(inputs.images), per_channel=True, reduce_range=False,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            nodes_to_exclude=_remaining(prepared, inputs.normalisation), calibrate_method=CalibrationMethod[method],
        )  # fmt: skip
    finally:
        prepared.unlink()


def neural_compressor(inputs: Inputs, path: Path) -> None:
    """`method: neural_compressor`, mode static."""
    from stages.quantize.neural_compressor.adapter import NeuralCompressorSettings, quantize_with_neural_compressor

    settings = NeuralCompressorSettings(mode="static", images=len(inputs.chosen))
    quantize_with_neural_compressor(inputs.model, path.stem, settings, inputs.data, path)


def nncf(inputs: Inputs, options: str, path: Path) -> None:
    """`nncf.quantize`, in an environment of its own."""
    if inputs.nncf_python is None:
        raise RuntimeError("--nncf-python was not given")
    job = {"options": options, "normalisation": inputs.normalisation, "model": str(inputs.model.path.resolve())}
    with TemporaryDirectory() as folder:
        np.save(Path(folder, "images.npy"), inputs.images)
        command = [str(inputs.nncf_python), "-P", __file__, folder, json.dumps(job)]
        environment = {**os.environ, "PYTHONPATH": ""}
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if answer.returncode:
            raise RuntimeError((answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"])[-1])
        path.write_bytes(Path(folder, "compiled.onnx").read_bytes())


def nncf_child(folder: Path, job: dict[str, Any]) -> None:
    """Quantize with NNCF; runs in its environment, and imports nothing of this project."""
    import nncf as tool
    import onnx

    images = np.load(folder / "images.npy")
    dataset = tool.Dataset(list(range(len(images))), lambda index: {"image": images[index : index + 1]})
    given: dict[str, Any] = {}
    if job["options"] != "defaults":
        given = {
            "preset": tool.QuantizationPreset.MIXED,
            "target_device": tool.TargetDevice.CPU,
            "ignored_scope": tool.IgnoredScope(names=job["normalisation"], validate=False),
            "fast_bias_correction": job["options"] != "accurate bias correction",
        }
    compiled = tool.quantize(onnx.load_model(job["model"]), dataset, subset_size=len(images), **given)
    onnx.save_model(compiled, folder / "compiled.onnx")


class _Reader:
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}


def _remaining(path: Path, names: tuple[str, ...]) -> list[str]:
    import onnx

    return [node.name for node in onnx.load_model(path).graph.node if node.name in names]


def files(inputs: Inputs, arguments: argparse.Namespace, folder: Path) -> Iterator[File]:
    """Write every tool's files, one after the other."""
    rows: list[tuple[str, str, Callable[[Path], None]]] = [
        (OURS, f"{method} {recovery}".strip(), lambda path, m=method, r=recovery: ours(inputs, m, r, path))
        for method in arguments.methods
        for recovery in arguments.recovery
    ]
    rows.append(("ONNX Runtime", "defaults", lambda path: onnxruntime_defaults(inputs, path)))
    rows += [
        ("ONNX Runtime", f"documented, {m}", lambda path, m=m: onnxruntime_documented(inputs, m, path))
        for m in arguments.onnxruntime_methods
    ]
    rows.append(("Neural Compressor", "static", lambda path: neural_compressor(inputs, path)))
    rows += [
        ("NNCF", options, lambda path, o=options: nncf(inputs, o, path))
        for options in ("defaults", "mixed preset", "accurate bias correction")
    ]
    for number, (tool, options, write) in enumerate(rows):
        path = folder / f"file_{number}.onnx"
        try:
            write(path)
            yield File(tool, options, _artifact(path, inputs))
        except Exception as error:  # any tool may fail in any way; the table says how
            yield File(tool, options, None, f"{type(error).__name__}: {str(error).splitlines()[0][:300]}")


def _artifact(path: Path, inputs: Inputs) -> OnnxModel:
    import onnx

    from foundation.artifacts import OnnxModel
    from foundation.files import sha256_of_file

    compiled = onnx.load_model(path)
    metadata = {entry.key: entry.value for entry in onnx.load_model(inputs.model.path).metadata_props}
    onnx.helper.set_model_props(compiled, metadata)  # which not every tool keeps
    onnx.save_model(compiled, path)
    return OnnxModel(path.stem, path, sha256_of_file(path), inputs.model.sha256)


if __name__ == "__main__":
    nncf_child(Path(sys.argv[1]), json.loads(sys.argv[2]))
