"""What workers do: the parts of a run that need nothing of each other but files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from foundation.artifacts import OnnxModel
from foundation.progress import Silent, no_progress
from pipeline.configuration import Configuration
from pipeline.run.answers import answer_one_shard, measure_answers, shards_of
from pipeline.run.deliveries import Performer
from pipeline.run.model import Model
from pipeline.run.operating import measure_operating_points
from pipeline.run.robustness import measure_under_change
from pipeline.run.saliency import Explaining, explain_by_one_method
from pipeline.run.variants import TIMED_AS_THEY_ARE_MADE, compile_variant

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData

Step = Literal["compile", "shard", "answers", "maps"]


@dataclass(frozen=True)
class Unit:
    """One task of a worker.

    Attributes:
        step: what it does: makes a file, asks it about a shard of the images or about all, or explains it.
        variant: the file.
        part: of the step: the shard, as "2 of 14", or the method of the maps; None where the step is whole.
    """

    step: Step
    variant: str
    part: str | None = None

    @property
    def title(self) -> str:
        """The unit as one reads it."""
        if self.step == "shard":
            return f"answers of {self.variant}, part {self.part}"
        named = {"compile": "compile", "answers": "answers of", "maps": "maps of"}[self.step]
        return f"{named} {self.variant}" + (f" by {self.part}" if self.part else "")

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the recorded stages that it may perform, or is a part of, in their order."""
        kinds: tuple[str, ...] = {
            "compile": ("quantize",),
            "shard": ("validate",),  # of which it is a part
            "answers": ("validate", "operating", "robustness"),
            "maps": ("twin", "grad_cam_twin", str(self.part)),
        }[self.step]
        return tuple(f"{kind}/{self.variant}" for kind in kinds)


def units_of(configuration: Configuration, images: int) -> Mapping[Unit, frozenset[Unit]]:
    """Return the units of a run whose images and float file are there, each with those that it waits for.

    Args:
        configuration: of the run.
        images: how many are tested on.
    """
    return dict(_units(configuration, shards_of(images)))


def _units(configuration: Configuration, shards: int) -> Iterator[tuple[Unit, frozenset[Unit]]]:
    methods = configuration.validation.saliency.methods
    variants = [name for name, one in configuration.variants.items() if one.method not in TIMED_AS_THEY_ARE_MADE]
    of_fp32 = Unit("answers", "fp32")
    shards_of_fp32 = _shards("fp32", shards)
    for shard in shards_of_fp32:
        yield shard, frozenset()
    yield of_fp32, shards_of_fp32
    for variant in variants:
        yield Unit("compile", variant), frozenset()
        for shard in _shards(variant, shards):
            yield shard, frozenset({Unit("compile", variant)})
    for method in methods:
        yield Unit("maps", "fp32", method), frozenset({of_fp32})
    for variant in variants:
        made = frozenset({Unit("compile", variant), of_fp32})
        yield Unit("answers", variant), made | _shards(variant, shards)
        for method in methods:
            yield Unit("maps", variant, method), made | {Unit("maps", "fp32", method)}


def _shards(variant: str, shards: int) -> frozenset[Unit]:
    if shards == 1:
        return frozenset()
    return frozenset(Unit("shard", variant, f"{number + 1} of {shards}") for number in range(shards))


def do_unit(unit: Unit, configuration: Configuration, performer: Performer, data: PreparedData, start: Model) -> None:
    """Perform the stages of one unit; what is there is read.

    Args:
        unit: what to do.
        configuration: of the run.
        performer: of its stages.
        data: the images.
        start: what every variant starts from.

    Raises:
        StageError: a stage failed.
        UsageError: a file that the unit stands on is not usable.
    """
    if unit.step == "compile":
        compile_variant(configuration, performer, data, start, unit.variant, no_progress)
        return
    fp32 = start.float_file
    model = fp32 if unit.variant == fp32.variant else OnnxModel.read(performer.run.model(unit.variant))
    if unit.step == "shard":
        assert unit.part is not None
        number = int(unit.part.split()[0]) - 1
        answer_one_shard(configuration, performer, data, model, number)
        return
    if unit.step == "answers":
        measure_answers(configuration, performer, data, fp32, model, no_progress)
        measure_operating_points(configuration, performer, data, fp32, model)
        measure_under_change(configuration, performer, data, fp32, model, no_progress)
        return
    assert unit.part is not None
    task = Explaining(configuration.validation.saliency, performer, data, fp32, model, no_progress)
    explain_by_one_method(task, unit.part, Silent())
