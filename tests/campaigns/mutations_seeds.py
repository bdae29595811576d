"""The whole files that the campaign damages: small, generated, of every kind that the parsers take.

Each function writes what a parser needs into a folder and returns the seeds of the one file that is damaged.
"""

from __future__ import annotations

import atexit
import gzip
import io
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Seeds = Callable[[Path], list[bytes]]


def pixels(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def tiny(source: str, file: str, packed: bool = False) -> Seeds:
    """Return the seeds of one file of a tiny data set of `tiny_sources`."""

    def seeds(folder: Path) -> list[bytes]:
        from tiny_sources import TINY

        (folder / "data").mkdir()
        TINY[source](folder / "data")
        content = (folder / "data" / file.removesuffix(".gz")).read_bytes()
        if packed:
            (folder / "data" / file.removesuffix(".gz")).unlink()
            content = gzip.compress(content, 1, mtime=0)
        return [content]

    return seeds


def medmnist(folder: Path) -> list[bytes]:
    found = []
    for save in (np.savez_compressed, np.savez):
        arrays = {}
        for seed, prefix in enumerate(("train", "val", "test")):
            arrays |= {f"{prefix}_images": pixels(seed, 4, 28, 28), f"{prefix}_labels": pixels(seed, 4, 1) % 2}
        stream = io.BytesIO()
        save(stream, **arrays)
        found.append(stream.getvalue())
    return found


def images(mode: str) -> Seeds:
    """Return image files of every format, or masks."""

    def seeds(folder: Path) -> list[bytes]:
        from PIL import Image

        found = []
        gray, colour = Image.fromarray(pixels(1, 20, 24)), Image.fromarray(pixels(2, 20, 24, 3))
        deep = Image.fromarray((np.arange(480).reshape(20, 24) * 9).astype(np.uint16))
        clear = Image.fromarray(pixels(3, 20, 24, 4), "RGBA") if mode != "mask" else gray
        palette = colour.quantize(16)
        for image, kinds in (
            (gray, ("PNG", "JPEG", "BMP", "TIFF", "WEBP")),
            (colour, ("PNG", "JPEG", "BMP", "TIFF", "WEBP")),
            (deep, ("PNG", "TIFF")),
            (clear, ("PNG", "WEBP")),
            (palette, ("PNG", "BMP", "TIFF")),
        ):
            for kind in kinds:
                exif = Image.Exif()
                exif[0x0112] = 6
                options: dict[str, Any] = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") and mode != "mask" else {}
                if kind == "TIFF":
                    options["compression"] = "tiff_lzw" if image is colour else "tiff_adobe_deflate"
                stream = io.BytesIO()
                image.save(stream, kind, **options)
                found.append(stream.getvalue())
        stream = io.BytesIO()
        colour.save(stream, "JPEG", progressive=True)
        return [*found, stream.getvalue()]

    return seeds


def archives(kind: str) -> Seeds:
    """Return archives of tiny images in CIFAR-10's class folders."""

    def seeds(folder: Path) -> list[bytes]:
        from PIL import Image

        from calibration_data.datasets.cifar10 import CLASSES

        stream = io.BytesIO()
        Image.fromarray(pixels(0, 4, 4, 3)).save(stream, "PNG")
        names = [f"cifar/{side}/{name}/0.png" for side in ("train", "test") for name in CLASSES[:3]]
        out = io.BytesIO()
        if kind == "zip":
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in (*names, "cifar/readme.txt"):
                    archive.writestr(zipfile.ZipInfo(name), stream.getvalue())
            return [out.getvalue()]
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name in (*names, "cifar/readme.txt"):
                info = tarfile.TarInfo(name)
                info.size = len(stream.getvalue())
                archive.addfile(info, io.BytesIO(stream.getvalue()))
        return [gzip.compress(out.getvalue(), 1, mtime=0)] if kind == "tar.gz" else [out.getvalue()]

    return seeds


def dicoms(folder: Path) -> list[bytes]:
    import warnings

    from dicom_files import LOSSLESS, dicom, write_compressed, write_dicom, write_frames
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

    gray = (np.arange(32 * 40).reshape(32, 40) * 130 % 4096).astype(np.uint16)
    colour = pixels(1, 16, 20, 3)
    tags = {
        "PatientID": "MRN 007",
        "WindowCenter": 1000,
        "WindowWidth": 2000,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    whole = folder / "whole"
    paths = [write_compressed(whole / f"{syntax.keyword}.dcm", gray, syntax, **tags) for syntax in LOSSLESS]
    paths.append(write_compressed(whole / "jpeg.dcm", colour, JPEGBaseline8Bit))
    paths.append(write_dicom(whole / "colour.dcm", colour, **tags))
    paths.append(write_dicom(whole / "plain.dcm", gray.astype(np.int16), PhotometricInterpretation="MONOCHROME1"))
    paths.append(write_frames(whole / "frames.dcm", [gray, gray], **tags))
    table = np.arange(256, dtype=np.uint16).tobytes()
    colours = {
        f"{name}PaletteColorLookupTable{part}": value
        for name in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", table))
    }
    paths.append(
        write_dicom(whole / "palette.dcm", colour[:, :, 0], PhotometricInterpretation="PALETTE COLOR", **colours)
    )
    deflated = dicom(gray, **tags)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    deflated.save_as(whole / "deflated.dcm", enforce_file_format=True)
    implicit = dicom(gray, **tags)
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    with warnings.catch_warnings(action="ignore"):
        implicit.save_as(whole / "implicit.dcm", enforce_file_format=True)
    paths += [whole / "deflated.dcm", whole / "implicit.dcm"]
    return [*(path.read_bytes() for path in paths), (whole / "colour.dcm").read_bytes()[132:]]


# --- networks ---


def onnx_models(folder: Path) -> list[bytes]:
    from onnx import helper, numpy_helper
    from onnx.parser import parse_model

    plain = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 3, 8, 8] image) => (float[n, 4] answers)
        <float[4, 3, 3, 3] w, float[4] b, float[4, 4] m> {
            c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (image, w, b)
            r = Relu (c)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
            a = GlobalAveragePool (p)
            f = Flatten (a)
            answers = Gemm (f, m)
        }"""
    shaped = """<ir_version: 8, opset_import: ["" : 13]>
        g (uint8[1, 1, 8, 8] image) => (float[1, 2] answers)
        <float[64, 2] m, int64[1] start = {0}, int64[1] end = {1}, int64[1] rest = {-1}, float scale = {0.0625},
         uint8 zero = {3}> {
            x = Cast <to = 1> (image)
            s = Shape (x)
            n = Slice (s, start, end)
            target = Concat <axis = 0> (n, rest)
            f = Reshape (x, target)
            q = QuantizeLinear (f, scale, zero)
            d = DequantizeLinear (q, scale, zero)
            l = MatMul (d, m)
            answers = Softmax <axis = 1> (l)
        }"""
    old = plain.replace('"" : 17', '"" : 11').replace("ir_version: 8", "ir_version: 6")
    found = []
    for text in (plain, shaped, old):
        model = parse_model(text)
        for value in list(model.graph.value_info):
            shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
            weight = np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(weight, value.name))
        del model.graph.value_info[:]
        helper.set_model_props(model, {"edgeproof.tools": "{}"})
        found.append(model.SerializeToString())
    return found


def _spec() -> Any:
    from stages.network.checkpoint import NetworkSpec

    return NetworkSpec("resnet8", ("ill", "well"), 1, 16, (0.5,), (0.2,), None)


def checkpoints(folder: Path) -> list[bytes]:
    from dataclasses import replace

    from stages.network.checkpoint import save_checkpoint
    from stages.network.settings import PactSettings

    plain = _spec()
    found = []
    for spec in (plain, replace(plain, pact=PactSettings())):
        save_checkpoint(folder / "seed.safetensors", spec, spec.build(seed=0))
        found.append((folder / "seed.safetensors").read_bytes())
    (folder / "seed.safetensors").unlink()
    return found


def safetensors(folder: Path) -> list[bytes]:
    from safetensors.torch import save

    network = _spec().build(seed=0)
    return [save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})]


def torch_files(folder: Path) -> list[bytes]:
    import torch

    network = _spec().build(seed=0)
    found = []
    for content, zipped in (
        (network.state_dict(), True),
        ({"state_dict": dict(list(network.state_dict().items())[:6]), "epoch": 3}, True),
        (dict(list(network.state_dict().items())[:6]), False),
    ):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
        found.append(stream.getvalue())
    return found


def training_state(folder: Path) -> Any:
    """Return a training that has not begun; the states on disk are of it."""
    import torch

    from stages.train.state import State

    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(2, 2)
    )
    return State(network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9))


def training_states(folder: Path) -> list[bytes]:
    import torch

    from stages.train.state import Epoch, copy_of, save_state

    found = []
    for mean in (False, True):
        state = training_state(folder)
        for parameter in state.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        state.optimizer.step()
        state.epochs = [Epoch(1, 0.5, 0.6, "balanced_accuracy", 0.7), Epoch(2, 0.4, 0.5, "balanced_accuracy", 0.8)]
        state.best = copy_of(state.network)
        state.mean, state.updates = (copy_of(state.network), 7) if mean else ({}, 0)
        save_state(state, folder / "seed.pt", "key")
        found.append((folder / "seed.pt").read_bytes())
    (folder / "seed.pt").unlink()
    return found


# --- files of runs ---


@cache
def _sample_run() -> Path:
    """Return a folder with the sample run, which takes seconds to make; it goes when the process ends."""
    from sample_run import write_sample_run

    folder = Path(tempfile.mkdtemp(prefix="campaign-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_sample_run(folder)
    return folder


def of_run(*path: str) -> Seeds:
    """Return one file of the sample run."""

    def seeds(folder: Path) -> list[bytes]:
        shutil.copytree(_sample_run(), folder, dirs_exist_ok=True)
        return [folder.joinpath(*path).read_bytes()]

    return seeds


def accepted(folder: Path) -> list[bytes]:
    from foundation.run_files import add_to_record, files_below
    from foundation.run_folder import RunFolder
    from pipeline.night.accepted import accept

    run = RunFolder(folder / "night")
    shutil.copytree(_sample_run(), run.root)
    add_to_record(run, [run.root / path for path in files_below(run.root)])
    accept(run, folder, reason="a reason")
    return [(folder / "accepted.json").read_bytes()]


def notes(folder: Path) -> list[bytes]:
    from foundation.artifacts import OnnxModel
    from foundation.files import sha256_of_file
    from foundation.notes import DynamicNotes, Fp16Notes, StaticNotes

    (folder / "v.onnx").write_bytes(b"x")
    found = []
    for one in (
        DynamicNotes(linear_layers=("a",), convolutions_in_float_arithmetic=(), reduce_range=False),
        Fp16Notes(
            constants=3,
            clipped_constants=0,
            raised_constants=1,
            tensors_with_changed_constants=("w",),
            float_islands={"n": 1.5},
            logits_sqnr_db=None,
        ),
        StaticNotes(
            activation_type="uint8",
            weight_type="int8",
            reduce_range=False,
            layers=2,
            float_layers=("l",),
            calibration_images=("a.png",),
            saturation=None,
        ),
    ):
        model = OnnxModel("v", folder / "v.onnx", sha256_of_file(folder / "v.onnx"), None, {"seed": 0}, one)
        model.write_record()
        found.append(model.record_path.read_bytes())
    return found


def ranges(folder: Path) -> list[bytes]:
    from foundation.sealed_files import write_sealed

    write_sealed(folder / "seed.json", {"key": "a key", "ranges": {"a": [0.0, 1.5], "b/c": [-3.25, 2.0]}})
    return [(folder / "seed.json").read_bytes()]


def operating_points(folder: Path) -> list[bytes]:
    from stages.validate.operating_points import OperatingPoint, OperatingPoints

    point = OperatingPoint("polyp", -0.5, 0.9, 0.75, 20, 40)
    OperatingPoints({"polyp": point}, {"ulcer": "too few"}, "f", "d", "a rule").write(folder / "seed.json")
    return [(folder / "seed.json").read_bytes()]


def measured(candidate: Any) -> Any:
    """Return a trial's measurement, the same for every file."""
    from foundation.note_parts import Estimate, MeasuredNote, ScoreNote

    number = Estimate(value=0.5, ci95=(0.25, 0.75), n=32)
    score = ScoreNote(accuracy_drop=None, agreement=number, logits_sqnr_db=number, saliency_spearman=number)
    return MeasuredNote(score=score, speedup=number, size_bytes=1000, margins={"agreement": 0.1})


def journal(folder: Path) -> list[bytes]:
    from foundation.note_parts import SensitivityNote
    from stages.search.study import TunedSettings, open_study, remember_layer, search

    path = folder / "seed.jsonl"
    study = open_study(path, "identity")
    remember_layer(study, SensitivityNote(layer="conv", operator="Conv", score=measured(None).score))
    search(measured, 4, TunedSettings(trials=3), study, lambda done, total: None, 1e12)
    return [path.read_bytes()]


def nights(folder: Path) -> list[bytes]:
    from dataclasses import replace

    from pipeline.night.nights import record_finish, record_start

    night = record_start(folder, "2026-01-01", "0" * 64, "2026-01-01T02:00:00Z")
    record_finish(
        folder,
        replace(night, finished_utc="2026-01-01T03:00:00Z", exit_code=0, comparison="same", headline={"a/b": 0.5}),
    )
    record_start(folder, "2026-01-02", "0" * 64, "2026-01-02T02:00:00Z")
    return [(folder / "history.jsonl").read_bytes()]


def predictions(folder: Path) -> list[bytes]:
    from foundation.arrays import write_arrays

    write_arrays(
        folder / "seed.npz", {"logits": np.ones((4, 3), np.float32), "labels": np.arange(4), "scored": np.array(True)}
    )
    return [(folder / "seed.npz").read_bytes()]


def explanations(folder: Path) -> list[bytes]:
    from foundation.arrays import write_arrays

    whole = np.arange(2)
    write_arrays(folder / "seed.npz", {"maps": np.ones((2, 4, 4), np.float32), "image_index": whole, "target": whole})
    return [(folder / "seed.npz").read_bytes()]


def map_values(folder: Path) -> list[bytes]:
    from stages.validate.map_values import write_map_values

    write_map_values(folder / "seed.npz", {"sparseness": np.ones(3), "deletion_auc": np.array([0.5, np.nan, 0.1])})
    return [(folder / "seed.npz").read_bytes()]


def configurations(folder: Path) -> list[bytes]:
    root = Path(__file__).resolve().parents[2]
    return [
        path.read_bytes() for path in (root / "pipeline" / "demo.yaml", *sorted((root / "examples").glob("*.yaml")))
    ]


def class_list(folder: Path) -> list[bytes]:
    return [b"ill\nwell\nunknown\n", "\ufeffMängel\nklar\n".encode()]


def table(folder: Path) -> list[bytes]:
    from PIL import Image

    for number in range(6):
        Image.fromarray(pixels(number, 6, 6, 3)).save(folder / f"{number}.png")
    rows = [
        f"{number}.png,{'ab'[number % 2]},P{number},{('train', 'test', '')[number % 3]},{number}.png"
        for number in range(6)
    ]
    return ["\n".join(("path,label,patient,split,mask", *rows)).encode()]
