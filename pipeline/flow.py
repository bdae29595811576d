"""The whole run on one page: images → network → ONNX → variants → measurements → verdicts → report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.artifacts import (
    JSON,
    Checkpoint,
    Measurement,
    OnnxModel,
    RunFolder,
    Verdict,
    read_json,
    sha256_of_file,
    write_json,
)
from pipeline.cache import Ledger, Stage
from pipeline.config import Configuration
from pipeline.environment import describe
from pipeline.errors import ExitCode, StageError, UsageError
from pipeline.gates import exit_code_of, judge
from pipeline.lock import lock_folder
from pipeline.progress import Advance, Observer
from stages.validate import METRICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration_data.prepared import PreparedData
    from pipeline.nightly import NightlyResult
    from stages.validate.saliency import SaliencySettings

NETWORK_SOURCE = ("stages/network", "calibration_data/prepared.py")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: RunFolder
    exit_code: ExitCode
    verdicts: tuple[Verdict, ...]
    report: Path

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        counts = {
            status: sum(v.status == status for v in self.verdicts) for status in ("passed", "failed", "missing")
        }
        gates = f"{counts['passed']} of {len(self.verdicts)} gates passed"
        return {
            ExitCode.PASSED: f"All gates passed ({len(self.verdicts)}).",
            ExitCode.GATE_FAILED: f"{gates}, {counts['failed']} failed.",
            ExitCode.INCOMPLETE: f"The evidence is incomplete: {gates}, {counts['failed']} failed, "
            f"{counts['missing']} missing.",
        }[self.exit_code]

    def as_json(self) -> dict[str, JSON]:
        """Return the outcome as `--json` prints it."""
        return {
            "exit_code": int(self.exit_code),
            "run": str(self.run.root),
            "report": str(self.report),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def compile_and_validate(configuration: Configuration, run: RunFolder, observer: Observer) -> Outcome:
    """Do everything that a configuration asks for, reuse what the run folder already holds, and write the report.

    A variant that fails costs its own measurements and makes the evidence incomplete; the others go on.

    Raises:
        UsageError: another process holds the run folder, or the images cannot be used.
        StageError: the network could not be trained or exported, so that there is nothing to measure.
    """
    with lock_folder(run.root):
        ledger = open_ledger(configuration, run)
        data = prepare_images(configuration, ledger, observer)
        checkpoint = train_network(configuration, ledger, data, observer)
        fp32 = export_float(configuration, ledger, checkpoint, observer)
        models = compile_variants(
            configuration, ledger, data, checkpoint, fp32, tuple(configuration.variants), observer
        )
        measurements = validate_models(configuration, ledger, data, checkpoint, models, observer)
        return conclude(configuration, ledger, measurements, observer)


def run_until(
    last: str, configuration: Configuration, run: RunFolder, variant: str | None, observer: Observer
) -> ExitCode:
    """Do the stages up to `last` ("train", "export", "quantize" or "validate"); reuse what is already there.

    Args:
        last: the last stage.
        configuration: of the run.
        run: its folder.
        variant: compile only this one; None compiles all.
        observer: who watches.

    Returns:
        0, or 3 where a variant could not be compiled or measured.
    """
    with lock_folder(run.root):
        ledger = open_ledger(configuration, run)
        data = prepare_images(configuration, ledger, observer)
        checkpoint = train_network(configuration, ledger, data, observer)
        if last != "train":
            fp32 = export_float(configuration, ledger, checkpoint, observer)
            if last != "export":
                variants = tuple(configuration.variants) if variant is None else (variant,)
                models = compile_variants(configuration, ledger, data, checkpoint, fp32, variants, observer)
                if last == "validate":
                    validate_models(configuration, ledger, data, checkpoint, models, observer)
        return ExitCode.PASSED if ledger.all_succeeded else ExitCode.INCOMPLETE


def run_one_night(configuration: Configuration, root: Path, observer: Observer) -> NightlyResult:
    """Do the whole run in a folder of tonight and compare it with the last accepted run."""
    from pipeline.nightly import run_nightly

    return run_nightly(
        configuration.name,
        root,
        configuration.sha256,
        lambda run: compile_and_validate(configuration, run, observer).exit_code,
        configuration.comparison,
        keep=configuration.nightly.keep,
    )


# --- the stages; each takes the ledger, so that each can also be run alone ---


def open_ledger(configuration: Configuration, run: RunFolder) -> Ledger:
    """Return the ledger of a run whose configuration and gates are fixed from here on."""
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
    from calibration_data.preparation import prepare, read_prepared, source_fingerprint

    folder = ledger.run.data
    stage = Stage(
        name="data",
        inputs={"source": source_fingerprint(configuration.data)},
        settings=_without_root(configuration),
        source=("calibration_data",),
        outputs=tuple(folder / name for name in ("train.npz", "validation.npz", "test.npz", "manifest.json")),
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
    from stages.train.trainer import Epoch, train

    run = ledger.run
    stage = Stage(
        name="train",
        inputs={"data": data.sha256},
        settings=configuration.train.model_dump(mode="json") | {"mean": data.mean, "std": data.std},
        source=(*NETWORK_SOURCE, "stages/train"),
        outputs=(run.checkpoint, run.history),
    )

    def tell(epoch: Epoch) -> None:
        observer.say(
            f"  epoch {epoch.epoch:>3}/{configuration.train.epochs}  loss {epoch.train_loss:.4f}  "
            f"validation balanced accuracy {epoch.validation_balanced_accuracy:.4f}"
        )

    with observer.stage("train") as advance:
        return ledger.perform(
            stage,
            lambda: train(data, configuration.train, run, stage.key, advance, tell),
            lambda: Checkpoint.at(run.checkpoint),
        )


def export_float(
    configuration: Configuration, ledger: Ledger, checkpoint: Checkpoint, observer: Observer
) -> OnnxModel:
    """Export the float baseline."""
    from stages.export.to_onnx import export_fp32

    path = ledger.run.fp32
    stage = Stage(
        name="export/fp32",
        inputs={"checkpoint": checkpoint.sha256},
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
    from stages.export.pact_to_qdq import export_pact
    from stages.export.settings import PactExportSettings
    from stages.quantize import QUANTIZERS

    models = [fp32]
    for variant in variants:
        settings = configuration.variants[variant]
        path = ledger.run.model(variant)
        is_pact = isinstance(settings, PactExportSettings)
        parent = checkpoint.sha256 if is_pact else fp32.sha256
        source = (*NETWORK_SOURCE, "stages/export") if is_pact else ("stages/quantize", "calibration_data")
        stage = Stage(
            name=f"quantize/{variant}",
            inputs={"parent": parent, "data": data.sha256},
            settings={
                "variant": variant,
                "method": settings.model_dump(mode="json"),
                "export": configuration.export.model_dump(mode="json"),
                "processor": ledger.head["environment"]["cpu"]["target"],
                "neural_compressor": ledger.head["environment"]["neural_compressor"],
            },
            source=source,
            outputs=(path, path.with_suffix(".json")),
        )
        try:
            with observer.stage(f"compile {variant}") as advance:
                compute = (
                    partial(
                        export_pact, checkpoint, variant, settings, configuration.export, data.validation.images, path
                    )
                    if is_pact
                    else partial(QUANTIZERS[settings.method].quantize, fp32, variant, settings, data, path, advance)
                )
                model = ledger.perform(stage, compute, partial(OnnxModel.read, path))
        except (StageError, UsageError) as error:
            observer.say(f"✗ {variant}: {error}")
            continue
        _add_variant(ledger, model)
        models.append(model)
    return models


def validate_models(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    checkpoint: Checkpoint,
    models: list[OnnxModel],
    observer: Observer,
) -> list[Measurement]:
    """Measure accuracy and saliency of every file, gradient saliency of the network, and latency; write them all."""
    from stages.validate.latency import measure_latency

    measurements = []
    for model in models:
        try:
            with observer.stage(f"validate {model.variant}") as advance:
                measurements += _validate_one(configuration, ledger, data, models[0], model, advance)
        except (StageError, UsageError) as error:
            observer.say(f"✗ {model.variant}: {error}")
            if model is models[0]:
                raise
    with observer.stage("validate gradient saliency"):
        measurements += _validate_gradients(configuration, ledger, data, checkpoint)
    with observer.stage("latency") as advance:
        image = data.test.images[0]
        measurements += measure_latency(models, image, configuration.validation.latency, advance)
    measurements += _absent(configuration, ledger, measurements)
    write_json(ledger.run.measurements, [measurement.as_json() for measurement in measurements])
    return measurements


def conclude(
    configuration: Configuration, ledger: Ledger, measurements: list[Measurement], observer: Observer
) -> Outcome:
    """Hold the measurements against the gates, close the record and write the report."""
    from reports import write_report

    verdicts = judge(configuration.gates, measurements)
    exit_code = exit_code_of(verdicts, ledger.all_succeeded)
    ledger.head |= {"verdicts": [asdict(verdict) for verdict in verdicts], "exit_code": int(exit_code)}
    ledger.write()
    with observer.stage("report"):
        report = write_report(ledger.run)
    return Outcome(ledger.run, exit_code, verdicts, report)


# --- parts of validation, each reusable on its own ---


def _validate_one(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    fp32: OnnxModel,
    model: OnnxModel,
    advance: Advance,
) -> list[Measurement]:
    from stages.validate.accuracy import Predictions, measure_accuracy, measure_size, predict_variant
    from stages.validate.saliency import Explanations, explain_variant, measure_saliency

    run, settings = ledger.run, configuration.validation
    is_baseline = model.variant == fp32.variant
    path = run.root / "validate" / "measured" / f"{model.variant}.json"
    predictions_path, saliency_path = run.predictions(model.variant), run.saliency(model.variant)

    def compute() -> list[Measurement]:
        predictions = predict_variant(model, data.test, settings.accuracy, predictions_path)
        reference = predictions if is_baseline else Predictions.read("fp32", run.predictions("fp32"))
        targets = reference.logits.argmax(axis=1)
        maps = explain_variant(model, data.test, targets, settings.saliency, saliency_path, advance)
        masks, has_mask = data.test.masks[maps.image_index], data.test.has_mask[maps.image_index]
        reference_maps = None if is_baseline else Explanations.read("fp32", run.saliency("fp32")).maps
        found = [
            measure_size(model),
            *measure_accuracy(
                model.variant,
                predictions.logits,
                predictions.labels,
                data.classes,
                None if is_baseline else reference.logits,
                data.test.subgroups,
                settings.accuracy,
            ),
            *measure_saliency(
                model.variant, maps.maps, reference_maps, masks, has_mask, "occlusion", settings.saliency
            ),
        ]
        if is_baseline:
            shape = maps.maps.shape
            found += _random_baseline(shape, maps.maps, masks, has_mask, "occlusion", settings.saliency)
        write_json(path, [measurement.as_json() for measurement in found])
        return found

    stage = Stage(
        name=f"validate/{model.variant}",
        inputs={"model": model.sha256, "fp32": fp32.sha256, "data": data.sha256},
        settings=settings.model_dump(mode="json", include={"accuracy", "saliency"}),
        source=("stages/validate",),
        outputs=(path, predictions_path, saliency_path),
    )
    return ledger.perform(stage, compute, partial(_read_measured, path))


def _validate_gradients(
    configuration: Configuration, ledger: Ledger, data: PreparedData, checkpoint: Checkpoint
) -> list[Measurement]:
    from stages.export.settings import PactExportSettings
    from stages.train.gradient_maps import gradient_maps
    from stages.validate.saliency import Explanations, measure_saliency

    run, settings = ledger.run, configuration.validation.saliency
    path = run.root / "validate" / "measured" / "gradients.json"
    explained = Explanations.read("fp32", run.saliency("fp32"))
    images, targets = data.test.images[explained.image_index], explained.target
    masks, has_mask = data.test.masks[explained.image_index], data.test.has_mask[explained.image_index]
    pact = [name for name, method in configuration.variants.items() if isinstance(method, PactExportSettings)]

    def compute() -> list[Measurement]:
        plain = gradient_maps(checkpoint, images, targets, rounding=False)
        found = measure_saliency("fp32", plain, None, masks, has_mask, "gradient", settings)
        found += _random_baseline(plain.shape, plain, masks, has_mask, "gradient", settings)
        if pact and configuration.train.pact:
            rounded = gradient_maps(checkpoint, images, targets, rounding=True)
            for name in pact:
                found += measure_saliency(name, rounded, plain, masks, has_mask, "gradient", settings)
        write_json(path, [measurement.as_json() for measurement in found])
        return found

    stage = Stage(
        name="validate/gradients",
        inputs={
            "checkpoint": checkpoint.sha256,
            "data": data.sha256,
            "explained": sha256_of_file(run.saliency("fp32")),
        },
        settings={"saliency": settings.model_dump(mode="json"), "pact": pact},
        source=(*NETWORK_SOURCE, "stages/train/gradient_maps.py", "stages/validate"),
        outputs=(path,),
    )
    return ledger.perform(stage, compute, partial(_read_measured, path))


def _random_baseline(
    shape: tuple[int, int, int],
    reference: NDArray[np.float32],
    masks: NDArray[np.bool_],
    has_mask: NDArray[np.bool_],
    method: Literal["occlusion", "gradient"],
    settings: SaliencySettings,
) -> list[Measurement]:
    """Return what a map that knows nothing scores, at the resolution of the method."""
    from stages.validate.saliency import RANDOM_MAP, measure_saliency, random_maps

    size = shape[1]
    patch, stride = (settings.patch(size), settings.stride(size)) if method == "occlusion" else (1, 1)
    maps = random_maps(settings.seed, shape, patch, stride)
    return measure_saliency(RANDOM_MAP, maps, reference, masks, has_mask, method, settings)


def _absent(configuration: Configuration, ledger: Ledger, measurements: list[Measurement]) -> list[Measurement]:
    """Return an empty measurement, with the reason, for every number that a variant which failed does not have."""
    measured = {measurement.variant for measurement in measurements if measurement.value is not None}
    reasons = {record.name.partition("/")[2]: record.error for record in ledger.records if record.error}
    return [
        Measurement(metric, None, METRICS[metric].unit, variant, settings={"reason": reasons.get(variant, "unknown")})
        for variant in configuration.variants
        if variant not in measured
        for metric in METRICS
        if "/" not in metric
    ]


def _read_measured(path: Path) -> list[Measurement]:
    return [Measurement.from_json(record) for record in read_json(path)]


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


def _without_root(configuration: Configuration) -> Mapping[str, object]:
    # Where the images lie does not change them; their content is in the fingerprint.
    settings = configuration.as_json()["data"]
    source = {key: value for key, value in settings["source"].items() if key != "root"}
    return {**settings, "source": source}
