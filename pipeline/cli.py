"""The command line: one command per stage, each a few lines; whatever computes is imported when it is needed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from foundation.errors import EdgeproofError, ExitCode, UsageError
from foundation.printable import printable
from pipeline.cli_options import (
    CALIBRATIONS,
    METHODS,
    AnswerOutput,
    Answers,
    AsJson,
    ChannelOrder,
    ConfigPath,
    CropShare,
    ExistingRun,
    FitTo,
    ImageSize,
    Mean,
    ModelLayout,
    Quiet,
    RunPath,
    Scale,
    Seed,
    Source,
    Std,
    of_config,
    of_model,
    of_search,
)
from pipeline.commands import compile_model, run_configuration, run_model, run_stages
from pipeline.console import error_console, fail, observer_of, print_result, show_night
from pipeline.endings import InterruptedBySignal, end_now, end_on_signals

app = typer.Typer(
    help="Compile an image classifier for an edge device, and prove what the compilation did to it.",
    epilog="Exit codes: 0 all gates passed · 1 a gate failed · 2 wrong usage or input · 3 evidence incomplete.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from foundation.versions import installed_version

        print(f"edgeproof {installed_version('edgeproof') or '(not installed)'}")
        raise typer.Exit(0)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="print the version and end", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    if debug:
        os.environ["EDGEPROOF_DEBUG"] = "1"


@app.command()
def demo(run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Run every stage and variant on generated endoscopy-like frames (synthetic)."""
    from pipeline.configuration_file import read_configuration

    run_configuration(read_configuration(Path(__file__).with_name("demo.yaml")), run, as_json, quiet)


@app.command()
def init(
    path: Annotated[Path | None, typer.Argument(help="file to write (default: print it)")] = None,
    dataset: Annotated[str, typer.Option(help="data set, see `edgeproof doctor`")] = "folder",
    root: Annotated[str | None, typer.Option(help="folder of the images")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="print the configuration's JSON schema instead")] = False,
) -> None:
    """Write a commented configuration to start from."""
    from pipeline.template import starting_text, write_new

    text = starting_text(path.stem if path else "my-run", dataset, root, schema)
    if path:
        write_new(path, text)
        print(printable(f"wrote {path}; next: edgeproof run {path}"))
    else:
        print(text, end="")


@app.command()
def run(
    source: Source,
    run: RunPath = None,
    images: Annotated[Path | None, of_model("labelled images: a folder per class, or a CSV table")] = None,
    labels: Annotated[Path | None, of_model("names of the outputs, one a line, in their order")] = None,
    given: Annotated[list[Path] | None, of_model("a file that another tool compiled (may be repeated)")] = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    layout: ModelLayout = None,
    channel_order: ChannelOrder = None,
    answer_output: AnswerOutput = None,
    answers: Answers = None,
    image_size: ImageSize = None,
    fit: FitTo = None,
    crop_share: CropShare = None,
    seed: Seed = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Do everything: train or take the model, compile, validate, judge, report."""
    from pipeline.configuration_file import read_configuration
    from pipeline.one_file.options import is_model, refuse_options

    form = {
        "mean": mean, "std": std, "scale": scale, "layout": layout, "channel_order": channel_order,
        "answer_output": answer_output, "answers": answers, "image_size": image_size, "fit": fit,
        "crop_share": crop_share, "seed": seed,
    }  # fmt: skip
    if is_model(source):
        run_model(source, images, labels, given or [], form, run, as_json, quiet)
    else:
        refuse_options(source, "a model (MODEL.onnx)", images=images, labels=labels, given=given, **form)
        run_configuration(read_configuration(source), run, as_json, quiet)


@app.command()
def plan(
    config: ConfigPath,
    discordance: Annotated[float, typer.Option(help="share of the answers that a variant changes")] = 0.04,
    reserve: Annotated[float, typer.Option(help="by how much the truth is better than an absolute limit")] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Say how many test images the gates need for 80 and 90 % power, before anything is trained."""
    from pipeline.configuration_file import read_configuration
    from pipeline.judge.plan import plan as plan_gates
    from pipeline.judge.plan import plan_table

    planned = plan_gates(read_configuration(config).gates, discordance, reserve)
    print_result([one.as_json() for one in planned] if as_json else plan_table(planned))


@app.command()
def train(config: ConfigPath, run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Prepare the images and train the network."""
    run_stages("train", config, run, None, as_json, quiet)


@app.command()
def export(config: ConfigPath, run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Export the trained network to ONNX in float."""
    run_stages("export", config, run, None, as_json, quiet)


@app.command()
def quantize(
    source: Source,
    run: Annotated[Path | None, of_config("run folder (default: runs/NAME)")] = None,
    variant: Annotated[str | None, of_config("only this variant")] = None,
    images: Annotated[Path | None, of_model("folder of images, no labels needed")] = None,
    method: Annotated[str | None, of_model(METHODS)] = None,
    calibration: Annotated[str | None, of_model(CALIBRATIONS)] = None,
    limit: Annotated[int | None, of_model("at most so many images to calibrate on (default: 128)")] = None,
    bits: Annotated[int | None, of_model("of a weight, 8 or 4 (weight-only)")] = None,
    target: Annotated[str | None, of_model("x86-vnni, x86-avx2 or arm64 (default: this machine)")] = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    layout: ModelLayout = None,
    channel_order: ChannelOrder = None,
    answer_output: AnswerOutput = None,
    answers: Answers = None,
    image_size: ImageSize = None,
    fit: FitTo = None,
    crop_share: CropShare = None,
    seed: Seed = None,
    output: Annotated[Path | None, of_model("file to write (default: MODEL.METHOD.onnx)")] = None,
    trials: Annotated[int | None, of_search("files to try, at most (default: 24)")] = None,
    minutes: Annotated[float | None, of_search("time to try them, at most (default: 20)")] = None,
    agreement: Annotated[
        float | None, of_search("limit: share of equal answers; of auto as well (default: 0.95)")
    ] = None,
    saliency_spearman: Annotated[
        float | None, of_search("limit: rank correlation of the gradient maps (default: 0.75)")
    ] = None,
    accept_worse: Annotated[
        bool, typer.Option("--accept-worse", help="end with 0 where the file is larger or answers otherwise")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compile the variants of a configuration, or one ONNX file without any."""
    from pipeline.one_file.options import is_model, refuse_options

    options = {
        "images": images, "method": method, "calibration": calibration, "limit": limit, "bits": bits,
        "target": target, "trials": trials, "minutes": minutes, "agreement": agreement,
        "saliency_spearman": saliency_spearman, "mean": mean, "std": std, "scale": scale, "layout": layout,
        "channel_order": channel_order, "answer_output": answer_output, "answers": answers,
        "image_size": image_size, "fit": fit, "crop_share": crop_share, "seed": seed, "output": output,
    }  # fmt: skip
    if is_model(source):
        refuse_options(source, "a configuration", run=run, variant=variant)
        compile_model(source, options, as_json, quiet, accept_worse)
    else:
        refuse_options(source, "a model (MODEL.onnx)", **options, accept_worse=accept_worse or None)
        run_stages("quantize", source, run, variant, as_json, quiet)


@app.command()
def validate(config: ConfigPath, run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Measure accuracy, saliency and latency of every file."""
    run_stages("validate", config, run, None, as_json, quiet)


@app.command()
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


@app.command()
def report(run: ExistingRun, as_json: AsJson = False) -> None:
    """Write the report of a run again from its files."""
    from foundation.run_folder import RunFolder
    from pipeline.custody.report_again import report_again

    path, unverified = report_again(RunFolder(run))
    if unverified is not None:
        observer_of(False).say(f"! {unverified}")
    print_result({"report": str(path)}) if as_json else print(printable(str(path)))


@app.command()
def check(
    run: ExistingRun,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file of the key that run.json is to be signed with")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold every file of a run against its record: 0 as recorded, 2 otherwise."""
    from foundation.run_folder import RunFolder
    from pipeline.custody.check import check_run, checked_table

    checked = check_run(RunFolder(run), public_key)
    print_result(checked.as_json() if as_json else checked_table(checked))
    raise typer.Exit(checked.exit_code)


@app.command()
def sign(
    run: ExistingRun,
    key: Annotated[Path, typer.Option(help="PEM file of an Ed25519 private key")],
) -> None:
    """Sign a run's record, which names every file with its digest."""
    from foundation.run_folder import RunFolder
    from pipeline.custody.signature import sign_run

    print(sign_run(RunFolder(run), key))


@app.command()
def nightly(
    config: ConfigPath,
    root: Annotated[Path | None, typer.Option(help="folder of the nights (default: runs/nightly/NAME)")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run unattended under a lock and compare with the last accepted run."""
    from pipeline.configuration_file import read_configuration
    from pipeline.flow import run_one_night

    configuration = read_configuration(config)
    result = run_one_night(configuration, root or Path("runs/nightly") / configuration.name, observer_of(quiet))
    show_night(result, as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def accept(
    run: ExistingRun,
    reason: Annotated[str | None, typer.Option(help="why a run that is not green is accepted all the same")] = None,
) -> None:
    """Make a run the one that later nights are compared with."""
    from foundation.run_folder import RunFolder
    from pipeline.night.accepted import accept as accept_run

    accepted = accept_run(RunFolder(run), run.resolve().parent, reason=reason)
    for change in accepted.evidence.record.gate_changes:
        observer_of(False).say(f"! {change.sentence}")
    print(printable(f"accepted {accepted.folder}"))


@app.command()
def compare(first: ExistingRun, second: ExistingRun, as_json: AsJson = False) -> None:
    """Compare the measurements of two runs by the tolerances of the second; the first one is the accepted one."""
    from foundation.run_folder import RunFolder
    from pipeline.judge.comparison import compare as compare_runs
    from pipeline.judge.comparison_text import comparison_table
    from pipeline.judge.evidence import read_evidence
    from pipeline.judge.paired_runs import pair_runs
    from pipeline.judge.tolerances import recorded_settings

    accepted, current = (read_evidence(RunFolder(path)) for path in (first, second))
    pairs = pair_runs(RunFolder(first), accepted.record, RunFolder(second), current.record)
    comparison = compare_runs(accepted, current, recorded_settings(current.record), pairs)
    print_result(comparison.as_json() if as_json else comparison_table(comparison))
    raise typer.Exit(comparison.exit_code)


@app.command()
def doctor(
    as_json: AsJson = False,
    create: Annotated[
        bool, typer.Option("--create-neural-compressor", help="create the environment of Intel Neural Compressor")
    ] = False,
) -> None:
    """Show what this machine has, what is missing, and how to mend it."""
    from dataclasses import asdict

    from pipeline.machine.doctor import checks_table, diagnose, exit_code
    from stages.quantize.neural_compressor.environment import create_environment

    if create:
        create_environment(observer_of(False).say)
    checks = diagnose(Path.cwd())
    print_result([asdict(check) for check in checks] if as_json else checks_table(checks))
    raise typer.Exit(exit_code(checks))


def _say(line: str) -> None:
    with suppress(OSError):  # a terminal that hung up
        error_console().print(line, highlight=False)


def _refuse_empty_arguments(arguments: list[str]) -> None:
    """An empty path would be the working directory."""
    for argument, before in zip(arguments, ("", *arguments), strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            raise UsageError(
                f"{argument or before or 'edgeproof'}: expected a value, found nothing. "
                "Is a variable of the shell empty?"
            )


def main() -> None:
    """Run the command line; every expected error is one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks "≥" gets its escape, not a traceback
            stream.reconfigure(errors="backslashreplace")
    end_on_signals(_say)
    try:
        _refuse_empty_arguments(sys.argv[1:])
        app()
    except InterruptedBySignal as interrupted:
        end_now(interrupted, _say)
    except EdgeproofError as error:
        fail(error, str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}the operating system refused ({error.strerror or error}). Mend that and run again."
        fail(error, message, ExitCode.INCOMPLETE)
    except Exception as error:
        message = (
            f"an unexpected {type(error).__name__}: {error}. Run it again with `edgeproof --debug` and report it."
        )
        fail(error, message, ExitCode.INCOMPLETE)
