"""The model of a run: trained here, and exported in float."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from foundation.artifacts import Checkpoint, OnnxModel
from foundation.errors import StageError, UsageError
from foundation.files import sha256_of_file
from foundation.progress import Observer, Progress
from foundation.run_folder import RunFolder
from foundation.settings import without_paths
from pipeline.configuration import Configuration
from pipeline.run.ledger import Ledger, Stage
from stages.network import NETWORKS

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData
    from stages.train.settings import TrainSettings


def train_network(configuration: Configuration, ledger: Ledger, data: PreparedData, observer: Observer) -> Checkpoint:
    """Train the network, or reuse its checkpoint."""
    from stages.train import processes
    from stages.train.state import Epoch
    from stages.train.trainer import train

    run = ledger.run
    stage = Stage(
        kind="train",
        inputs={"data": data.sha256, **_given_files(configuration), **own_network_source(configuration)},
        settings=without_paths(configuration.train.model_dump()) | {"mean": data.mean, "std": data.std},
        modules=("stages.train.trainer",),
        outputs=(run.checkpoint, run.history),
    )

    def tell(epoch: Epoch) -> None:
        observer.say(
            f"  epoch {epoch.epoch:>3}/{configuration.train.epochs}  loss {epoch.train_loss:.4f}  "
            f"validation {epoch.metric.replace('_', ' ')} {epoch.score:.4f}"
        )

    def compute(advance: Progress) -> Checkpoint:
        processes.tell((run.root, configuration.train, stage.key))
        return train(data, configuration.train, run, stage.key, advance, tell, observer.say)

    with observer.stage("train") as advance:
        checkpoint = ledger.perform(
            stage, partial(compute, advance), lambda: Checkpoint.at(run.checkpoint, configuration.train.network)
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
    """Export the float baseline."""
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

    name = configuration.train.network
    return {name: custom_source_sha256(name)} if name not in NETWORKS else {}


def _given_files(configuration: Configuration) -> dict[str, str]:
    """Return the digests of the weights that training starts from or learns from."""
    settings = configuration.train
    files = {
        "pretrained": settings.pretrained,
        "teacher": settings.distillation.teacher if settings.distillation else None,
    }
    for key, path in files.items():
        if path is not None and not path.is_file():
            raise UsageError(f"train: expected the {key} weights in {path}, found no file. Mend the path.")
    return {key: sha256_of_file(path) for key, path in files.items() if path is not None}
