"""Small folders of image files, good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImage = Callable[..., Path]


@pytest.fixture
def write_image() -> WriteImage:
    """Return a function that writes a noisy image whose brightness and bytes depend on `seed`."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Path:
        rng = np.random.default_rng(seed)
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        pixels = rng.integers(0, 200, shape).astype(np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def two_classes(tmp_path: Path, write_image: WriteImage) -> Path:
    """Class folders `cat` and `dog` of eight PNG images each, no masks."""
    root = tmp_path / "images"
    for label, name in enumerate(("cat", "dog")):
        for index in range(8):
            write_image(root / name / f"P{index}_{name}.png", seed=100 * label + index)
    return root


@pytest.fixture
def kvasir_like(tmp_path: Path) -> Path:
    """Kvasir-SEG's files for twelve images of 80 × 64 px, four of them in val.txt; the polyp is bright."""
    root = tmp_path / "kvasir"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    names = [f"img{index:02d}" for index in range(12)]
    boxes = {}
    for index, name in enumerate(names):
        pixels = np.random.default_rng(index).integers(60, 120, (64, 80, 3)).astype(np.uint8)
        mask = np.zeros((64, 80), dtype=np.uint8)
        left, top, side = 4 + index, 6 + index, 14 + index
        pixels[top : top + side, left : left + side] = 230
        mask[top : top + side, left : left + side] = 255
        Image.fromarray(pixels).save(root / "images" / f"{name}.jpg", quality=95)
        Image.fromarray(mask).save(root / "masks" / f"{name}.jpg", quality=95)
        box = {"label": "polyp", "xmin": left, "ymin": top, "xmax": left + side, "ymax": top + side}
        boxes[name] = {"height": 64, "width": 80, "bbox": [box]}
    (root / "kavsir_bboxes.json").write_text(json.dumps(boxes))
    (root / "train.txt").write_text("\n".join(names[:8]) + "\n")
    (root / "val.txt").write_text("\n".join(names[8:]) + "\n")
    return root
