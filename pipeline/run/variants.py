"""The variants of a run: each a row of the table of compilers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.errors import DiskError, StageError, UsageError
from foundation.progress import Observer, Progress
from foundation.run_folder import RunFolder
from foundation.settings import without_paths
from pipeline.configuration import Configuration, given_paths
from pipeline.run.deliveries import Performer
from pipeline.run.ledger import Ledger
from pipeline.run.model import Model, own_network_source
from pipeline.run.stage import Stage
from stages.compilers import COMPILERS, CompileTask

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData


TIMED_AS_THEY_ARE_MADE = ("tuned",)
"""Methods whose search takes times: no worker may compute beside it, so the run's own flow does it."""


def compile_variants(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    model: Model,
    variants: Sequence[str],
    observer: Observer,
) -> list[OnnxModel]:
    """Compile the named variants; return the float baseline and those that succeeded."""
    models = [model.float_file]
    for variant in variants:
        try:
            with observer.stage(f"compile {variant}") as progress:
                compiled = compile_variant(configuration, ledger, data, model, variant, progress)
        except DiskError:
            raise
        except (StageError, UsageError) as error:
            observer.say(f"✗ {variant}: {error}")
            continue
        ledger.add_variant(compiled)
        models.append(compiled)
    return models


def compile_variant(
    configuration: Configuration,
    performer: Performer,
    data: PreparedData,
    model: Model,
    variant: str,
    progress: Progress,
) -> OnnxModel:
    """Compile one variant.

    Raises:
        StageError: its method failed.
        UsageError: its file from elsewhere is not usable.
    """
    stage = _stage(configuration, performer.run, data, model, variant)
    settings, path = configuration.variants[variant], performer.run.model(variant)
    task = CompileTask(
        variant,
        settings,
        model.float_file,
        data,
        path,
        model.checkpoint,
        configuration.export,
        stage.key,
        progress,
    )
    compute = partial(COMPILERS[settings.method].compile, task)
    return performer.perform(stage, compute, partial(OnnxModel.read, path))


def _stage(
    configuration: Configuration,
    run: RunFolder,
    data: PreparedData,
    model: Model,
    variant: str,
) -> Stage:
    settings, path = configuration.variants[variant], run.model(variant)
    compiler = COMPILERS[settings.method]
    inputs = {"parent": model.float_file.sha256, "data": data.sha256}
    if compiler.starts_from == "checkpoint" and model.checkpoint is not None:
        inputs |= {"parent": model.checkpoint.sha256, **own_network_source(configuration)}
    elif compiler.starts_from == "given_file":
        from stages.given.float_file import given_sha256

        inputs["given"] = given_sha256(given_paths(configuration)[variant])
    return Stage(
        kind="quantize",
        subject=variant,
        inputs=inputs,
        settings={
            "variant": variant,
            "method": without_paths(settings.model_dump()),
            "export": configuration.export.model_dump(mode="json"),
            **compiler.depends_on(),
        },
        modules=compiler.modules,
        outputs=(path, path.with_suffix(".json")),
        takes_times=settings.method in TIMED_AS_THEY_ARE_MADE,
    )
