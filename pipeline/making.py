"""The stages that make things, each with its identity in the cache: images, network, float export, variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pipeline.artifacts import Checkpoint, OnnxModel, RunFolder, read_json, remove_leftovers, sha256_of_file
from pipeline.cache import Ledger, Stage, versions_of
from pipeline.config import Configuration
from pipeline.environment import describe
from pipeline.errors import StageError, UsageError
from pipeline.progress import Advance, Observer
from pipeline.settings import without_paths
from stages.network import NETWORKS

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData
    from stages.train.settings import TrainSettings

NETWORK_SOURCE = (
    "stages/network",
    "calibration_data/prepared.py",
    "calibration_data/preprocessing.py",
    "pipeline/processor.py",
)


def open_ledger(configuration: Configuration, run: RunFolder) -> Ledger:
    """Return the ledger of a run whose configuration and gates are fixed from here on; the folder's lock is held.

    What an earlier, killed process left half-written goes, and so do the measurements of another configuration.
    """
    remove_leftovers(run.root)
    if run.record.exists() and read_json(run.record).get("configuration_sha256") != configuration.sha256:
        run.measurements.unlink(missing_ok=True)
    head = {
        "name": configuration.name,
        "configuration": configuration.as_json(),
        "configuration_sha256": configuration.sha256,
        "gates_sha256": configuration.gates_sha256,
        "dataset": configuration.data.source.name,
        "synthetic": False,
        "classes": [],
        "environment": describe(),
        "variants": [],
        "verdicts": [],
        "exit_code": None,
    }
    return Ledger.open(run, head)


def prepare_images(configuration: Configuration, ledger: Ledger, observer: Observer) -> PreparedData:
    """Decode, resize and split the images."""
    from calibration_data.preparation import prepare, source_fingerprint
    from calibration_data.prepared_folder import FILES, read_prepared

    folder = ledger.run.data
    stage = Stage(
        name="data",
        inputs={"source": source_fingerprint(configuration.data)},
        settings=_what_changes_the_images(configuration),
        source=("calibration_data",),
        outputs=tuple(folder / name for name in FILES),
    )
    with observer.stage("images") as advance:
        data = ledger.perform(
            stage, lambda: prepare(configuration.data, folder, advance), lambda: read_prepared(folder)
        )
    ledger.head |= {"synthetic": data.synthetic, "classes": list(data.classes)}
    ledger.write()
    if data.skipped:
        observer.say(f"{len(data.skipped)} images could not be read and were skipped; the report lists them.")
    return data


def train_network(configuration: Configuration, ledger: Ledger, data: PreparedData, observer: Observer) -> Checkpoint:
    """Train the network, or reuse its checkpoint."""
    from stages.train import processes
    from stages.train.state import Epoch
    from stages.train.trainer import train

    run = ledger.run
    stage = Stage(
        name="train",
        inputs={"data": data.sha256, **_given_files(configuration), **own_network_source(configuration)},
        settings=without_paths(configuration.train.model_dump()) | {"mean": data.mean, "std": data.std},
        source=(*NETWORK_SOURCE, "stages/train"),
        outputs=(run.checkpoint, run.history),
    )

    def tell(epoch: Epoch) -> None:
        observer.say(
            f"  epoch {epoch.epoch:>3}/{configuration.train.epochs}  loss {epoch.train_loss:.4f}  "
            f"validation {epoch.metric.replace('_', ' ')} {epoch.score:.4f}"
        )

    def compute(advance: Advance) -> Checkpoint:
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
        name="export/fp32",
        inputs={"checkpoint": checkpoint.sha256, **own_network_source(configuration)},
        settings=configuration.export.model_dump(mode="json"),
        source=(*NETWORK_SOURCE, "stages/export"),
        outputs=(path, path.with_suffix(".json")),
    )
    with observer.stage("export fp32"):
        model = ledger.perform(
            stage, lambda: export_fp32(checkpoint, configuration.export, path), lambda: OnnxModel.read(path)
        )
    _add_variant(ledger, model)
    return model


def compile_variants(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    checkpoint: Checkpoint,
    fp32: OnnxModel,
    variants: Sequence[str],
    observer: Observer,
) -> list[OnnxModel]:
    """Compile the named variants; return the float baseline and those that succeeded."""
    from pipeline.tuning import TUNING_SOURCE, tune
    from stages.export.pact_to_qdq import export_pact
    from stages.export.settings import PactExportSettings
    from stages.quantize import QUANTIZERS
    from stages.quantize.tuner import TunedSettings

    models = [fp32]
    for variant in variants:
        settings = configuration.variants[variant]
        path = ledger.run.model(variant)
        is_pact = isinstance(settings, PactExportSettings)
        parent = checkpoint.sha256 if is_pact else fp32.sha256
        is_tuned = isinstance(settings, TunedSettings)
        if is_pact:
            source: tuple[str, ...] = (*NETWORK_SOURCE, "stages/export")
        else:
            source = TUNING_SOURCE if is_tuned else ("stages/quantize", "calibration_data", "pipeline/processor.py")
        stage = Stage(
            name=f"quantize/{variant}",
            inputs={"parent": parent, "data": data.sha256, **(own_network_source(configuration) if is_pact else {})},
            settings={
                "variant": variant,
                "method": settings.model_dump(mode="json"),
                "export": configuration.export.model_dump(mode="json"),
                "processor": ledger.head["environment"]["cpu"]["target"],
                "neural_compressor": ledger.head["environment"]["neural_compressor"],
                **(versions_of(("optuna",)) if is_tuned else {}),
            },
            source=source,
            outputs=(path, path.with_suffix(".json")),
        )
        try:
            with observer.stage(f"compile {variant}") as advance:
                if is_pact:
                    images = data.validation.images
                    compute = partial(export_pact, checkpoint, variant, settings, configuration.export, images, path)
                elif is_tuned:
                    compute = partial(
                        tune, fp32, variant, cast("TunedSettings", settings), data, path, stage.key, advance
                    )
                else:
                    quantize = QUANTIZERS[settings.method].quantize
                    compute = partial(quantize, fp32, variant, settings, data, path, advance)
                model = ledger.perform(stage, compute, partial(OnnxModel.read, path))
        except (StageError, UsageError) as error:
            observer.say(f"✗ {variant}: {error}")
            continue
        _add_variant(ledger, model)
        models.append(model)
    return models


def own_network_source(configuration: Configuration) -> dict[str, str]:
    """Return the digest of the user's own network code, under its name; nothing where the network is one of ours."""
    from stages.network.custom import custom_source_sha256

    name = configuration.train.network
    return {name: custom_source_sha256(name)} if name not in NETWORKS else {}


def _add_variant(ledger: Ledger, model: OnnxModel) -> None:
    ledger.head["variants"] = [
        *ledger.head["variants"],
        {
            "variant": model.variant,
            "method": model.method,
            "path": model.path.relative_to(ledger.run.root).as_posix(),
            "sha256": model.sha256,
            "size_bytes": model.size_bytes,
            "parent_sha256": model.parent_sha256,
            "settings": dict(model.settings),
            "notes": dict(model.notes),
        },
    ]
    ledger.write()


def _what_changes_the_images(configuration: Configuration) -> Mapping[str, object]:
    # Not where the images lie (their content is in the fingerprint), and not how many processes decode them.
    settings = configuration.data
    values = without_paths(settings.model_dump(exclude={"workers"}))
    return {**values, "source": without_paths(settings.source.model_dump())}


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
