"""The order of an epoch and the parts of its batches."""

import dataclasses

import numpy as np
import torch

from stages.train.batches import batches, epoch_order


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_image_comes_once_in_batches_of_the_asked_size(stripes):
    order = epoch_order(stripes, "none", generator())
    sizes, seen = [], []
    for batch in batches(stripes.train, order, 50):
        sizes.append(batch.size)
        seen += batch.images[:, 0, 0, 0].tolist()
    assert sizes == [50, 50, 20]
    assert sorted(seen) == sorted(stripes.train.images[:, 0, 0, 0].tolist())


def test_labels_stay_with_their_images(stripes):
    order = epoch_order(stripes, "none", generator())
    batch = next(batches(stripes.train, order, 30))
    chosen = np.sort(order[:30])
    assert np.array_equal(batch.images.numpy(), stripes.train.images[chosen])
    assert batch.labels.tolist() == stripes.train.labels[chosen].tolist()


def test_a_single_image_at_the_end_is_left_out(stripes):
    assert [batch.size for batch in batches(stripes.train, np.arange(7), 3)] == [3, 3]


def test_weighted_sampling_draws_every_class_equally_often(stripes):
    rare = dataclasses.replace(stripes.train, labels=np.array([0] * 100 + [1] * 15 + [2] * 5))
    data = dataclasses.replace(stripes, train=rare)
    drawn = np.concatenate([rare.labels[epoch_order(data, "weighted_sampling", generator(i))] for i in range(30)])
    assert np.abs(np.bincount(drawn) / len(drawn) - 1 / 3).max() < 0.03  # 3,600 draws: 3 standard errors are 0.024


def test_two_processes_share_a_batch_between_them(stripes, monkeypatch):
    parts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        parts.append(next(batches(stripes.train, np.arange(120), 7)))
    assert [len(part.images) for part in parts] == [3, 4]
    assert [part.size for part in parts] == [7, 7]
    both = torch.cat([part.images for part in parts]).numpy()
    assert np.array_equal(both, stripes.train.images[:7])
