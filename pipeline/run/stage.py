"""A stage of a run, by what its result depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foundation.files import JSON, sha256_of_json
from foundation.record import stage_name
from foundation.versions import versions_of
from pipeline.run.sources import sources_sha256

COMPUTING_PACKAGES = (
    "torch", "onnx", "onnxruntime", "onnxscript", "onnx-ir", "numpy", "scipy", "scikit-learn", "pillow",
    "safetensors", "pydicom", "python-gdcm", "pylibjpeg-openjpeg",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """What identifies a stage's result.

    Attributes:
        kind: what the stage does; unique in the run, together with the subject.
        inputs: name → sha256 of everything that comes from earlier stages or from outside.
        settings: what the configuration says about it.
        modules: of ours that compute it; what they import belongs to them.
        outputs: the files it leaves.
        subject: the variant that it is about; None where there is one such stage in a run.
        takes_times: whether its result rests on times, so that nothing of ours may compute beside it on this host.
    """

    kind: str
    inputs: Mapping[str, str]
    settings: JSON
    modules: tuple[str, ...]
    outputs: tuple[Path, ...]
    subject: str | None = None
    takes_times: bool = False

    @property
    def name(self) -> str:
        """Kind and subject in one word."""
        return stage_name(self.kind, self.subject)

    @property
    def key(self) -> str:
        """The stage's identity."""
        return sha256_of_json(
            {
                "name": self.name,
                "inputs": dict(self.inputs),
                "settings": self.settings,
                "source": sources_sha256(*self.modules),
                "versions": versions_of(COMPUTING_PACKAGES),
            }
        )
