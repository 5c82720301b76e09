import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)
from torchmetrics.functional import classification as theirs

from tmcnet.evaluate import metrics

BY_CLASS = {
    "iou": (metrics.iou, jaccard_score, theirs.multiclass_jaccard_index),
    "precision": (metrics.precision, precision_score, theirs.multiclass_precision),
    "recall": (metrics.recall, recall_score, theirs.multiclass_recall),
    "f1": (metrics.f1, f1_score, theirs.multiclass_f1_score),
}


@st.composite
def pixels(draw):
    """K, and truth and prediction of a random image: void in places, and classes missing in one of them or both."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    k = draw(st.sampled_from([2, 3, 5, 11]))
    in_truth, in_prediction = (sorted(draw(st.sets(st.integers(0, k - 1), min_size=2, max_size=k))) for _ in range(2))
    shape = draw(st.integers(5, 30)), draw(st.integers(5, 30))
    truth = random.choice(in_truth, shape).astype(np.uint8)
    # right where that is possible, in a share of the pixels
    right = (random.random(shape) < draw(st.floats(0, 1))) & np.isin(truth, in_prediction)
    prediction = np.where(right, truth, random.choice(in_prediction, shape)).astype(np.uint8)
    truth[random.random(shape) < draw(st.floats(0, 0.8))] = 255
    truth[0, :2] = in_truth[:2]  # something is labelled, and kappa has two classes to tell apart
    return k, truth, prediction


@settings(max_examples=50)
@given(pixels())
def test_agrees_with_scikit_learn(drawn):
    k, truth, prediction = drawn
    matrix = metrics.confusion(truth, prediction, k)
    t, p = truth[truth != 255], prediction[truth != 255]
    ids = list(range(k))
    occurs = np.isin(ids, t) | np.isin(ids, p)
    assert np.array_equal(matrix, confusion_matrix(t, p, labels=ids))
    assert metrics.overall_accuracy(matrix) == pytest.approx(accuracy_score(t, p))
    assert metrics.kappa(matrix) == pytest.approx(cohen_kappa_score(t, p))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that occur nowhere
        for name, (ours, scikit, _) in BY_CLASS.items():
            expected = scikit(t, p, labels=ids, average=None, zero_division=0)
            assert ours(matrix) == pytest.approx(np.where(occurs, expected, np.nan), nan_ok=True), name
        # without labels, scikit-learn takes the mean over the classes that occur
        assert metrics.mean_iou(matrix) == pytest.approx(jaccard_score(t, p, average="macro", zero_division=0))
        assert metrics.mean_f1(matrix) == pytest.approx(f1_score(t, p, average="macro", zero_division=0))


@given(pixels())
def test_agrees_with_torchmetrics_which_leaves_out_void_itself(drawn):
    k, truth, prediction = drawn
    matrix = metrics.confusion(truth, prediction, k)
    t, p = (torch.from_numpy(a.astype(np.int64)) for a in (truth, prediction))
    both = {"preds": p, "target": t, "num_classes": k, "ignore_index": 255}
    assert np.array_equal(matrix, theirs.multiclass_confusion_matrix(**both).numpy())
    accuracy = theirs.multiclass_accuracy(**both, average="micro")
    assert metrics.overall_accuracy(matrix) == pytest.approx(float(accuracy), abs=1e-6)
    assert metrics.kappa(matrix) == pytest.approx(float(theirs.multiclass_cohen_kappa(**both)), abs=1e-5)
    occurs = (matrix.sum(0) + matrix.sum(1)) > 0
    for name, (ours, _, torchs) in BY_CLASS.items():
        expected = torchs(**both, average="none").numpy()
        assert ours(matrix) == pytest.approx(np.where(occurs, expected, np.nan), abs=1e-6, nan_ok=True), name
    assert metrics.mean_iou(matrix) == pytest.approx(float(theirs.multiclass_jaccard_index(**both)), abs=1e-6)
    assert metrics.mean_f1(matrix) == pytest.approx(
        float(theirs.multiclass_f1_score(**both, average="macro")), abs=1e-6
    )


def test_void_may_be_anything_in_the_prediction():
    truth, prediction = np.array([0, 1, 255, 255]), np.array([0, 1, 1, 0])
    assert metrics.confusion(truth, prediction, 2).tolist() == [[1, 0], [0, 1]]
    assert metrics.confusion(np.full(4, 255), prediction, 2).sum() == 0


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


def test_many_matrices_at_once():
    random = np.random.default_rng(1)
    many = random.integers(0, 50, (3, 4, 5, 5))
    for score in metrics.HEADLINE.values():
        assert score(many).shape == (3, 4)
        assert score(many)[1, 2] == pytest.approx(float(score(many[1, 2])))


def test_foreign_ids_are_refused():
    with pytest.raises(ValueError, match="truth holds ids from 0 to 9"):
        metrics.confusion(np.array([0, 9]), np.array([0, 0]), 3)
