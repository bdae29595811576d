"""The model of a run, by one of three doors: trained here, a PyTorch network with its weights, or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from calibration_data.settings import open_source
from foundation.artifacts import Checkpoint, OnnxModel
from foundation.errors import StageError, UsageError
from foundation.files import sha256_of_file
from foundation.progress import Observer, Progress
from foundation.run_folder import RunFolder
from foundation.settings import without_paths
from pipeline.configuration import Configuration, given_paths
from pipeline.run.images import names_of_outputs
from pipeline.run.ledger import Ledger
from pipeline.run.stage import Stage
from stages.network import NETWORKS

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData
    from stages.given.float_file import GivenModel
    from stages.train.settings import TrainSettings

_CHECKED_IMAGES = 16


@dataclass(frozen=True)
class Model:
    """What every variant starts from.

    Attributes:
        float_file: the baseline.
        checkpoint: the network; None where the model is an ONNX file.
    """

    float_file: OnnxModel
    checkpoint: Checkpoint | None


def take_given(configuration: Configuration, ledger: Ledger, observer: Observer) -> GivenModel | None:
    """Take in the ONNX file that the configuration names, before any image is decoded; None where it names none.

    Nothing is written of a model whose outputs are not those of the images.

    Raises:
        UsageError: no such model, something that it leaves open and the configuration does not say, or other classes
            than the images'.
    """
    settings = configuration.model.onnx
    if settings is None:
        return None
    from stages.given.float_file import (
        class_names,
        given_sha256,
        read_float_file,
        read_given_file,
        write_float_file,
    )

    path, size = ledger.run.fp32, configuration.data.image_size
    if not settings.path.is_file():
        raise UsageError(f"model.onnx.path: expected an ONNX file, found none at {settings.path}. Mend the path.")
    stage = Stage(
        kind="export",
        subject="fp32",
        inputs={"given": given_sha256(settings.path)},
        settings={**without_paths(settings.model_dump()), "classes": class_names(settings), "image_size": size},
        modules=("stages.given.float_file",),
        outputs=(path, path.with_suffix(".json")),
    )

    def compute() -> GivenModel:
        read = read_given_file(settings, (size, size), lambda key: f"`model.onnx.{key}`")
        names_of_outputs(configuration, read.answers.classes, read.classes, open_source(configuration.data))
        return write_float_file(read, path)

    with observer.stage(f"read {settings.path.name}"):
        given = ledger.perform(stage, compute, lambda: read_float_file(path))
    ledger.add_variant(given.model)
    return given


def make_model(
    configuration: Configuration, ledger: Ledger, data: PreparedData, given: GivenModel | None, observer: Observer
) -> Model:
    """Return the float baseline, made by the configuration's door.

    Raises:
        UsageError: weights that do not fit, or a given file whose answers are not to be trusted.
        StageError: the training or the export failed.
    """
    if given is not None:
        from stages.given.float_file import refuse_changed_answers

        assert configuration.model.onnx is not None
        refuse_changed_answers(configuration.model.onnx, given, data.test.images[:_CHECKED_IMAGES])
        return Model(given.model, None)
    checkpoint = make_checkpoint(configuration, ledger, data, observer)
    return Model(export_float(configuration, ledger, checkpoint, observer), checkpoint)


def make_checkpoint(
    configuration: Configuration, ledger: Ledger, data: PreparedData, observer: Observer
) -> Checkpoint:
    """Train the network, or take the one that was trained elsewhere; or reuse its checkpoint."""
    if configuration.model.train is not None:
        return _train(configuration, configuration.model.train, ledger, data, observer)
    from stages.export.torch_model import take_network

    settings = configuration.model.torch
    assert settings is not None, "the configuration has exactly one source of the model"
    path = ledger.run.checkpoint
    stage = Stage(
        kind="network",
        inputs={
            "data": data.sha256,
            **_given_files({"torch": settings.weights}),
            **own_network_source(configuration),
        },
        settings=without_paths(settings.model_dump()) | {"mean": data.mean, "std": data.std},
        modules=("stages.export.torch_model",),
        outputs=(path,),
    )
    with observer.stage("take the network"):
        return ledger.perform(
            stage,
            lambda: take_network(settings, data, path, observer.say),
            lambda: Checkpoint.at(path, settings.network),
        )


def _train(
    configuration: Configuration, settings: TrainSettings, ledger: Ledger, data: PreparedData, observer: Observer
) -> Checkpoint:
    from stages.train import processes
    from stages.train.state import Epoch
    from stages.train.trainer import train

    run = ledger.run
    teacher = settings.distillation.teacher if settings.distillation else None
    stage = Stage(
        kind="train",
        inputs={
            "data": data.sha256,
            **_given_files({"pretrained": settings.pretrained, "teacher": teacher}),
            **own_network_source(configuration),
        },
        settings=without_paths(settings.model_dump()) | {"mean": data.mean, "std": data.std},
        modules=("stages.train.trainer",),
        outputs=(run.checkpoint, run.history),
    )

    def tell(epoch: Epoch) -> None:
        observer.say(
            f"  epoch {epoch.epoch:>3}/{settings.epochs}  loss {epoch.train_loss:.4f}  "
            f"validation {epoch.metric.replace('_', ' ')} {epoch.score:.4f}"
        )

    def compute(progress: Progress) -> Checkpoint:
        processes.tell((run.root, settings, stage.key))
        return train(data, settings, run, stage.key, progress, tell, observer.say)

    with observer.stage("train") as progress:
        checkpoint = ledger.perform(
            stage, partial(compute, progress), lambda: Checkpoint.at(run.checkpoint, settings.network)
        )
    processes.tell(None)
    return checkpoint


def follow_training() -> None:
    """Train with the process that leads, as often as it calls, until it lets us go; see `processes`."""
    from calibration_data.prepared_folder import read_prepared
    from stages.train import processes
    from stages.train.trainer import train

    while (message := processes.told()) is not None:
        root, settings, key = cast("tuple[Path, TrainSettings, str]", message)
        run = RunFolder(root)
        try:
            train(read_prepared(run.data), settings, run, key)
        except StageError:
            return  # all fail alike, and the one that leads says so


def export_float(
    configuration: Configuration, ledger: Ledger, checkpoint: Checkpoint, observer: Observer
) -> OnnxModel:
    """Export the float baseline of a network."""
    from stages.export.to_onnx import export_fp32

    path = ledger.run.fp32
    stage = Stage(
        kind="export",
        subject="fp32",
        inputs={"checkpoint": checkpoint.sha256, **own_network_source(configuration)},
        settings=configuration.export.model_dump(mode="json"),
        modules=("stages.export.to_onnx",),
        outputs=(path, path.with_suffix(".json")),
    )
    with observer.stage("export fp32"):
        model = ledger.perform(
            stage, lambda: export_fp32(checkpoint, configuration.export, path), lambda: OnnxModel.read(path)
        )
    ledger.add_variant(model)
    return model


def own_network_source(configuration: Configuration) -> dict[str, str]:
    """Return the digest of the user's own network code, under its name; nothing where the network is one of ours."""
    from stages.network.custom import custom_source_sha256

    name = configuration.model.network
    return {name: custom_source_sha256(name)} if name is not None and name not in NETWORKS else {}


def refuse_missing_files(configuration: Configuration) -> None:
    """Look for every file and module that the model needs, which costs nothing, before work that costs minutes.

    Raises:
        UsageError: one is missing.
    """
    train, torch = configuration.model.train, configuration.model.torch
    _given_files(
        {
            "pretrained": train.pretrained if train else None,
            "teacher": train.distillation.teacher if train and train.distillation else None,
            "torch": torch.weights if torch else None,
        }
    )
    own_network_source(configuration)
    for name, path in given_paths(configuration).items():
        if not path.is_file():
            raise UsageError(f"variants.{name}.path: expected an ONNX file, found none at {path}. Mend the path.")


def _given_files(files: dict[str, Path | None]) -> dict[str, str]:
    """Return the digests of weights that come from elsewhere, by what they are for."""
    for key, path in files.items():
        if path is not None and not path.is_file():
            raise UsageError(f"model: expected the {key} weights in {path}, found no file. Mend the path.")
    return {key: sha256_of_file(path) for key, path in files.items() if path is not None}
