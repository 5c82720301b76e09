from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tmcnet.config import FinetuneSettings
from tmcnet.config.training import Loss
from tmcnet.train.losses import cross_entropy, dice, focal, segmentation_loss

WEIGHTS = torch.tensor([1.0, 2.0, 0.5])
every_loss = pytest.mark.parametrize("name", get_args(Loss))


def settings(name, **changes):
    return FinetuneSettings(loss=name, **changes)


@pytest.fixture
def batch():
    """Logits of 2 x 3 x 4 x 5 and a label of which class 2 and a part of the pixels are missing."""
    random = torch.Generator().manual_seed(0)
    label = torch.randint(0, 2, (2, 4, 5), generator=random)
    label[0, :2] = 255
    return torch.randn(2, 3, 4, 5, generator=random), label


def true_probability(logits, label):
    """Probability of the true class of each labelled pixel, and its class."""
    known = label != 255
    probability = logits.double().softmax(dim=1).movedim(1, -1)[known].numpy()
    truth = label[known].numpy()
    return probability[np.arange(len(truth)), truth], truth


def test_cross_entropy_is_the_weighted_mean_over_labelled_pixels(batch):
    logits, label = batch
    expected = F.cross_entropy(logits, label, weight=WEIGHTS, ignore_index=255)
    assert cross_entropy(logits, label, WEIGHTS) == pytest.approx(float(expected))


def test_focal_by_hand(batch):
    probability, truth = true_probability(*batch)
    weight = WEIGHTS.numpy()[truth]
    for gamma in (0.0, 0.5, 2.0):
        expected = (weight * (1 - probability) ** gamma * -np.log(probability)).sum() / weight.sum()
        assert focal(*batch, WEIGHTS, gamma) == pytest.approx(expected, rel=1e-5)
    assert focal(*batch, WEIGHTS, 0.0) == pytest.approx(float(cross_entropy(*batch, WEIGHTS)), rel=1e-6)


def test_focal_has_a_slope_where_a_pixel_is_certain():
    label = torch.zeros(1, 1, 2, dtype=torch.long)
    for gamma in (0.0, 0.5, 1.0, 2.0):
        logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0], [0.0, 0.0]]).view(1, 3, 1, 2).requires_grad_()
        focal(logits, label, WEIGHTS, gamma).backward()
        assert torch.isfinite(logits.grad).all()
        assert logits.grad[0, 0, 0, 1] < 0  # the pixel that is wrong still learns


def test_dice_by_hand(batch):
    logits, label = batch
    known = (label != 255).numpy()
    probability = logits.double().softmax(dim=1).movedim(1, -1).numpy()[known]
    truth = label.numpy()[known]
    scores = []
    for k in (0, 1):  # the truth does not name class 2
        p, t = probability[:, k], (truth == k).astype(float)
        scores.append(2 * (p * t).sum() / ((p**2).sum() + (t**2).sum()))
    assert dice(logits, label) == pytest.approx(1 - np.mean(scores), rel=1e-5)


def test_dice_runs_from_right_to_wrong_and_counts_classes_alike():
    label = torch.zeros(1, 10, 10, dtype=torch.long)
    label[0, 0, 0] = 1
    right = 50.0 * F.one_hot(label, 3).movedim(-1, 1)
    assert dice(right, label) == pytest.approx(0, abs=1e-6)
    assert dice(-right, label) == pytest.approx(1, abs=0.02)
    # the one pixel of class 1 missed, the many of class 0 found: half of the classes
    only_first = torch.zeros(1, 3, 10, 10)
    only_first[:, 0] = 50.0
    assert dice(only_first, label) == pytest.approx(0.5, abs=0.01)


def test_the_config_names_the_loss(batch):
    expected = {
        "cross_entropy": cross_entropy(*batch, WEIGHTS),
        "focal": focal(*batch, WEIGHTS, 2.0),
        "dice": dice(*batch),
        "cross_entropy_dice": cross_entropy(*batch, WEIGHTS) + dice(*batch),
    }
    found = {name: segmentation_loss(*batch, WEIGHTS, settings(name)) for name in get_args(Loss)}
    assert found == expected
    assert len({float(value) for value in found.values()}) == len(expected)


@every_loss
def test_void_pixels_change_nothing_and_get_no_gradient(batch, name):
    logits, label = batch
    void = (label == 255)[:, None].expand_as(logits)
    changed = logits.where(~void, 7 * logits.flip(1) + 3).requires_grad_()
    loss = segmentation_loss(changed, label, WEIGHTS, settings(name))
    assert loss == segmentation_loss(logits, label, WEIGHTS, settings(name))
    loss.backward()
    assert (changed.grad[void] == 0).all()
    assert (changed.grad[~void] != 0).all()


@every_loss
def test_a_batch_without_labels_has_no_loss_and_no_gradient(batch, name):
    logits = batch[0].requires_grad_()
    loss = segmentation_loss(logits, torch.full((2, 4, 5), 255), WEIGHTS, settings(name))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


@every_loss
def test_losses_are_computed_in_single_precision(batch, name):
    coarse, label = batch[0].bfloat16(), batch[1]
    with torch.autocast("cpu", torch.bfloat16):
        loss = segmentation_loss(coarse, label, WEIGHTS, settings(name))
    assert loss.dtype == torch.float32
    assert loss == segmentation_loss(coarse.float(), label, WEIGHTS, settings(name))


@every_loss
def test_descent_finds_the_labels(batch, name):
    logits, label = torch.zeros(2, 3, 4, 5, requires_grad=True), batch[1]
    descent = torch.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        descent.zero_grad()
        segmentation_loss(logits, label, WEIGHTS, settings(name)).backward()
        descent.step()
    known = label != 255
    assert (logits.argmax(dim=1) == label)[known].all()
