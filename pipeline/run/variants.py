"""The variants of a run: each a row of the table of compilers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from foundation.artifacts import Checkpoint, OnnxModel
from foundation.errors import StageError, UsageError
from foundation.progress import Observer
from pipeline.configuration import Configuration
from pipeline.run.ledger import Ledger, Stage
from pipeline.run.model import own_network_source
from stages.compilers import COMPILERS, CompileTask

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData


def compile_variants(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    checkpoint: Checkpoint | None,
    fp32: OnnxModel,
    variants: Sequence[str],
    observer: Observer,
) -> list[OnnxModel]:
    """Compile the named variants; return the float baseline and those that succeeded."""
    models = [fp32]
    for variant in variants:
        stage = _stage(configuration, ledger, data, checkpoint, fp32, variant)
        try:
            with observer.stage(f"compile {variant}") as advance:
                settings, path = configuration.variants[variant], ledger.run.model(variant)
                task = CompileTask(
                    variant, settings, fp32, data, path, checkpoint, configuration.export, stage.key, advance
                )
                compute = partial(COMPILERS[settings.method].compile, task)
                model = ledger.perform(stage, compute, partial(OnnxModel.read, path))
        except (StageError, UsageError) as error:
            observer.say(f"✗ {variant}: {error}")
            continue
        ledger.add_variant(model)
        models.append(model)
    return models


def _stage(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    checkpoint: Checkpoint | None,
    fp32: OnnxModel,
    variant: str,
) -> Stage:
    settings, path = configuration.variants[variant], ledger.run.model(variant)
    compiler = COMPILERS[settings.method]
    starts_here = compiler.starts_from == "checkpoint" and checkpoint is not None
    parent = checkpoint.sha256 if starts_here and checkpoint else fp32.sha256
    own_network = own_network_source(configuration) if starts_here else {}
    return Stage(
        kind="quantize",
        subject=variant,
        inputs={"parent": parent, "data": data.sha256, **own_network},
        settings={
            "variant": variant,
            "method": settings.model_dump(mode="json"),
            "export": configuration.export.model_dump(mode="json"),
            **compiler.depends_on(),
        },
        modules=compiler.modules,
        outputs=(path, path.with_suffix(".json")),
    )
