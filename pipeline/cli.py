"""The command line: one command per stage, each a few lines; whatever computes is imported when it is needed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundation.errors import EdgeproofError, ExitCode, UsageError
from pipeline.console import error_console, fail, observer_of, print_result, show_night, show_outcome

if TYPE_CHECKING:
    from pipeline.configuration import Configuration


def _option(panel: str, description: str) -> Any:
    return typer.Option(help=description, rich_help_panel=panel)


app = typer.Typer(
    help="Compile an image classifier for an edge device, and prove what the compilation did to it.",
    epilog="Exit codes: 0 all gates passed · 1 a gate failed · 2 wrong usage or input · 3 evidence incomplete.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML configuration")]
RunPath = Annotated[Path | None, typer.Option("--run", help="run folder (default: runs/NAME)")]
ExistingRun = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress on stderr")]

# `run` and `quantize` take two kinds of source, and --help shows the options of each by themselves.
_of_config, _of_model, _of_search = (
    partial(_option, panel) for panel in ("Of a configuration", "Of an ONNX file", "Of an ONNX file, --method tuned")
)
Source = Annotated[Path, typer.Argument(metavar="CONFIG|MODEL", help="a YAML configuration, or an ONNX classifier")]
Mean = Annotated[str | None, _of_model("of the input's channels, as 0.485,0.456,0.406")]
Std = Annotated[str | None, _of_model("likewise, as 0.229,0.224,0.225")]
Scale = Annotated[int | None, _of_model("largest pixel for mean and std, 1 (default) or 255")]
ModelLayout = Annotated[str | None, _of_model("NCHW or NHWC (default: by the input's shape)")]
ChannelOrder = Annotated[str | None, _of_model("RGB (default) or BGR")]
AnswerOutput = Annotated[str | None, _of_model("name of the output to judge, where there are several")]
Answers = Annotated[str | None, _of_model("what it holds: logits, probabilities, sigmoid or label")]
ImageSize = Annotated[str | None, _of_model("224 or 224x320, where it takes any")]
FitTo = Annotated[str | None, _of_model("pad (default), stretch or crop")]
Seed = Annotated[int | None, _of_model("of the choice of images (default: 0)")]
_INTERRUPTED = 130
_METHODS = "static (default), tuned, dynamic, weight-only, fp16, neural-compressor or graph-optimized"
_CALIBRATIONS = "ranges by minmax (default), moving-average, percentile, entropy or mse"


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

    _compile_and_validate(read_configuration(Path(__file__).with_name("demo.yaml")), run, as_json, quiet)


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
        print(f"wrote {path}; next: edgeproof run {path}")
    else:
        print(text, end="")


@app.command()
def run(
    source: Source,
    run: RunPath = None,
    images: Annotated[Path | None, _of_model("labelled images: a folder per class, or a CSV table")] = None,
    labels: Annotated[Path | None, _of_model("names of the outputs, one a line, in their order")] = None,
    given: Annotated[list[Path] | None, _of_model("a file that another tool compiled (may be repeated)")] = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    layout: ModelLayout = None,
    channel_order: ChannelOrder = None,
    answer_output: AnswerOutput = None,
    answers: Answers = None,
    image_size: ImageSize = None,
    fit: FitTo = None,
    seed: Seed = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Do everything: train or take the model, compile, validate, judge, report."""
    from pipeline.configuration_file import read_configuration
    from pipeline.one_file.options import is_model, refuse_options

    form = {
        "mean": mean, "std": std, "scale": scale, "layout": layout, "channel_order": channel_order,
        "answer_output": answer_output, "answers": answers, "image_size": image_size, "fit": fit, "seed": seed,
    }  # fmt: skip
    if is_model(source):
        _run_file(source, images, labels, given or [], form, run, as_json, quiet)
    else:
        refuse_options(source, "a model (MODEL.onnx)", images=images, labels=labels, given=given, **form)
        _compile_and_validate(read_configuration(source), run, as_json, quiet)


@app.command()
def train(config: ConfigPath, run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Prepare the images and train the network."""
    _run_until("train", config, run, None, as_json, quiet)


@app.command()
def export(config: ConfigPath, run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Export the trained network to ONNX in float."""
    _run_until("export", config, run, None, as_json, quiet)


@app.command()
def quantize(
    source: Source,
    run: Annotated[Path | None, _of_config("run folder (default: runs/NAME)")] = None,
    variant: Annotated[str | None, _of_config("only this variant")] = None,
    images: Annotated[Path | None, _of_model("folder of images, no labels needed")] = None,
    method: Annotated[str | None, _of_model(_METHODS)] = None,
    calibration: Annotated[str | None, _of_model(_CALIBRATIONS)] = None,
    limit: Annotated[int | None, _of_model("at most so many images to calibrate on (default: 128)")] = None,
    bits: Annotated[int | None, _of_model("of a weight, 8 or 4 (weight-only)")] = None,
    target: Annotated[str | None, _of_model("x86-vnni, x86-avx2 or arm64 (default: this machine)")] = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    layout: ModelLayout = None,
    channel_order: ChannelOrder = None,
    answer_output: AnswerOutput = None,
    answers: Answers = None,
    image_size: ImageSize = None,
    fit: FitTo = None,
    seed: Seed = None,
    output: Annotated[Path | None, _of_model("file to write (default: MODEL.METHOD.onnx)")] = None,
    trials: Annotated[int | None, _of_search("files to try, at most (default: 24)")] = None,
    minutes: Annotated[float | None, _of_search("time to try them, at most (default: 20)")] = None,
    agreement: Annotated[float | None, _of_search("limit: share of equal answers (default: 0.97)")] = None,
    saliency_spearman: Annotated[
        float | None, _of_search("limit: rank correlation of the gradient maps (default: 0.8)")
    ] = None,
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
        "image_size": image_size, "fit": fit, "seed": seed, "output": output,
    }  # fmt: skip
    if is_model(source):
        refuse_options(source, "a configuration", run=run, variant=variant)
        _compile_file(source, options, as_json, quiet)
    else:
        refuse_options(source, "a model (MODEL.onnx)", **options)
        _run_until("quantize", source, run, variant, as_json, quiet)


@app.command()
def validate(config: ConfigPath, run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Measure accuracy, saliency and latency of every file."""
    _run_until("validate", config, run, None, as_json, quiet)


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

    print(make_twin(model, output, input_name, logits))


@app.command()
def report(run: ExistingRun, as_json: AsJson = False) -> None:
    """Write the report of a run again from its files."""
    from foundation.run_folder import RunFolder
    from reports import write_report

    path = write_report(RunFolder(run))
    print_result({"report": str(path)}) if as_json else print(path)


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
    print(f"accepted {accepted.folder}")


@app.command()
def compare(first: ExistingRun, second: ExistingRun, as_json: AsJson = False) -> None:
    """Compare the measurements of two runs by the tolerances of the second; the first one is the accepted one."""
    from foundation.run_folder import RunFolder
    from pipeline.judge.comparison import compare as compare_runs
    from pipeline.judge.comparison import recorded_settings
    from pipeline.judge.comparison_text import comparison_table
    from pipeline.judge.evidence import read_evidence

    accepted, current = (read_evidence(RunFolder(path)) for path in (first, second))
    comparison = compare_runs(accepted, current, recorded_settings(current.record))
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


def _folder(configuration: Configuration, run: Path | None) -> Any:
    from foundation.run_folder import RunFolder

    return RunFolder(run or Path("runs") / configuration.name)


def _follow_if_another_leads() -> None:
    """Under `torchrun` only the process of rank 0 does the command; the others train with it and end."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0:
        from pipeline.run.model import follow_training

        follow_training()
        raise typer.Exit(0)


def _compile_and_validate(
    configuration: Configuration,
    run: Path | None,
    as_json: bool,
    quiet: bool,
    write_beside: Callable[[Path], Path] | None = None,
) -> None:
    from pipeline.flow import compile_and_validate

    _follow_if_another_leads()
    outcome = compile_and_validate(configuration, _folder(configuration, run), observer_of(quiet))
    print_result(outcome.as_json()) if as_json else show_outcome(outcome)
    if write_beside is not None:
        observer_of(quiet).say(f"what this stood for: {write_beside(outcome.run.root)}")
    raise typer.Exit(outcome.exit_code)


def _run_file(
    model: Path,
    images: Path | None,
    labels: Path | None,
    given: list[Path],
    form: Mapping[str, Any],
    run: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from pipeline.one_file.options import request_for
    from pipeline.one_file.run_file import RunRequest, configuration_of, write_configuration

    if images is None:
        raise UsageError(
            f"{model}: expected labelled images to judge it on, found none. Give --images: a folder with one folder "
            "per class, or a CSV table."
        )
    configuration = configuration_of(RunRequest(request_for(model, form), images, labels, given))
    _compile_and_validate(
        configuration, run, as_json, quiet, lambda folder: write_configuration(configuration, folder)
    )


def _run_until(stage: str, config: Path, run: Path | None, variant: str | None, as_json: bool, quiet: bool) -> None:
    from foundation.record import read_record
    from pipeline.configuration_file import read_configuration
    from pipeline.flow import run_until
    from reports.report_json import published

    _follow_if_another_leads()
    configuration = read_configuration(config)
    if variant is not None and variant not in configuration.variants:
        raise UsageError(f"--variant: expected one of {', '.join(configuration.variants)}, found {variant!r}.")
    folder = _folder(configuration, run)
    exit_code = run_until(stage, configuration, folder, variant, observer_of(quiet))
    if as_json:
        shown = published(read_record(folder), ())
        print_result(
            {"exit_code": int(exit_code), "run": str(folder.root), **{k: shown[k] for k in ("stages", "variants")}}
        )
    raise typer.Exit(exit_code)


def _compile_file(model: Path, options: Mapping[str, Any], as_json: bool, quiet: bool) -> None:
    from pipeline.one_file.compile_file import compile_file
    from pipeline.one_file.options import request_for
    from pipeline.one_file.text import compiled_table

    compiled = compile_file(request_for(model, options), observer_of(quiet))
    print_result(compiled.as_json() if as_json else compiled_table(compiled))


class _Interrupted(BaseException):
    """Ctrl-C: no error of a stage, so nothing that handles those may catch it."""


def _interrupt(signal_number: int, frame: object) -> None:
    raise _Interrupted


def main() -> None:
    """Run the command line; every expected error is one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks "≥" gets its escape, not a traceback
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except _Interrupted:
        error_console().print("Interrupted. The same command goes on from here.", highlight=False)
        sys.exit(_INTERRUPTED)
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
