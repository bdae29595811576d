"""Every parser of foreign bytes in a table: which file is damaged, how, and what is called on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import mutations_elsewhere as elsewhere
from . import mutations_seeds as seeds
from .mutations_dicom import dicom_element
from .mutations_onnx import onnx_bomb, onnx_field
from .mutators import (
    BYTES,
    Mutator,
    inside,
    json_value,
    png_chunk,
    safetensors_header,
    table_cell,
    tar_member,
    yaml_value,
    zip_member,
)

JSON = (json_value, json_value, json_value, *BYTES)
"""Three of nine in its structure."""


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        file: the damaged file, relative to the target's folder.
        seeds: writes what the parser needs beside it and returns whole files.
        mutators: how it is damaged.
        read: calls the parser; what it raises or returns is judged.
        dear: takes milliseconds or a process; gets a tenth of the mutants.
        guarded: in the pipeline a child process calls it, so a crash, a hang or a memory limit is a sentence there.
    """

    file: str
    seeds: seeds.Seeds
    mutators: tuple[Mutator, ...]
    read: Callable[[Path], object]
    dear: bool = False
    guarded: bool = False


# --- calls ---


def _loaded(dataset: Any) -> int:
    """Decode a few records; an image that cannot be used is a sentence of its own and ends nothing."""
    from calibration_data.dataset import BadImageError

    bad = 0
    for record in (*dataset.records[:2], *dataset.records[-1:]):
        try:
            dataset.load(record)
        except BadImageError as error:
            bad += bool(str(error))
    return bad


def _cleared(folder: Path) -> None:
    shutil.rmtree(folder / "cache", ignore_errors=True)


def _medmnist(path: Path) -> object:
    from calibration_data.datasets.medmnist import MedMnistSettings, open_medmnist

    _cleared(path.parent)
    return _loaded(open_medmnist(MedMnistSettings(root=path, set="pneumoniamnist")))


def _dataset(name: str, **settings: Any) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        from calibration_data.datasets import DATASETS

        row = DATASETS[name]
        root = (
            next(parent for parent in path.parents if parent.name == "data") if "data" in path.parts else path.parent
        )
        return _loaded(row.open(row.settings(root=root, **settings)))

    return read


def _chestxray(path: Path) -> object:
    from calibration_data.datasets import chestxray14_tables as tables

    return (
        tables.read_entries(path.parent, ("Patient Gender",)),
        tables.read_lists(path.parent),
        tables.read_boxes(path.parent),
    )


def _table(path: Path) -> object:
    from calibration_data.datasets.table import TableSettings, open_table

    return _loaded(open_table(TableSettings(table=path, patient="patient", split="split", mask="mask")))


def _ham10000(path: Path) -> object:
    from calibration_data.datasets.ham10000 import _read_rows

    return _read_rows(path)


def _kvasir(path: Path) -> object:
    from calibration_data.datasets.kvasir_seg import _listed

    return _listed(path.parent)


def _archive(path: Path) -> object:
    from calibration_data.datasets.cifar10 import Cifar10Settings, open_cifar10

    _cleared(path.parent)
    return _loaded(open_cifar10(Cifar10Settings(root=path)))


def _image(path: Path) -> object:
    from calibration_data.image_files import read_pixels

    pixels = read_pixels(path)
    assert pixels.ndim == 3
    assert pixels.shape[2] in (1, 3)
    return pixels


def _mask(path: Path) -> object:
    from calibration_data.image_files import read_united_mask

    return read_united_mask([path], (20, 24))


def _folder_of_images(path: Path) -> object:
    from calibration_data.fitting import ImageForm
    from calibration_data.image_folder import read_image_folder

    return read_image_folder(path.parent, ImageForm(8, 3, "pad"), 2, 2, 0, path.parents[1])


def _dicom(path: Path) -> object:
    from calibration_data.datasets.dicom_facts import read_dicom_facts
    from calibration_data.datasets.dicom_file import is_dicom
    from calibration_data.datasets.dicom_pixels import read_dicom_pixels

    is_dicom(path)
    frames = read_dicom_facts(path).frames
    pixels = read_dicom_pixels(path, frame=None if frames == 1 else frames)
    assert pixels.shape[2] in (1, 3)
    return pixels


def _onnx_check(path: Path) -> object:
    from onnx_files.trial_run import check_in_child

    return check_in_child(str(path))


def _onnx_prepare(path: Path) -> object:
    from onnx_files.canonical import prepare_in_child

    return prepare_in_child(str(path), str(path.with_name("prepared.onnx")), "13")


def _onnx_twin(path: Path) -> object:
    from stages.saliency_twin.drawing import draw_in_child

    return draw_in_child("gradient", str(path), str(path.with_name("twin.onnx")), "", "")


def _onnx_whole(path: Path) -> object:
    """Take a float file in as a run does: the child, and what the parent does with what the child left."""
    from stages.given.float_file import read_given_file, write_float_file
    from stages.given.settings import OnnxSettings

    takes_pixels = b"zero" in path.read_bytes()  # the seed with an input of uint8
    settings = OnnxSettings(path=path) if takes_pixels else OnnxSettings(path=path, mean=(0.5,), std=(0.5,))
    return write_float_file(read_given_file(settings, (8, 8), lambda key: key), path.with_name("taken.onnx"))


def _twin_whole(path: Path) -> object:
    from stages.saliency_twin.twin_file import make_twin

    return make_twin(path, path.with_name("twin.onnx"), None, None)


def _weights(path: Path) -> object:
    from stages.network.checkpoint import NetworkSpec
    from stages.network.pretrained import load_pretrained

    spec = NetworkSpec("resnet8", ("ill", "well"), 1, 16, (0.5,), (0.2,), None)
    if not _NETWORK:
        _NETWORK.append(spec.build(seed=0))
    return load_pretrained(_NETWORK[0], path).text()


_NETWORK: list[Any] = []


def _checkpoint(path: Path) -> object:
    from foundation.artifacts import Checkpoint
    from stages.network.checkpoint import load_checkpoint

    return load_checkpoint(Checkpoint(path, ""))


def _state(path: Path) -> object:
    import torch

    from stages.train.state import resume

    state = seeds.training_state(path.parent)
    resume(state, path, "key")
    if state.epochs:  # what was taken up must go on
        state.network(torch.zeros(2, 1, 3, 3)).sum().backward()
        state.optimizer.step()
        state.network.load_state_dict(state.best)
        max(state.epochs, key=lambda epoch: (epoch.score, -epoch.validation_loss))
        [epoch.as_json() for epoch in state.epochs]
    return state


def _record(path: Path) -> object:
    from foundation.record import read_record
    from foundation.run_folder import RunFolder

    return read_record(RunFolder(path.parent))


def _report(path: Path) -> object:
    """Read a run as the report does, and write the report's texts of what was accepted."""
    from foundation.run_folder import RunFolder
    from reports.facts import read_facts
    from reports.report_json import render

    return render(read_facts(RunFolder(path.parent)))


def _measurements(path: Path) -> object:
    from foundation.measurements import read_measurements

    return read_measurements(path)


def _image_by_image(path: Path) -> object:
    from foundation.image_by_image import read_image_by_image

    return read_image_by_image(path)


def _manifest(path: Path) -> object:
    from calibration_data.prepared_folder import read_prepared

    return read_prepared(path.parent)


def _accepted(path: Path) -> object:
    from pipeline.night.accepted import read_accepted

    found = read_accepted(path.parent)
    return found and found.is_intact


def _notes(path: Path) -> object:
    from foundation.artifacts import OnnxModel

    return OnnxModel.read(path.with_suffix(".onnx"))


def _ranges(path: Path) -> object:
    from stages.quantize.calibration.ranges import _read

    found = _read(path, "a key")
    assert found is None or all(low <= high for low, high in found.values())
    return found


def _operating_points(path: Path) -> object:
    from stages.validate.operating_points import read_operating_points

    return [point.probability for point in read_operating_points(path).points.values()]


def _journal(path: Path) -> object:
    from stages.search.study import TunedSettings, _finished, known_layers, open_study, search

    study = open_study(path, "identity")
    known = _finished(study)
    settings = TunedSettings(trials=min(20, len({trial.candidate for trial in known}) + 1))
    return known_layers(study), search(seeds.measured, 4, settings, study, lambda done, total: None, 1e12)


def _nights(path: Path) -> object:
    from pipeline.night.nights import read_history

    return read_history(path.parent)


def _predictions(path: Path) -> object:
    from stages.validate.answers import Predictions

    return Predictions.read("v", path)


def _explanations(path: Path) -> object:
    from foundation.explanations import Explanations

    return Explanations.read("v", path)


def _map_values(path: Path) -> object:
    from stages.validate.map_values import read_map_values

    return read_map_values(path)


def _configuration(path: Path) -> object:
    from pipeline.configuration_file import read_configuration

    return read_configuration(path)


def _class_list(path: Path) -> object:
    from stages.given.float_file import class_names
    from stages.given.settings import OnnxSettings

    return class_names(OnnxSettings(path=path, classes=path))


ZIPPED = (zip_member(*BYTES), zip_member(*BYTES), *BYTES)
CSV = (table_cell, table_cell, *BYTES)
ONNX = (onnx_field, onnx_field, onnx_field, onnx_bomb, *BYTES)
DICOM = (dicom_element, dicom_element, dicom_element, *BYTES)

TARGETS: dict[str, Target] = {
    # --- images and their tables ---
    "image": Target("x.png", seeds.images("image"), (png_chunk, png_chunk, *BYTES), _image),
    "mask": Target("x_mask.png", seeds.images("mask"), (png_chunk, *BYTES), _mask),
    "image-folder": Target("images/x.png", seeds.images("image"), (png_chunk, *BYTES), _folder_of_images),
    "dicom": Target("x.dcm", seeds.dicoms, DICOM, _dicom, dear=True),
    "medmnist": Target("pneumoniamnist.npz", seeds.medmnist, ZIPPED, _medmnist, dear=True),
    "mnist-images": Target(
        "data/train-images-idx3-ubyte", seeds.tiny("mnist", "train-images-idx3-ubyte"), BYTES, _dataset("mnist")
    ),
    "mnist-labels": Target(
        "data/t10k-labels-idx1-ubyte", seeds.tiny("mnist", "t10k-labels-idx1-ubyte"), BYTES, _dataset("mnist")
    ),
    "mnist-gzip": Target(
        "data/train-images-idx3-ubyte.gz",
        seeds.tiny("mnist", "train-images-idx3-ubyte.gz", True),
        (inside(*BYTES), *BYTES),
        _dataset("mnist"),
    ),
    "cifar-binary": Target(
        "data/data_batch_2.bin", seeds.tiny("cifar10", "data_batch_2.bin"), BYTES, _dataset("cifar10")
    ),
    "cifar-zip": Target("cifar.zip", seeds.archives("zip"), ZIPPED, _archive),
    "cifar-tar": Target("cifar.tar", seeds.archives("tar"), (tar_member, tar_member, *BYTES), _archive),
    "cifar-tar-gz": Target("cifar.tar.gz", seeds.archives("tar.gz"), (inside(tar_member, *BYTES), *BYTES), _archive),
    "table": Target("table.csv", seeds.table, CSV, _table),
    "ham10000-table": Target(
        "data/HAM10000_metadata.csv", seeds.tiny("ham10000", "HAM10000_metadata.csv"), CSV, _ham10000
    ),
    "chestxray-table": Target(
        "data/Data_Entry_2017.csv", seeds.tiny("chestxray14", "Data_Entry_2017.csv"), CSV, _chestxray
    ),
    "chestxray-boxes": Target(
        "data/BBox_List_2017.csv", seeds.tiny("chestxray14", "BBox_List_2017.csv"), CSV, _chestxray
    ),
    "chestxray-list": Target("data/test_list.txt", seeds.tiny("chestxray14", "test_list.txt"), CSV, _chestxray),
    "kvasir-boxes": Target("data/kavsir_bboxes.json", seeds.tiny("kvasir_seg", "kavsir_bboxes.json"), JSON, _kvasir),
    "kvasir-list": Target("data/val.txt", seeds.tiny("kvasir_seg", "val.txt"), CSV, _kvasir),
    "class-list": Target("labels.txt", seeds.class_list, CSV, _class_list),
    # --- networks ---
    "onnx-check": Target("model.onnx", seeds.onnx_models, ONNX, _onnx_check, dear=True, guarded=True),
    "onnx-prepare": Target("model.onnx", seeds.onnx_models, ONNX, _onnx_prepare, dear=True, guarded=True),
    "onnx-twin": Target("model.onnx", seeds.onnx_models, ONNX, _onnx_twin, dear=True, guarded=True),
    "weights-safetensors": Target(
        "w.safetensors", seeds.safetensors, (safetensors_header, safetensors_header, *BYTES), _weights
    ),
    "weights-torch": Target("w.pt", seeds.torch_files, ZIPPED, _weights),
    "checkpoint": Target(
        "c.safetensors", seeds.checkpoints, (safetensors_header, safetensors_header, *BYTES), _checkpoint, dear=True
    ),
    "training-state": Target("state.pt", seeds.training_states, ZIPPED, _state),
    # --- files of runs ---
    "configuration": Target(
        "c.yaml", seeds.configurations, (yaml_value, yaml_value, *BYTES), _configuration, dear=True
    ),
    "record": Target("run.json", seeds.of_run("run.json"), JSON, _record),
    "report": Target("run.json", seeds.of_run("run.json"), JSON, _report, dear=True),
    "measurements": Target(
        "validate/measurements.json", seeds.of_run("validate", "measurements.json"), JSON, _measurements
    ),
    "image-by-image": Target(
        "validate/image_by_image.json", seeds.of_run("validate", "image_by_image.json"), JSON, _image_by_image
    ),
    "manifest": Target("data/manifest.json", seeds.of_run("data", "manifest.json"), JSON, _manifest),
    "accepted": Target("accepted.json", seeds.accepted, JSON, _accepted),
    "notes": Target("v.json", seeds.notes, JSON, _notes),
    "ranges": Target("r.json", seeds.ranges, JSON, _ranges),
    "operating-points": Target("points.json", seeds.operating_points, JSON, _operating_points),
    "journal": Target("v.search.jsonl", seeds.journal, JSON, _journal, dear=True),
    "nights": Target("history.jsonl", seeds.nights, JSON, _nights),
    "predictions": Target("p.npz", seeds.predictions, ZIPPED, _predictions),
    "explanations": Target("e.npz", seeds.explanations, ZIPPED, _explanations),
    "map-values": Target("m.npz", seeds.map_values, ZIPPED, _map_values),
    "answers": Target(
        "validate/answers.json",
        seeds.of_run("validate", "answers.json"),
        JSON,
        elsewhere.read_answers_file,
        dear=True,
    ),
    "placement": Target("validate/placement.json", elsewhere.placement, JSON, elsewhere.read_placement, dear=True),
    # --- from devices and places ---
    "place": Target("validate/places/arm64.json", elsewhere.place, JSON, elsewhere.read_place_file, dear=True),
    "place-answer": Target("answer.json", elsewhere.place_answer, JSON, elsewhere.read_place_answer),
    "device": Target("device.json", elsewhere.device, JSON, elsewhere.read_device),
}
WHOLE: dict[str, Target] = {
    "onnx-whole": Target("model.onnx", seeds.onnx_models, ONNX, _onnx_whole, dear=True),
    "twin-whole": Target("model.onnx", seeds.onnx_models, ONNX, _twin_whole, dear=True),
}
"""Through the real child, a process for each mutant: some hundred of these beside the thousands in one process."""
