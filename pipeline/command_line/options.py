"""The arguments and options that several commands share, and the panels that `--help` shows them in."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer


def _option(panel: str, description: str) -> Any:
    return typer.Option(help=description, rich_help_panel=panel)


ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML configuration")]
RunPath = Annotated[Path | None, typer.Option("--run", help="run folder (default: runs/NAME)")]
ExistingRun = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress on stderr")]

Workers = Annotated[
    int | None, _option("Where the work is done", "processes on this host (default: 1, one stage after the other)")
]
Ray = Annotated[str | None, _option("Where the work is done", "a Ray cluster: HOST:PORT, ray://HOST:PORT or auto")]
Share = Annotated[
    str | None,
    _option("Where the work is done", "URL (fsspec) for the run's files, where the cluster does not see its folder"),
]

# `run` and `quantize` take two kinds of source, and --help shows the options of each by themselves.
of_config, of_model, of_search = (
    partial(_option, panel) for panel in ("Of a configuration", "Of an ONNX file", "Of an ONNX file, --method tuned")
)
Source = Annotated[Path, typer.Argument(metavar="CONFIG|MODEL", help="a YAML configuration, or an ONNX classifier")]
Mean = Annotated[str | None, of_model("of the input's channels, as 0.485,0.456,0.406")]
Std = Annotated[str | None, of_model("likewise, as 0.229,0.224,0.225")]
Scale = Annotated[int | None, of_model("largest pixel for mean and std, 1 (default) or 255")]
ModelLayout = Annotated[str | None, of_model("NCHW or NHWC (default: by the input's shape)")]
ChannelOrder = Annotated[str | None, of_model("RGB (default) or BGR")]
AnswerOutput = Annotated[str | None, of_model("name of the output to judge, where there are several")]
Answers = Annotated[str | None, of_model("what it holds: logits, probabilities, sigmoid or label")]
ImageSize = Annotated[str | None, of_model("224 or 224x320, where it takes any")]
FitTo = Annotated[str | None, of_model("pad (default), stretch or crop")]
CropShare = Annotated[float | None, of_model("share of the short side that crop keeps, as 0.875 (default: 1)")]
Seed = Annotated[int | None, of_model("of the choice of images (default: 0)")]
METHODS = "auto (default), static, mixed, tuned, dynamic, weight-only, fp16, neural-compressor or graph-optimized"
CALIBRATIONS = "ranges by minmax (default), moving-average, percentile, entropy or mse"
RECOVERIES = "against lost answers: none (default), bias or rounding, in seconds to minutes (static, auto)"
