from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from calibration_data.prepared import PreparedSplit
from stages.validate.explained import choose_images, explained_classes, images_to_explain

MakeSplit = Callable[..., PreparedSplit]


def labelled(make_split: MakeSplit, masked: int) -> PreparedSplit:
    """100 images: 60 without a finding, 30 with label 0, 6 with labels 0 and 1, 4 with label 2."""
    labels = np.zeros((100, 3), np.int64)
    labels[60:96, 0] = 1
    labels[90:96, 1] = 1
    labels[96:, 2] = 1
    mask_class = np.full(100, -1)
    mask_class[60 : 60 + masked] = labels[60 : 60 + masked].argmax(axis=1)
    return replace(make_split(n=100), labels=labels, mask_class=mask_class, has_mask=mask_class >= 0)


def test_one_class_per_image_explains_fp32s_answer_whatever_the_mask_shows() -> None:
    logits = np.array([[0, 2, 1], [3, 0, 1]], dtype=np.float32)
    assert explained_classes(logits, np.array([2, -1]), "multi_class").tolist() == [1, 0]
    assert explained_classes(logits, np.array([2, -1]), "multi_label").tolist() == [2, 0]


def test_half_of_the_explained_images_show_a_masked_finding(make_split: MakeSplit) -> None:
    data = labelled(make_split, masked=35)
    chosen = images_to_explain(data, 20, seed=0)
    assert len(chosen) == 20
    assert (np.diff(chosen) > 0).all()
    assert data.has_mask[chosen].sum() == 10
    others = data.labels[chosen[~data.has_mask[chosen]]]
    # Five images are left with a finding; half of the rest shows none.
    assert (~others.any(axis=1)).sum() in (5, 6, 7)
    assert others[:, 2].sum() in (3, 4)


def test_a_half_that_is_too_small_is_filled_from_the_other(make_split: MakeSplit) -> None:
    few = images_to_explain(labelled(make_split, masked=3), 20, seed=0)
    assert len(few) == 20
    assert {60, 61, 62} <= set(few.tolist())
    assert len(images_to_explain(labelled(make_split, masked=0), 20, seed=0)) == 20
    everything = labelled(make_split, masked=40)
    assert len(images_to_explain(everything, 90, seed=0)) == 90
    assert len(images_to_explain(everything, 1000, seed=0)) == 100


def test_rare_labels_are_explained_too_and_the_seed_decides(make_split: MakeSplit) -> None:
    data = labelled(make_split, masked=0)
    chosen = images_to_explain(data, 12, seed=0)
    # Four strata: no finding, label 0 alone, label 1 (the rarer of two), label 2.
    assert data.labels[chosen].sum(axis=0).tolist() == [6, 3, 3]
    assert (images_to_explain(data, 12, seed=0) == chosen).all()
    assert (images_to_explain(data, 12, seed=1) != chosen).any()


def test_images_are_chosen_from_every_class() -> None:
    labels = np.array([0] * 100 + [1] * 3 + [2] * 10)
    chosen = choose_images(labels, 12, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [5, 3, 4] or np.bincount(labels[chosen]).tolist() == [4, 3, 5]
    assert (np.diff(chosen) > 0).all()
    assert len(choose_images(labels, 1000, seed=0)) == 113
    assert (choose_images(labels, 12, seed=1) != chosen).any()
