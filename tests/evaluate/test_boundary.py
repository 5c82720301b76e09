import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tmcnet.evaluate.metrics import boundary_counts, boundary_f1

VOID = 255


def halves(column, size=24):
    """Class 0 on the left, class 1 from `column` on."""
    ids = np.zeros((size, size), np.uint8)
    ids[:, column:] = 1
    return ids


def score(truth, prediction, tolerance, classes=2):
    return boundary_f1(boundary_counts(truth, prediction, classes, tolerance))


def slow(truth, prediction, classes, tolerance):
    """The same counts pixel by pixel, from the words of the definition."""
    height, width = truth.shape

    def boundary(ids, k):
        found = set()
        for r, c in np.argwhere(ids == k).tolist():
            around = [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
            inside = [ids[y, x] for y, x in around if 0 <= y < height and 0 <= x < width]
            if any(other not in (k, VOID) for other in inside):
                found.add((r, c))
        return found

    def close(pixel, pixels):
        return any((pixel[0] - y) ** 2 + (pixel[1] - x) ** 2 <= tolerance**2 for y, x in pixels)

    void = [tuple(p) for p in np.argwhere(truth == VOID).tolist()]
    rows = []
    for k in range(classes):
        true, predicted = boundary(truth, k), boundary(prediction, k)
        judged = {p for p in predicted if not close(p, void)}
        found = sum(close(p, predicted) for p in true)
        rows.append([sum(close(p, true) for p in judged), len(judged), found, len(true)])
    return rows


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_loop_over_pixels(seed, tolerance):
    random = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(random.normal(size=(19, 26)), 2) for _ in range(3)])
    truth = fields.argmax(axis=0).astype(np.uint8)
    prediction = (fields + 0.1 * gaussian_filter(random.normal(size=fields.shape), (0, 1, 1))).argmax(axis=0)
    truth[random.random(truth.shape) < 0.01] = VOID
    truth[15:, :8] = VOID
    counts = boundary_counts(truth, prediction, 4, tolerance)
    assert counts.tolist() == slow(truth, prediction, 4, tolerance)
    assert counts.sum() > 0


@pytest.mark.parametrize(
    ("shift", "tolerance", "expected"), [(0, 0, 1), (1, 1, 1), (2, 2, 1), (1, 0, 0), (3, 2, 0), (5, 4, 0)]
)
def test_a_shifted_boundary_is_found_up_to_the_tolerance(shift, tolerance, expected):
    assert score(halves(10), halves(10 + shift), tolerance) == pytest.approx([expected, expected])


def test_distance_is_euclidean():
    truth, prediction = np.zeros((2, 9, 9), np.uint8)
    truth[3, 3], prediction[5, 5] = 1, 1
    assert score(truth, prediction, 2)[1] == 0
    assert score(truth, prediction, 3)[1] == 1


def test_precision_and_recall_are_told_apart():
    truth, prediction = halves(8), halves(8)
    prediction[:, 18:] = 0  # a second, invented boundary
    right, predicted, found, true = boundary_counts(truth, prediction, 2, 1)[1]
    assert (right, predicted, found, true) == (24, 48, 24, 24)
    assert score(truth, prediction, 1)[1] == pytest.approx(2 / 3)
    assert score(prediction, truth, 1)[1] == pytest.approx(2 / 3)


def test_void_makes_no_boundary_and_nothing_near_it_is_held_against_anyone():
    truth = halves(10)
    truth[:, 10:] = VOID
    assert boundary_counts(truth, np.zeros_like(truth), 2, 2)[:, 2:].sum() == 0
    assert np.isnan(score(truth, np.zeros_like(truth), 2)).all()
    for column in (10, 12, 20):  # in void, or the pixel before it
        assert np.isnan(score(truth, halves(column), 2)).all()
    assert score(truth, halves(5), 2).tolist() == [0, 0]


def test_a_boundary_predicted_in_void_may_still_find_a_true_one():
    truth = halves(10)
    truth[:, 11:] = VOID
    assert boundary_counts(truth, halves(11), 2, 1).tolist() == [[0, 0, 24, 24], [0, 0, 24, 24]]


def test_the_edge_of_the_tile_is_no_boundary():
    assert boundary_counts(halves(0), halves(0), 2, 2).sum() == 0


def test_a_class_without_boundary_has_no_score_and_one_in_one_map_only_scores_zero():
    truth, prediction = halves(10), halves(10)
    prediction[4:8, 16:20] = 2
    found = score(truth, prediction, 1, classes=4)
    assert found[2] == 0
    assert np.isnan(found[3])
    assert 0 < found[1] < found[0] <= 1


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        boundary_counts(halves(3), halves(3)[:-1], 2, 1)
