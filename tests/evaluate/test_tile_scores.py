import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from tmcnet.evaluate import metrics


def test_averages_over_tiles():
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, (4, 20, 20))
    truth[0][truth[0] == 2] = 0  # class 2 is absent from the first tile
    prediction = np.where(random.random(truth.shape) < 0.7, truth, 1)
    prediction[0][prediction[0] == 2] = 1
    tiles = np.stack([metrics.confusion(t, p, 3) for t, p in zip(truth, prediction, strict=True)])
    macro = [jaccard_score(t.ravel(), p.ravel(), average="macro") for t, p in zip(truth, prediction, strict=True)]
    assert metrics.mean_tile_miou(tiles) == pytest.approx(np.mean(macro))
    assert metrics.mean_tile_accuracy(tiles) == pytest.approx(np.mean(truth == prediction))
    coded = [
        [((t == k) & (p == k)).sum() / max(((t == k) | (p == k)).sum(), 1) for k in range(3)]
        for t, p in zip(truth, prediction, strict=True)
    ]
    assert np.allclose(metrics.image_iou(tiles), np.mean(coded, axis=0))
    assert metrics.image_iou(tiles)[2] < metrics.iou(tiles.sum(0))[2]


def test_tiles_without_labels_do_not_count():
    tiles = np.stack([np.diag([5, 5]), np.zeros((2, 2), np.int64)])
    assert metrics.mean_tile_accuracy(tiles) == 1
    assert metrics.image_iou(tiles).tolist() == [1, 1]
    assert np.isnan(metrics.mean_tile_miou(tiles[1:]))


def test_mean_precision_leaves_out_what_is_never_predicted():
    assert metrics.mean_precision(np.array([[3, 0], [1, 0]])) == pytest.approx(0.75)
