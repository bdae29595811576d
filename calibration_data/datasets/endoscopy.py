"""Generated endoscopy: eight classes of frames in the manner of Kvasir v2, with lesion masks. Always synthetic.

Each frame is mucosa (the patient's tint, blotches, vessels, folds) with what its class shows painted on it, lit by
the endoscope's lamp and seen through its round opening. Two patients are made per pair of frames a class: one seen
from above (esophagus, stomach), one from below (colon), and each shows every class of its half twice. A quarter of
the patients are seen through a dim endoscope (`subgroups`).
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from calibration_data.dataset import Dataset, Frame, Record, SourceSettings
from calibration_data.datasets import endoscopy_frames
from calibration_data.datasets.endoscopy_frames import CLASSES, Patient, make_patient, paint_frame, seeded
from foundation.files import sha256_of_file, sha256_of_json

_FRAMES_PER_FINDING = 2
_UPPER = ("esophagitis", "normal-pylorus", "normal-z-line")
"""What is seen from above; the other classes are of the colon."""


class EndoscopySettings(SourceSettings):
    """Generated endoscopy."""

    name: Literal["endoscopy"] = Field("endoscopy", description="generated endoscopy of eight classes; synthetic")
    frames_per_class: int = Field(192, ge=6, le=20_000, multiple_of=2, description="frames of each of the 8 classes")
    frame_size: int = Field(64, ge=32, le=512, description="height and width of a frame, in pixels")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the generator")


def open_endoscopy(settings: EndoscopySettings) -> Dataset:
    """Generate all frames (about 2 ms each at 64 px) for their digests; a class's label is its place in `CLASSES`.

    A frame is generated again where it is loaded: that costs less than holding all of them.
    """
    records: list[Record] = []
    for pair in range(settings.frames_per_class // _FRAMES_PER_FINDING):
        for half in ("upper", "lower"):
            patient = make_patient(settings.seed, pair, half)
            for label, finding in enumerate(CLASSES):
                if (finding in _UPPER) != (half == "upper"):
                    continue
                for view in range(_FRAMES_PER_FINDING):
                    frame = _frame(settings, patient, pair, label, view)
                    records.append(
                        Record(
                            image_id=f"{finding}-{pair * _FRAMES_PER_FINDING + view:05d}",
                            label=label,
                            group=patient.name,
                            subgroups=("dim" if patient.is_dim else "bright",),
                            official_split=None,
                            sha256=hashlib.sha256(frame.pixels.tobytes()).hexdigest(),
                        )
                    )
    return Dataset(
        name=settings.name,
        classes=CLASSES,
        records=tuple(records),
        synthetic=True,
        load=partial(_load, settings),
        groups_known=True,
    )


def _frame(settings: EndoscopySettings, patient: Patient, pair: int, label: int, view: int) -> Frame:
    finding = CLASSES[label]
    rng = seeded(settings.seed, pair, finding in _UPPER, label, view)
    return paint_frame(settings.frame_size, patient, finding, rng)


def _load(settings: EndoscopySettings, record: Record) -> Frame:
    finding, _, number = record.image_id.rpartition("-")
    pair, view = divmod(int(number), _FRAMES_PER_FINDING)
    patient = make_patient(settings.seed, pair, "upper" if finding in _UPPER else "lower")
    return _frame(settings, patient, pair, CLASSES.index(finding), view)


def fingerprint_endoscopy(settings: EndoscopySettings) -> str:
    """Return a sha256 over the settings and the generator's source."""
    sources = [sha256_of_file(Path(file)) for file in (__file__, endoscopy_frames.__file__)]
    return sha256_of_json({"settings": settings.model_dump(mode="json"), "generator": sources})
