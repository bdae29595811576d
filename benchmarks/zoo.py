"""Every ONNX file of a folder through the twin and every method: what comes out right, is refused, or is wrong.

    python benchmarks/zoo.py models/ --images photos/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225

A twin is right where its gradients along a line, added up, are by how much the file's own answer changes from end to
end of it: so kinks of a network, and rounding, which spoil a slope by differences at one point, hardly count. A
compiled file is right where every float output has 20 dB (8 with weights of 4 bits), or where it says itself that it
is worse or in doubt. What ends in a sentence is refused; anything else is a crash.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

METHODS = ("twin", "static", "dynamic", "weight-only", "weight-only:4", "fp16")
_LINES = 4
_REACHES = (3.0, 30.0, 300.0, 10.0, 100.0, 1.0, 0.3, 0.1)
"""Half the length of a line: on a long one rounding counts less, on a short one few points tell the whole of it."""
_POINTS = 32
_EXACT, _NEAR = 0.002, 0.02
"""Error over the gradient's length: below the first no other reach is tried, above the second a twin is wrong."""
_SIZE = 32


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are no weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def float_outputs(model: onnx.ModelProto) -> list[str]:
    """Return the names of the outputs of real numbers."""
    return [value.name for value in model.graph.output if value.type.tensor_type.elem_type in (1, 10, 11)]


def open_file(content: Any) -> onnxruntime.InferenceSession:
    """Return a session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    given = content.SerializeToString() if isinstance(content, onnx.ModelProto) else str(content)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def shape_of(model: onnx.ModelProto) -> tuple[int, ...]:
    """Return the shape of one image; where the file leaves it open, `_SIZE` pixels."""
    sizes = [axis.dim_value for axis in inputs_of(model)[0].type.tensor_type.shape.dim]
    return (max(sizes[0], 1), *(size if size > 0 else _SIZE for size in sizes[1:]))


def explained(path: Path, model: onnx.ModelProto, folder: Path, lines: int, points: int) -> str:
    """Return the verdict on a file's twin, along lines of so many points."""
    from foundation.errors import EdgeproofError
    from stages.saliency_twin.twin_file import make_twin

    outputs = float_outputs(model)
    told = outputs[0] if len(model.graph.output) > 1 else None
    twin = folder / f"{path.stem}.twin.onnx"
    try:
        make_twin(path, twin, None, told)
    except EdgeproofError as error:
        return f"refused: {error}"
    if any("QuantizeLinear" in node.op_type or "Integer" in node.op_type for node in model.graph.node):
        return "right: made; rounding has no slope"
    return judged(open_file(twin), open_file(path), inputs_of(model)[0].name, shape_of(model), lines, points)


def judged(
    twin: onnxruntime.InferenceSession,
    file: onnxruntime.InferenceSession,
    entry: str,
    shape: tuple[int, ...],
    lines: int,
    points: int,
) -> str:
    """Compare a twin's gradients with how the file's answer changes, and its answers with the file's."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, shape).astype(np.float32)
    answer = twin.get_outputs()[0].name
    target = np.full(shape[0], 1)
    logits, gradient = twin.run([answer, "saliency"], {entry: x, "target": target})
    theirs = file.run([answer], {entry: x})[0]
    moved = float(np.abs(logits - theirs).max()) / max(float(np.abs(theirs).max()), 1e-9)

    def score(at: np.ndarray) -> float:
        found = file.run([answer], {entry: at.astype(np.float32)})[0].reshape(shape[0], -1)
        return float(found[:, 1].astype(np.float64).sum())

    def slope(at: np.ndarray) -> float:
        (found,) = twin.run(["saliency"], {entry: at.astype(np.float32), "target": target})
        return float((found.astype(np.float64) * direction).sum())

    # The directions have length 1, so that no slope is steeper than the gradient is long.
    worst, steepest = 0.0, max(float(np.linalg.norm(gradient)), 1e-6)
    middles = (np.arange(points) + 0.5) / points * 2 - 1
    for number in range(lines):
        noise = rng.normal(0, 1, shape) if number else 0
        direction = noise + gradient / max(float(np.abs(gradient).max()), 1e-9)
        direction = direction / max(float(np.linalg.norm(direction)), 1e-30)
        off = np.inf
        for reach in _REACHES:
            change = (score(x + reach * direction) - score(x - reach * direction)) / (2 * reach)
            added = float(np.mean([slope(x + reach * at * direction) for at in middles]))
            off = min(off, abs(change - added) / steepest)
            if off < _EXACT:
                break
        worst = max(worst, off)
    if worst > _NEAR:
        return f"wrong: along a line the gradient is off by {worst:.1%}"
    return f"right: along lines within {worst:.2%}, answers within {moved:.1e}"


def compiled(path: Path, model: onnx.ModelProto, method: str, options: Mapping[str, Any], folder: Path) -> str:
    """Return the verdict on one method."""
    from foundation.errors import EdgeproofError
    from foundation.progress import Silent
    from pipeline.one_file.compile_file import compile_file
    from pipeline.one_file.options import request_for

    name, _, bits = method.partition(":")
    outputs = float_outputs(model)
    given = dict(options) | {"method": name, "output": folder / f"{path.stem}.{name}{bits}.onnx"}
    given["bits"] = int(bits) if bits else None
    given["answer_output"] = outputs[0] if len(outputs) > 1 else None
    sizes = [axis.dim_value for axis in inputs_of(model)[0].type.tensor_type.shape.dim]
    given["image_size"] = str(_SIZE) if min(sizes[1:]) < 1 else None
    try:
        found = compile_file(request_for(path, given), Silent())
    except EdgeproofError as error:
        return f"refused: {error}"
    by_output = found.agreement.outputs_db if found.agreement else {}
    decibels = ", ".join("exact" if db is None else f"{db:.1f} dB" for db in by_output.values())
    told = "; ".join(found.worse + found.doubts)
    least = min((db for db in by_output.values() if db is not None), default=np.inf)
    size = f"{found.compiled.size_bytes / found.source_bytes:.2f} x"
    right = "right" if least >= options_least_db(method) or told else "wrong"
    return f"{right}: {decibels}, {size}{' | ' + told if told else ''}"


def options_least_db(method: str) -> float:
    """Return the decibels from which a method's file counts as right."""
    return {"weight-only:4": 8.0}.get(method, 20.0)


def _leave_out_timing() -> None:
    from pipeline.one_file import compile_file
    from pipeline.one_file.speed import Speed

    not_timed = Speed(None, None, 0, "not asked for")
    compile_file.measure_speed = lambda _, compiled, *rest: (not_timed,) * len(compiled)  # type: ignore[assignment]


def main() -> None:
    """Print a line for each file and method, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--mean")
    parser.add_argument("--std")
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--only", default="*", help="a pattern of file names")
    parser.add_argument("--lines", type=int, default=_LINES, help="along which a twin is held against its file")
    parser.add_argument("--points", type=int, default=_POINTS, help="of each line")
    parser.add_argument("--untimed", action="store_true", help="without a look at speed")
    given = parser.parse_args()
    if given.untimed:
        _leave_out_timing()
    options = {"images": given.images, "mean": given.mean, "std": given.std, "limit": given.limit, "fit": "stretch"}
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(given.folder.glob(f"{given.only}.onnx")):
            model = onnx.load_model(path)
            for method in given.methods:
                try:
                    if method == "twin":
                        verdict = explained(path, model, Path(scratch), given.lines, given.points)
                    else:
                        verdict = compiled(path, model, method, options, Path(scratch))
                except Exception as error:
                    verdict = f"crashed: {type(error).__name__}: {str(error)[:200]}"
                counts[method, verdict.partition(":")[0]] += 1
                print(f"{path.stem} | {method} | {verdict}", flush=True)
    for method in given.methods:
        told = ", ".join(f"{counts[method, kind]} {kind}" for kind in ("right", "refused", "wrong", "crashed"))
        print(f"{method}: {told}")


if __name__ == "__main__":
    main()
