"""What is known of a compiled file beside the one that it was made from, and in what it is worse."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from calibration_data.image_folder import ImageFolder
from foundation.artifacts import OnnxModel
from foundation.files import JSON
from foundation.notes import AutoNotes, TunedNotes
from onnx_files.preprocessing import Preprocessing
from pipeline.one_file.agreement import Agreement
from pipeline.one_file.speed import Speed
from reports.formats import interval, with_unit
from reports.limits import missed
from stages.search.limits import images_needed
from stages.search.study import TunedSettings

LEAST_AGREEMENT = 0.95
"""Share of the float file's classes below which a file counts as worse, beyond chance."""
LEAST_DB = 10.0
"""Energy of an output over its deviation's below which the same."""
SURE_DB = 20.0
"""The same, below which a file says how large the deviation is: a tenth of the answers."""
_COMPUTED_IN_FLOAT = frozenset(("auto", "fp16", "weight_only"))
"""After these `weight-only` is no advice: they are it, tried it, or round less."""
_NEARER = {
    "auto": "Try --method fp16, which rounds no activation.",
    "weight_only": "Try --method fp16, which makes no integers.",
    "fp16": "Keep the float file.",
}
"""What a file of a method that answers otherwise is told."""


@dataclass(frozen=True)
class CompiledFile:
    """A compiled file and what is known of it.

    Attributes:
        compiled: the file and its record.
        source: the model it was made from.
        source_bytes: its size, with its weights.
        layers: how many have weights.
        float_layers: names of those that compute in float; None for a method that does not say.
        calibration_images: how many the method saw; 0 where it needs none.
        scored_images: how many a search scored its files on; 0 without one.
        folder: all images; None where none were given.
        preprocessing: how they reach the model; None likewise.
        agreement: None where no image is left to measure on.
        speed: beside the float file's.
    """

    compiled: OnnxModel
    source: Path
    source_bytes: int
    layers: int
    float_layers: tuple[str, ...] | None
    calibration_images: int
    scored_images: int
    folder: ImageFolder | None
    preprocessing: Preprocessing | None
    agreement: Agreement | None
    speed: Speed

    @property
    def worse(self) -> tuple[str, ...]:
        """Return in what the file is worse than the one it was made from, a sentence each."""
        told = self._missed_limits()
        method = self.compiled.notes.method
        if self.compiled.size_bytes > self.source_bytes:
            told.append(
                f"It is larger than the float file: {self.compiled.size_bytes:,} bytes after {self.source_bytes:,}. "
                "Its weights are few beside what integers need besides; keep the float file."
            )
        if self.speed.is_slower and self.speed.ratio and self.speed.ci95:
            told.append(
                f"It is slower than the float file: {with_unit(self.speed.ratio, '×')} as fast "
                f"({interval(*self.speed.ci95, '×')}). Integers do not pay here; keep the float file"
                + ("." if method in _COMPUTED_IN_FLOAT else ", or try --method weight-only, which computes in float.")
            )
        nearer = self._nearer
        found = self.agreement
        if found and found.same_class_ci95 and found.same_class_ci95[1] < LEAST_AGREEMENT:
            told.append(
                f"It gives the float file's class for {found.same_class:.1%} of {found.images} images, less than "
                f"{LEAST_AGREEMENT:.0%}. {nearer}"
            )
        outputs_db = found.outputs_db if found else {}
        broken = [name for name, decibels in outputs_db.items() if decibels is not None and decibels < LEAST_DB]
        if broken:
            told.append(
                f"{', '.join(broken)}: less than {LEAST_DB:g} dB lie between the float file's answers and the "
                f"deviation from them. {nearer}"
            )
        return tuple(told)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return which outputs deviate much without being shown worse, a sentence each."""
        found = self.agreement
        if not found:
            return ()
        at_least = found.same_class_ci95[0] if found.same_class_ci95 else None
        if at_least is None:
            kept = ""
        elif at_least < LEAST_AGREEMENT:
            kept = f", and {found.images} images do not show that {LEAST_AGREEMENT:.0%} keep their class"
        else:
            kept = f", though {at_least:.1%} or more keep their class"
        return tuple(
            f"{name}: the deviation from the float file's answers is {10 ** (-ratio_db / 20):.0%} as large as they "
            f"are{kept}. {self._nearer}"
            for name, ratio_db in found.outputs_db.items()
            if ratio_db is not None and LEAST_DB <= ratio_db < SURE_DB
        )

    @property
    def _nearer(self) -> str:
        """Return what gives answers nearer to the float file's."""
        return _NEARER.get(self.compiled.notes.method, "Try --method weight-only or fp16, which round no activation.")

    def _missed_limits(self) -> list[str]:
        notes, limits = self.compiled.notes, self.compiled.settings
        if isinstance(notes, AutoNotes) and notes.misses:
            loosen = f"loosen --agreement (now {notes.agreement_limit:g}), " if "agreement" in notes.misses else ""
            return [
                f"No method keeps every limit: the best, {notes.chosen}, misses "
                f"{missed(notes.misses)}. Keep the float file, {loosen}or take it with --accept-worse."
            ]
        if not isinstance(notes, TunedNotes) or not notes.misses:
            return []
        loosen = " and ".join(f"--{name.replace('_', '-')} (now {limits[name]})" for name in notes.misses)
        return [
            f"No file is shown to keep every limit, at an error rate of {limits['alpha']:.0%} for all files "
            f"together: the best misses {missed(notes.misses)}. {self._too_few_to_show()}"
            f"Give more --images, more --trials, loosen {loosen}, or take it with --accept-worse."
        ]

    def _too_few_to_show(self) -> str:
        """Return how many images would show the limit on agreement, where these show it of no file at all."""
        settings = TunedSettings.model_validate(self.compiled.settings)
        needed = images_needed(settings)
        if needed is None:
            return "No number of images shows an agreement of 1. "
        if self.scored_images >= needed:
            return ""
        return (
            f"Of {self.scored_images} images to score on, not even all with the float file's answer would show an "
            f"agreement of {settings.agreement:g}; {needed} would. "
        )

    def as_json(self) -> dict[str, JSON]:
        """Return what `--json` prints."""
        return {
            "output": str(self.compiled.path),
            "source": str(self.source),
            "method": self.compiled.notes.method,
            "sha256": self.compiled.sha256,
            "size_bytes": {"before": self.source_bytes, "after": self.compiled.size_bytes},
            "layers": {"total": self.layers, "float": None if self.float_layers is None else list(self.float_layers)},
            "images": {
                "calibration": self.calibration_images,
                "scored": self.scored_images,
                "skipped": list(self.folder.skipped) if self.folder else [],
                "duplicates": self.folder.duplicates if self.folder else 0,
            },
            "preprocessing": asdict(self.preprocessing) if self.preprocessing else None,
            "worse": list(self.worse),
            "doubts": list(self.doubts),
            "agreement": asdict(self.agreement) if self.agreement else None,
            "speed": asdict(self.speed),
            "settings": dict(self.compiled.settings),
            "notes": self.compiled.notes.model_dump(mode="json"),
        }
