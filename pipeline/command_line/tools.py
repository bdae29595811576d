"""Commands that need neither a configuration nor a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foundation.printable import printable
from pipeline.command_line.options import (
    AsJson,
)
from pipeline.console import observer_of, print_result


def twin(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="an ONNX classifier, ours or not")],
    output: Annotated[Path | None, typer.Option(help="file to write (default: MODEL.saliency.onnx)")] = None,
    input_name: Annotated[
        str | None, typer.Option("--input", help="the image's input, where there are several")
    ] = None,
    logits: Annotated[str | None, typer.Option(help="the tensor to explain, where there are several")] = None,
) -> None:
    """Write the model's saliency twin: the logits and their gradient with respect to the image, in one ONNX file."""
    from stages.saliency_twin.twin_file import make_twin

    print(printable(str(make_twin(model, output, input_name, logits))))


def doctor(
    as_json: AsJson = False,
    create: Annotated[
        bool, typer.Option("--create-neural-compressor", help="create the environment of Intel Neural Compressor")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="compile a built-in model and compare its answers with known ones")
    ] = False,
) -> None:
    """Show what this machine has, what is missing, and how to mend it."""
    from dataclasses import asdict

    from pipeline.machine.doctor import checks_table, diagnose, diagnose_deeply, exit_code
    from stages.quantize.neural_compressor.environment import create_environment

    if create:
        create_environment(observer_of(False).say)
    checks = (*diagnose(Path.cwd()), *(diagnose_deeply() if deep else ()))
    print_result([asdict(check) for check in checks] if as_json else checks_table(checks))
    raise typer.Exit(exit_code(checks))
