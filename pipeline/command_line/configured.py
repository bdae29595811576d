"""Commands on a configuration, or on a model without one: the whole run, and each stage of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foundation.printable import printable
from pipeline.command_line.options import (
    CALIBRATIONS,
    METHODS,
    RECOVERIES,
    AnswerOutput,
    Answers,
    AsJson,
    ChannelOrder,
    ConfigPath,
    CropShare,
    FitTo,
    ImageSize,
    Mean,
    ModelLayout,
    Quiet,
    Ray,
    RunPath,
    Scale,
    Seed,
    Share,
    Source,
    Std,
    Workers,
    of_config,
    of_model,
    of_search,
)
from pipeline.commands import compile_model, run_configuration, run_model, run_stages
from pipeline.console import print_result


def demo(run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Run every stage and variant on generated endoscopy-like frames (synthetic)."""
    from pipeline.configuration_file import read_configuration

    run_configuration(read_configuration(Path(__file__).parents[1] / "demo.yaml"), run, as_json, quiet)


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
    workers: Workers = None,
    ray: Ray = None,
    share: Share = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Do everything: train or take the model, compile, validate, judge, report."""
    from pipeline.configuration_file import read_configuration
    from pipeline.one_file.options import is_model, refuse_options
    from pipeline.run.executors.opening import Asked

    form = {
        "mean": mean, "std": std, "scale": scale, "layout": layout, "channel_order": channel_order,
        "answer_output": answer_output, "answers": answers, "image_size": image_size, "fit": fit,
        "crop_share": crop_share, "seed": seed,
    }  # fmt: skip
    asked = Asked(workers, ray, share)
    if is_model(source):
        run_model(source, images, labels, given or [], form, run, as_json, quiet, asked)
    else:
        refuse_options(source, "a model (MODEL.onnx)", images=images, labels=labels, given=given, **form)
        run_configuration(read_configuration(source), run, as_json, quiet, asked)


def train(config: ConfigPath, run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Prepare the images and train the network."""
    run_stages("train", config, run, None, as_json, quiet)


def export(config: ConfigPath, run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Export the trained network to ONNX in float."""
    run_stages("export", config, run, None, as_json, quiet)


def quantize(
    source: Source,
    run: Annotated[Path | None, of_config("run folder (default: runs/NAME)")] = None,
    variant: Annotated[str | None, of_config("only this variant")] = None,
    images: Annotated[Path | None, of_model("folder of images, no labels needed")] = None,
    method: Annotated[str | None, of_model(METHODS)] = None,
    calibration: Annotated[str | None, of_model(CALIBRATIONS)] = None,
    recovery: Annotated[str | None, of_model(RECOVERIES)] = None,
    limit: Annotated[int | None, of_model("at most so many images to calibrate on (default: 128)")] = None,
    bits: Annotated[int | None, of_model("of a weight, 8 or 4 (weight-only, static)")] = None,
    target: Annotated[
        str | None, of_model("x86-vnni, x86-avx2, arm64, wasm, openvino or qnn-htp (default: this machine)")
    ] = None,
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
        "images": images, "method": method, "calibration": calibration, "recovery": recovery,
        "limit": limit, "bits": bits,
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


def validate(config: ConfigPath, run: RunPath = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Measure accuracy, saliency and latency of every file."""
    run_stages("validate", config, run, None, as_json, quiet)
