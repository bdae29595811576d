"""A tiny instance of every row of `DATASETS`, in its real format on disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from dicom_files import write_dicom
from PIL import Image


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def tiny_folder(root: Path) -> dict:
    for label in range(2):
        for index in range(6):
            pixels = noise(10 * label + index, 12, 10, 3)
            path = root / f"class{label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return {"root": str(root)}


def tiny_kvasir_seg(root: Path) -> dict:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    names = [f"img{index}" for index in range(10)]
    boxes = {}
    for index, name in enumerate(names):
        pixels = np.random.default_rng(index).integers(60, 240, (48, 64, 3)).astype(np.uint8)
        mask = np.zeros((48, 64), dtype=np.uint8)
        mask[8:24, 8:24] = 255
        Image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
        Image.fromarray(mask).save(root / "masks" / f"{name}.jpg")
        box = {"label": "polyp", "xmin": 8, "ymin": 8, "xmax": 24, "ymax": 24}
        boxes[name] = {"height": 48, "width": 64, "bbox": [box]}
    (root / "kavsir_bboxes.json").write_text(json.dumps(boxes))
    (root / "train.txt").write_text("\n".join(names[:7]))
    (root / "val.txt").write_text("\n".join(names[7:]))
    return {"root": str(root)}


def tiny_mnist(root: Path) -> dict:
    for seed, (prefix, count) in enumerate((("train", 40), ("t10k", 20))):
        pixels, labels = noise(seed, count, 28, 28), np.arange(count, dtype=np.uint8) % 10
        for name, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (root / f"{prefix}-{name}-ubyte").write_bytes(header + values.tobytes())
    return {"root": str(root)}


def tiny_medmnist(root: Path) -> dict:
    arrays = {}
    for seed, (prefix, count) in enumerate((("train", 30), ("val", 15), ("test", 15))):
        labels = np.zeros((count, 14), dtype=np.uint8)
        labels[np.arange(1, count), np.arange(count - 1) % 14] = 1
        arrays |= {f"{prefix}_images": noise(seed, count, 28, 28), f"{prefix}_labels": labels}
    np.savez_compressed(root / "chestmnist.npz", **arrays)
    return {"root": str(root / "chestmnist.npz")}


def tiny_classes(root: Path, classes: tuple[str, ...], count: int) -> None:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = noise(100 * label + index, 12, 10, 3)
            Image.fromarray(pixels).save(root / name / f"{name} ({index}).png")


def tiny_busi(root: Path) -> dict:
    tiny_classes(root, ("benign", "malignant", "normal"), 6)
    Image.fromarray(noise(7, 12, 10)).save(root / "benign" / "benign (0)_mask.png")
    return {"root": str(root)}


def tiny_dicom(root: Path) -> dict:
    for label, name in enumerate(("ill", "well")):
        (root / name).mkdir(parents=True)
        for index in range(6):
            write_dicom(root / name / f"{index}.dcm", noise(10 * label + index, 12, 10), PatientID=f"{name}{index}")
    return {"root": str(root)}


def tiny_kvasir(root: Path) -> dict:
    upper = ("esophagitis", "normal-pylorus", "normal-z-line")
    lower = ("dyed-lifted-polyps", "dyed-resection-margins", "normal-cecum", "polyps", "ulcerative-colitis")
    tiny_classes(root, upper + lower, 4)
    return {"root": str(root)}


def tiny_chestxray14(root: Path) -> dict:
    findings = (
        *("No Finding", "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
        *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
    )
    (root / "images").mkdir()
    table = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"]
    names = []
    for index in range(60):
        names.append(f"{index:08d}_000.png")
        table.append(f"{names[-1]},{findings[index % 15]},0,{index},50,{'MF'[index % 2]},PA")
        Image.fromarray(noise(index, 32, 32)).save(root / "images" / names[-1])
    (root / "Data_Entry_2017.csv").write_text("\n".join(table))
    (root / "train_val_list.txt").write_text("\n".join(names[:45]))
    (root / "test_list.txt").write_text("\n".join(names[45:]))
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,", f"{names[1]},Atelectasis,100,200,300,400,,,"]
    (root / "BBox_List_2017.csv").write_text("\n".join(boxes))
    return {"root": str(root)}


def tiny_ham10000(root: Path) -> dict:
    table = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for index in range(42):
        name, dx = f"ISIC_{index:07d}", ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")[index % 7]
        table.append(f"HAM_{index:07d},{name},{dx},histo,{5.0 * (index % 18)},{('male', 'female')[index % 2]},back")
        Image.fromarray(noise(index, 12, 16, 3)).save(root / "images" / f"{name}.jpg")
        Image.fromarray(noise(index, 12, 16)).save(root / "masks" / f"{name}_segmentation.png")
    (root / "HAM10000_metadata.csv").write_text("\n".join(table))
    return {"root": str(root)}


def tiny_cifar10(root: Path) -> dict:
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    for seed, name in enumerate(names):
        rows = noise(seed, 20, 3073)
        rows[:, 0] = np.arange(20) % 10
        (root / name).write_bytes(rows.tobytes())
    classes = "airplane automobile bird cat deer dog frog horse ship truck"
    (root / "batches.meta.txt").write_text(classes.replace(" ", "\n") + "\n\n")
    return {"root": str(root)}


def tiny_table(root: Path) -> dict:
    rows = ["path;labels;patient;mask"]
    for index in range(15):
        labels = ("", "cyst", "mass|cyst")[index % 3]
        mask = f"masks/{index}.png" if labels else ""
        rows.append(f"{index}.png;{labels};P{index};{mask}")
        for name, pixels in ((f"{index}.png", noise(index, 12, 10, 3)), (mask, noise(index, 12, 10))):
            if name:
                (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / "images" / name)
    (root / "table.csv").write_text("\n".join(rows))
    return {
        "table": str(root / "table.csv"),
        "root": str(root / "images"),
        "labels": "labels",
        "patient": "patient",
        "mask": "mask",
    }


TINY: dict[str, Callable[[Path], dict]] = {
    "busi": tiny_busi,
    "chestxray14": tiny_chestxray14,
    "cifar10": tiny_cifar10,
    "custom": lambda root: {"factory": "custom_sources:three_of_each", "options": {"count": 6}},
    "dicom": tiny_dicom,
    "digits": lambda root: {},
    "endoscopy": lambda root: {"frames_per_class": 6, "frame_size": 32},
    "folder": tiny_folder,
    "ham10000": tiny_ham10000,
    "kvasir": tiny_kvasir,
    "kvasir_seg": tiny_kvasir_seg,
    "medmnist": tiny_medmnist,
    "mnist": tiny_mnist,
    "table": tiny_table,
}
