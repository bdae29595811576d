"""Losses of both tasks against scikit-learn, scipy and the equations."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, rel_entr, softmax
from sklearn.metrics import log_loss

from stages.train.objectives import distilled, divergence, explained_score, label_loss, loss_weights

RNG = np.random.default_rng(0)
LOGITS = torch.from_numpy(RNG.normal(0, 2, (7, 3)).astype(np.float32))
OTHERS = torch.from_numpy(RNG.normal(0, 2, (7, 3)).astype(np.float32))
CLASSES = torch.tensor([0, 1, 2, 1, 0, 2, 2])
LABELS = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0]])


def test_cross_entropy_of_classes():
    expected = log_loss(CLASSES, softmax(LOGITS.double().numpy(), axis=1), labels=[0, 1, 2])
    assert label_loss(LOGITS, CLASSES, "multi_class", 0.0, None).item() == pytest.approx(expected, rel=1e-5)


def test_binary_cross_entropy_of_labels():
    p = expit(LOGITS.double().numpy())
    expected = np.mean([log_loss(LABELS[:, label], p[:, label], labels=[0, 1]) for label in range(3)])
    assert label_loss(LOGITS, LABELS, "multi_label", 0.0, None).item() == pytest.approx(expected, rel=1e-5)


def test_smoothing_moves_labels_towards_each_other():
    log_p = log_softmax(LOGITS.double().numpy(), axis=1)
    expected = -(0.9 * log_p[np.arange(7), CLASSES] + 0.1 * log_p.mean(axis=1)).mean()
    assert label_loss(LOGITS, CLASSES, "multi_class", 0.1, None).item() == pytest.approx(expected, rel=1e-5)
    certain = torch.full((1, 1), 40.0)
    assert label_loss(certain, torch.ones(1, 1), "multi_label", 0.2, None).item() == pytest.approx(4.0, rel=1e-5)


def test_weights_make_every_class_count_alike():
    labels = np.array([0] * 8 + [1] * 2)
    assert loss_weights(labels, 2).tolist() == pytest.approx([10 / 16, 10 / 4])
    assert loss_weights(np.array([[1, 0], [0, 0], [0, 0], [0, 1], [1, 0]]), 2).tolist() == pytest.approx([1.5, 4.0])


def test_a_weighted_mean_over_parts_is_that_of_the_whole():
    weights = torch.tensor([0.5, 2.0, 1.0])
    whole = label_loss(LOGITS, CLASSES, "multi_class", 0.0, weights)
    parts = [label_loss(LOGITS[part], CLASSES[part], "multi_class", 0.0, weights) for part in (slice(3), slice(3, 7))]
    assert (3 * parts[0] + 4 * parts[1]).item() / 7 == pytest.approx(whole.item(), rel=1e-6)


def test_divergence_is_kullback_and_leiblers():
    p, q = (softmax(x.double().numpy(), axis=1) for x in (LOGITS, OTHERS))
    assert divergence(LOGITS, OTHERS, "multi_class").item() == pytest.approx(rel_entr(p, q).sum(1).mean(), rel=1e-5)
    p, q = (expit(x.double().numpy()) for x in (LOGITS, OTHERS))
    expected = (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).sum(axis=1).mean()
    assert divergence(LOGITS, OTHERS, "multi_label").item() == pytest.approx(expected, rel=1e-5)


def test_an_image_is_explained_by_its_labels_and_one_without_by_what_came_closest():
    scores = explained_score(LOGITS, LABELS, "multi_label")
    assert scores[2].item() == pytest.approx((LOGITS[2, 0] + LOGITS[2, 1]).item())
    assert scores[1].item() == LOGITS[1].max().item()
    assert explained_score(LOGITS, CLASSES, "multi_class").tolist() == LOGITS[torch.arange(7), CLASSES].tolist()


def test_distillation_weighs_the_teacher_and_undoes_the_temperature_of_its_gradient():
    teacher = OTHERS.double().numpy() / 3
    student = LOGITS.double().numpy() / 3
    soft = rel_entr(softmax(teacher, axis=1), softmax(student, axis=1)).sum(axis=1).mean()
    value = distilled(torch.tensor(2.0), LOGITS, OTHERS, "multi_class", 0.25, 3.0).item()
    assert value == pytest.approx(0.75 * 2.0 + 0.25 * 9 * soft, rel=1e-5)
