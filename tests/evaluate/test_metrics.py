import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from tmcnet.evaluate import metrics


@pytest.fixture
def pixels():
    random = np.random.default_rng(0)
    truth = random.integers(0, 5, (40, 50)).astype(np.uint8)
    prediction = np.where(random.random((40, 50)) < 0.6, truth, random.integers(0, 5, (40, 50))).astype(np.uint8)
    truth[:5] = 255
    return truth, prediction


def test_agrees_with_scikit_learn(pixels):
    truth, prediction = pixels
    matrix = metrics.confusion(truth, prediction, 5)
    known = truth != 255
    t, p = truth[known], prediction[known]
    assert metrics.overall_accuracy(matrix) == pytest.approx(accuracy_score(t, p))
    assert metrics.kappa(matrix) == pytest.approx(cohen_kappa_score(t, p))
    for ours, theirs in (
        (metrics.iou, jaccard_score),
        (metrics.precision, precision_score),
        (metrics.recall, recall_score),
        (metrics.f1, f1_score),
    ):
        assert np.allclose(ours(matrix), theirs(t, p, average=None))
    assert metrics.mean_iou(matrix) == pytest.approx(jaccard_score(t, p, average="macro"))


def test_agrees_with_torchmetrics_with_void(pixels):
    truth, prediction = (torch.from_numpy(a.astype(np.int64)) for a in pixels)
    matrix = metrics.confusion(*pixels, 5)
    theirs = multiclass_confusion_matrix(prediction, truth, 5, ignore_index=255)
    assert np.array_equal(matrix, theirs.numpy())
    assert metrics.mean_iou(matrix) == pytest.approx(
        float(multiclass_jaccard_index(prediction, truth, 5, ignore_index=255)), abs=1e-6
    )


def test_a_class_that_occurs_nowhere_has_no_score():
    # class 1 is in the truth only, class 2 in the prediction only, class 3 nowhere
    matrix = np.array([[6, 0, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert np.array_equal(metrics.iou(matrix), [6 / 9, 0, 0, np.nan], equal_nan=True)
    assert np.array_equal(metrics.precision(matrix), [6 / 7, 0, 0, np.nan], equal_nan=True)
    assert np.array_equal(metrics.recall(matrix), [6 / 8, 0, 0, np.nan], equal_nan=True)
    assert metrics.mean_iou(matrix) == pytest.approx(6 / 27)


def test_scores_of_nothing_and_of_one_class():
    assert np.isnan(list(metrics.headline(np.zeros((3, 3), np.int64)).values())).all()
    single = np.diag([7, 0, 0])
    assert metrics.overall_accuracy(single) == 1
    assert np.isnan(metrics.kappa(single))


def test_kappa_of_ten_thousand_million_pixels():
    matrix = np.array([[4, 1], [2, 3]], dtype=np.int64)
    assert metrics.kappa(matrix * 10**9) == pytest.approx(float(metrics.kappa(matrix)))


def test_many_matrices_at_once(pixels):
    random = np.random.default_rng(1)
    many = random.integers(0, 50, (3, 4, 5, 5))
    for score in metrics.HEADLINE.values():
        assert score(many).shape == (3, 4)
        assert score(many)[1, 2] == pytest.approx(float(score(many[1, 2])))


def test_foreign_ids_are_refused():
    with pytest.raises(ValueError, match="truth holds ids from 0 to 9"):
        metrics.confusion(np.array([0, 9]), np.array([0, 0]), 3)
