"""Commands that hand a run on to other systems; what they write stands outside of the run's folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from foundation.printable import printable
from pipeline.command_line.options import AsJson, ExistingRun, Quiet
from pipeline.console import observer_of, print_result


def export_mlflow(
    run: ExistingRun,
    tracking: Annotated[
        str | None, typer.Option(help="folder, or address of a server or a database (default: mlruns)")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="name of the experiment (default: the run's)")] = None,
    models: Annotated[bool, typer.Option("--models", help="the compiled files as artifacts, too")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a run into MLflow, once: its numbers with their intervals, its configuration and its report."""
    from foundation.run_folder import RunFolder
    from pipeline.exports.mlflow_run import export_to_mlflow

    with observer_of(quiet).stage("export to MLflow") as progress:
        exported = export_to_mlflow(RunFolder(run), tracking, experiment, models, progress)
    if as_json:
        print_result(asdict(exported))
        return
    told = f"{exported.metrics} numbers" if exported.is_new else "it was there already"
    print(printable(f"run {exported.run_id} of experiment {exported.experiment} in {exported.tracking}: {told}"))


def export_dicom(
    run: ExistingRun,
    images: Annotated[Path, typer.Option(help="the folder that the run read its DICOM files from")],
    output: Annotated[Path, typer.Option(help="folder to write to; its files name the patients")],
    variant: Annotated[str | None, typer.Option(help="only this variant's maps")] = None,
    every_image: Annotated[bool, typer.Option("--all", help="every image with a map, not only those shown")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write saliency maps for a PACS: Secondary Captures and Parametric Maps in their source images' studies."""
    from foundation.run_folder import RunFolder
    from pipeline.exports.dicom_run import export_dicom as export

    with observer_of(quiet).stage("export maps as DICOM") as progress:
        exported = export(RunFolder(run), images, output, variant, every_image, progress)
    if as_json:
        print_result({**asdict(exported), "folder": str(exported.folder)})
        return
    told = f"{len(exported.files)} objects of {exported.images} images in {exported.folder}; they name the patients"
    print(printable(told))
