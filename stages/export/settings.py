"""The settings of export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foundation.processor import CpuTarget
from foundation.settings import Settings


class ExportSettings(Settings):
    """The form of every exported file."""

    input_type: Literal["uint8", "float32"] = Field(
        "uint8", description="uint8: pixels in, normalisation inside the graph; float32: the caller normalises"
    )


class PactExportSettings(Settings):
    """Ship the integers that PACT trained."""

    method: Literal["pact"] = Field("pact", description="what was trained is what ships, without calibration")
    target: CpuTarget | Literal["auto"] = Field(
        "auto", description="processor whose integer kernels decide how weights are stored; auto: this machine's"
    )
    weight_storage: Literal["packed", "int8"] = Field(
        "packed",
        description="weights of two to four bits: packed: two or four in a byte, unpacked as ONNX Runtime loads the "
        "file, as fast; int8: a byte each, for runtimes that do not know INT4",
    )
