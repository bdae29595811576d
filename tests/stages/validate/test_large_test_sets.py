"""What a large test set costs: memory that hardly grows with the images, and none of it for their pixels."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from small_models import build_corner_model

from stages.validate.accuracy import AccuracySettings, measure_accuracy

LABELS = 4
PEAK_MIB_OF_A_SHARD = """
import resource, sys
from pathlib import Path
from stages.validate.accuracy import AccuracySettings
from stages.validate.shards import Shard, answer_shard

model, images, target = map(Path, sys.argv[1:4])
count = int(sys.argv[4])
answer_shard(model, images, Shard(0, 16, count), AccuracySettings(batch_size=16), target)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answer_shard(model, images, Shard(0, count, count), AccuracySettings(batch_size=16), target)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def peak_bytes(images: int) -> int:
    """Return what the measurements of a multi-label file beside fp32 need at most, patients varying as a whole."""
    rng = np.random.default_rng(images)
    labels = (rng.random((images, LABELS)) < 0.1).astype(np.int64)
    fp32 = (rng.normal(size=labels.shape) + 1.5 * labels).astype(np.float32)
    other = (fp32 + rng.normal(0, 0.1, fp32.shape)).astype(np.float32)
    groups = [f"patient {number}" for number in rng.integers(0, images // 4, images)]
    tracemalloc.start()
    try:
        settings = AccuracySettings(resamples=1000)
        measure_accuracy("int8", other, labels, tuple("abcd"), fp32, groups, [("sex: a",)] * images, settings)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_the_estimates_grows_by_a_few_numbers_an_image() -> None:
    """Weights of 1,000 resamples would be 8,000 bytes an image; the two files' scores and truth of 4 labels are 96.

    From 8,000 images on, as many resamples are drawn at a time as fit into the same memory.
    """
    peak_bytes(500)  # what is imported on the way counts for neither
    few, many = peak_bytes(8_000), peak_bytes(20_000)
    assert (many - few) / 12_000 < 1_000


@pytest.mark.skipif(sys.platform != "linux", reason="pages are let go of, and peaks told in KiB, on Linux")
def test_images_that_are_mapped_do_not_stay_in_memory(tmp_path: Path) -> None:
    """262 MB of images, of which 32 MB may be held at a time."""
    model, count = build_corner_model(tmp_path / "model.onnx", size=256), 4_000
    images = np.lib.format.open_memmap(tmp_path / "test.images.npy", "w+", np.uint8, (count, 1, 256, 256))
    del images
    arguments = [str(model.path), str(tmp_path / "test.images.npy"), str(tmp_path / "part.npz"), str(count)]
    found = subprocess.run(
        [sys.executable, "-c", PEAK_MIB_OF_A_SHARD, *arguments], capture_output=True, text=True, check=True
    )
    assert float(found.stdout) < 80
