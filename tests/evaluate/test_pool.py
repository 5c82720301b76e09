"""The scores of all folds together are those of one evaluation over all their tiles."""

import json

import numpy as np
import pytest

from tmcnet.config import Run
from tmcnet.errors import InputError
from tmcnet.evaluate.evaluate import Outcome, pool_folds, write_scores
from tmcnet.evaluate.metrics import Calibration, boundary_counts, confusion

RUN = Run.parse("mssnet-corrected__random__R5__s1")
CLASSES = ["water", "land", "road"]


def outcome(names):
    """Predictions for some tiles, a function of their names alone."""
    calibrations = Calibration(), Calibration(1.5)
    matrices, boundaries, hidden = [], [], np.zeros((3, 3), np.int64)
    for name in names:
        random = np.random.default_rng(int(name[1:]))
        truth = np.repeat(random.integers(0, 3, (4, 4)), 4, 0).repeat(4, 1)
        logits = 2 * np.eye(3)[truth] + random.normal(0, 1, (16, 16, 3))
        probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        guess = probabilities.argmax(-1)
        matrices.append(confusion(truth, guess, 3))
        boundaries.append(boundary_counts(truth, guess, 3, 1))
        hidden += confusion(truth, random.integers(0, 3, truth.shape), 3)
        for calibration in calibrations:
            calibration.add(probabilities.reshape(-1, 3), truth.ravel())
    scenes, blocks = ["s"] * len(names), [f"s {int(name[1:]) // 4} 0" for name in names]
    return Outcome(
        names, scenes, blocks, np.stack(matrices), np.stack(boundaries), {"optical": hidden}, *calibrations
    )


def test_folds_make_what_one_evaluation_would(tmp_path):
    names = [f"t{i}" for i in range(9)]
    folds = [names[1::3], names[0::3], names[2::3]]
    for number, fold in enumerate(folds):
        write_scores(tmp_path / str(number), RUN, outcome(fold), CLASSES, 1)
    pool_folds([tmp_path / str(n) for n in range(3)], RUN, tmp_path / "pooled")
    write_scores(tmp_path / "one", RUN, outcome(names), CLASSES, 1)
    pooled, one = (json.loads((tmp_path / k / "metrics.json").read_text()) for k in ("pooled", "one"))
    assert pooled.keys() == one.keys()
    for key in set(one) - {"calibration", "ece"}:
        assert pooled[key] == one[key], key
    assert pooled["ece"] == pytest.approx(one["ece"], abs=1e-9)
    assert pooled["calibration"]["log_loss"] == pytest.approx(one["calibration"]["log_loss"])
    assert pooled["calibration"]["scaled"]["ece"] == pytest.approx(one["calibration"]["scaled"]["ece"], abs=1e-9)
    with np.load(tmp_path / "pooled" / "tiles.npz") as a, np.load(tmp_path / "one" / "tiles.npz") as b:
        assert set(a) == set(b)
        assert all(np.array_equal(a[name], b[name]) for name in b)


def test_folds_that_share_tiles_or_classes_do_not_fit(tmp_path):
    write_scores(tmp_path / "a", RUN, outcome(["t0", "t1"]), CLASSES, 1)
    write_scores(tmp_path / "b", RUN, outcome(["t1", "t2"]), CLASSES, 1)
    write_scores(tmp_path / "c", RUN, outcome(["t3"]), ["x", "y", "z"], 1)
    with pytest.raises(InputError) as caught:
        pool_folds([tmp_path / name for name in "abc"], RUN, tmp_path / "out")
    message = str(caught.value)
    assert "1 tiles that are in the test part of another fold too, such as t1" in message
    assert "was scored with other classes" in message
    assert not (tmp_path / "out").exists()
