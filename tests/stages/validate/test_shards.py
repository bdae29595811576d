"""Answers in shards: whoever answers which images, the joined file is the whole's, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_models import build_model

from foundation.errors import UsageError
from onnx_files.sessions import open_session, predict
from stages.validate.accuracy import AccuracySettings
from stages.validate.answers import Predictions
from stages.validate.shards import Shard, answer_shard, cut_into_shards, join_shards


def in_shards(folder: Path, model: Path, images: Path, count: int, settings: AccuracySettings) -> list[Path]:
    """Answer every shard, the last one first."""
    shards = cut_into_shards(model, len(np.load(images, mmap_mode="r")), settings, count)
    for place, shard in reversed(list(enumerate(shards))):
        answer_shard(model, images, shard, settings, folder / f"{place}.npz")
    return [folder / f"{place}.npz" for place in range(len(shards))]


@pytest.mark.parametrize("batch", [1, 4, 5])
@pytest.mark.parametrize("count", range(1, 8))
def test_any_number_of_shards_joins_to_the_bytes_of_the_whole(tmp_path: Path, batch: int, count: int) -> None:
    """23 images: no multiple of any batch, so that the last query is short."""
    images, settings = tmp_path / "test.images.npy", AccuracySettings(batch_size=batch)
    np.save(images, np.random.default_rng(batch).integers(0, 256, (23, 1, 8, 8), dtype=np.uint8))
    model = build_model(tmp_path / "fp32.onnx")
    labels = np.arange(23) % 3
    logits = predict(open_session(model.path, "cpu", 1), np.load(images), batch)
    Predictions("fp32", logits, labels, tmp_path / "whole.npz").write()
    parts = in_shards(tmp_path, model.path, images, count, settings)
    assert len(parts) == min(count, -(-23 // batch))
    joined = join_shards("fp32", parts[::-1], labels, tmp_path / "joined.npz")
    assert joined.path.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_shards_are_whole_queries_and_as_equal_as_these_allow(tmp_path: Path) -> None:
    model = build_model(tmp_path / "fp32.onnx")
    shards = cut_into_shards(model.path, 23, AccuracySettings(batch_size=4), 4)
    assert [(shard.start, shard.stop) for shard in shards] == [(0, 4), (4, 12), (12, 16), (16, 23)]


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    images, settings = tmp_path / "test.images.npy", AccuracySettings(batch_size=4)
    np.save(images, np.zeros((10, 1, 8, 8), np.uint8))
    model, target = build_model(tmp_path / "fp32.onnx"), tmp_path / "part.npz"
    for start, stop, of in ((2, 10, 10), (0, 6, 10), (4, 4, 10), (8, 12, 12), (0, 8, 9), (-4, 4, 10)):
        with pytest.raises(UsageError, match="begins and ends with a query of 4"):
            answer_shard(model.path, images, Shard(start, stop, of), settings, target)
    with pytest.raises(UsageError, match="found no file"):
        answer_shard(model.path, tmp_path / "none.npy", Shard(0, 8, 10), settings, target)
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(UsageError, match="found something else"):
        answer_shard(model.path, tmp_path / "text.npy", Shard(0, 8, 10), settings, target)
    with pytest.raises(UsageError, match="one image and one shard"):
        cut_into_shards(model.path, 10, settings, 0)


def test_a_missing_doubled_or_foreign_part_is_refused(tmp_path: Path) -> None:
    images, settings = tmp_path / "test.images.npy", AccuracySettings(batch_size=4)
    np.save(images, np.zeros((12, 1, 8, 8), np.uint8))
    parts = in_shards(tmp_path, build_model(tmp_path / "fp32.onnx").path, images, 3, settings)
    labels, target = np.zeros(12, np.int64), tmp_path / "joined.npz"
    for wrong in ([], parts[:2], parts[1:], [parts[0], *parts], [parts[0], parts[2]]):
        with pytest.raises(UsageError, match="each of 12 images once"):
            join_shards("fp32", wrong, labels, target)
    with pytest.raises(UsageError, match="each of 13 images once"):
        join_shards("fp32", parts, np.zeros(13, np.int64), target)
    parts[1].write_bytes(b"damaged")
    with pytest.raises(UsageError, match="found something else"):
        join_shards("fp32", parts, labels, target)
    assert not target.exists()
