"""What a search makes of a proposal: a file, its twin and what they are worth, no more of it than decides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.errors import DiskError, StageError, UsageError
from foundation.files import write_bytes
from foundation.note_parts import Estimate, MeasuredNote, ScoreNote
from onnx_files.image_input import preprocessing_of
from onnx_files.judged_output import explained_tensor
from onnx_files.probes import Memory
from onnx_files.reading import read_model
from stages.saliency_twin.twin_file import twin_path
from stages.search.limits import is_ruled_out, margins
from stages.search.study import TunedSettings

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData
    from stages.quantize.methods.static import StaticSettings
    from stages.search.score import Reference

RULED_OUT_BY = 0.05
"""A file that breaks a limit by more than this is measured no further, unless nothing comes nearer."""
FIRST_IMAGES = 64
"""A file that these show to break a limit is asked no more: by a bound, so that chance rules out as few as pass."""
RANKED_IMAGES, RANKED_MAPS = 32, 8
"""What a layer's sensitivity is measured on. It ranks layers, and shows no limit to be kept."""
MOST_SPREAD = 3.0
"""Upper over lower bound of a speed-up's interval, above which it counts as not measured."""


@dataclass(frozen=True)
class Candidates:
    """Compiles and measures one candidate after the other, each under the same path.

    `timed_at` names the place where each is timed; None for this process.
    """

    fp32: OnnxModel
    variant: str
    data: PreparedData
    settings: TunedSettings
    reference: Reference
    path: Path
    timed_at: str | None = None
    speedups: dict[str, Estimate] = field(default_factory=dict)
    """By structure: of files that differ in numbers alone, one is timed."""
    memory: Memory = field(default_factory=dict)
    """What float graphs gave on the calibration images: many candidates start from the same one."""

    def compile(self, static: StaticSettings, final: bool = False) -> OnnxModel:
        """Write a candidate's file; the final one is also checked for saturation."""
        from stages.quantize.methods.static import quantize_static

        return quantize_static(
            self.fp32, self.variant, static, self.data, self.path, check_saturation=final, memory=self.memory
        )

    def score(self, model: OnnxModel) -> ScoreNote:
        """Return what a file keeps of the float file's answers and maps, on few images."""
        from stages.search.score import part_of, score

        with self._about(model):
            return score(part_of(self.reference, RANKED_IMAGES, RANKED_MAPS), model.path, self._twin(model))

    def measure(self, static: StaticSettings, whole: bool = False) -> MeasuredNote:
        """Return what a candidate is worth: its answers, its maps and its speed.

        Unless the whole is asked for, what the answers to a few images rule out is asked no more of them, what its
        answers rule out gets neither twin nor timing, and what its maps rule out gets no timing: these take most of a
        trial's time, and would change no choice.
        """
        from stages.search.score import part_of, score_answers, with_maps

        model = self.compile(static)
        with self._about(model):
            if not whole and len(self.reference.images) > FIRST_IMAGES:
                found = score_answers(part_of(self.reference, FIRST_IMAGES, 0), model.path)
                if min(margins(found, self.settings, at_best=True).values()) < 0:
                    few = f"its answers to {FIRST_IMAGES} images show that it breaks a limit"
                    return self._measured(model, found, None, few, at_best=True)
            found = score_answers(self.reference, model.path)
            if not whole and is_ruled_out(found, self.settings, RULED_OUT_BY):
                return self._measured(model, found, None, f"its answers break a limit by more than {RULED_OUT_BY:g}")
            found = with_maps(found, self.reference, model.path, self._twin(model))
        if not whole and is_ruled_out(found, self.settings, RULED_OUT_BY):
            return self._measured(model, found, None, f"its maps break a limit by more than {RULED_OUT_BY:g}")
        structure = structure_of(model.path)
        faster, reason = self.speedups.get(structure), ""
        if faster is None:
            with self._about(model):
                faster, reason = _if_telling(self._speedup(model))
        if faster is not None:
            self.speedups[structure] = faster
        return self._measured(model, found, faster, reason)

    def _speedup(self, model: OnnxModel) -> Estimate:
        from stages.search.at_place import speedup_at
        from stages.search.score import speedup

        image = self.data.validation.images[0]
        if self.timed_at:
            return speedup_at(self.timed_at, self.fp32.path, model.path, image)
        return speedup(self.fp32.path, model.path, image, self.settings.latency_rounds)

    def _twin(self, model: OnnxModel) -> Path | None:
        if self.reference.without_gradient:
            return None
        return write_twin(model.path, twin_path(model.path), self.data)

    def _measured(
        self, model: OnnxModel, found: ScoreNote, faster: Estimate | None, reason: str, at_best: bool = False
    ) -> MeasuredNote:
        return MeasuredNote(
            score=found,
            speedup=faster,
            size_bytes=model.size_bytes,
            margins=margins(found, self.settings, at_best),
            reason=reason,
            at_best=at_best,
        )

    @contextmanager
    def _about(self, model: OnnxModel) -> Iterator[None]:
        try:
            yield
        except DiskError:
            raise
        except (UsageError, StageError) as error:  # of a file that is ours, under a name that goes into the record
            raise StageError(str(error).replace(str(model.path), f"a file of {self.variant}")) from error


def structure_of(path: Path) -> str:
    """Return a digest of a file of ours but for its weights and scales: the same operators on the same shapes."""
    from onnx import TensorProto

    model = read_model(path)
    del model.metadata_props[:]
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.INT64:  # of shapes and axes
            for content in ("raw_data", "float_data", "int32_data"):
                tensor.ClearField(content)
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def write_twin(path: Path, output: Path, data: PreparedData) -> Path:
    """Write the saliency twin of a file of ours for the images of a data set, and return its path.

    A foreign file is read in a child process, which takes half a second; a search has a twin for every file it tries.

    Args:
        path: a file with one image as its input, whose height and width may be open.
        output: the file to write.
        data: any of its images has the size that the twin takes.

    Raises:
        UsageError: an operator has no rule, or the answers are none of a classifier.
    """
    from stages.saliency_twin.twin import build_twin

    model = read_model(path)
    channels, height, width = data.train.images.shape[1:]
    layout = preprocessing_of(model, OnnxModel("", path, "", None)).layout
    sizes = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    for axis, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], sizes, strict=True):
        axis.dim_value = size
    try:
        twin = build_twin(model, None, explained_tensor(model, model.graph.output[0].name))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    write_bytes(output, twin.SerializeToString(deterministic=True))
    return output


def _if_telling(faster: Estimate) -> tuple[Estimate | None, str]:
    """Return a speed-up and no reason, or none and why: an interval that says nothing would decide by chance."""
    low, high = faster.ci95 or (faster.value, faster.value)
    if high <= MOST_SPREAD * low:
        return faster, ""
    return None, (
        f"the interval of its speed-up, {low:.2g} to {high:.2g}, spans more than a factor of {MOST_SPREAD:g}; is "
        "the machine busy with something else?"
    )
