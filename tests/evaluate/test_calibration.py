import numpy as np
import pytest
import torch
from scipy.special import softmax
from torchmetrics.functional.classification import multiclass_calibration_error

from tmcnet.evaluate.metrics import Calibration, apply_temperature, fit_temperature


def drawn(temperature, n=20000, seed=0):
    """Pixels whose labels are drawn from softmax(logits), shown with logits divided by `temperature`."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (n, 4))
    truth = np.array([random.choice(4, p=p) for p in softmax(logits, axis=1)])
    return softmax(logits / temperature, axis=1), truth


def test_agrees_with_torchmetrics():
    probabilities, truth = drawn(0.5, 3000)
    calibration = Calibration()
    calibration.add(probabilities[:1000], truth[:1000])
    calibration.add(probabilities[1000:], truth[1000:])
    theirs = multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(truth), 4, n_bins=15)
    assert calibration.error == pytest.approx(float(theirs), abs=1e-6)


def test_void_does_not_count():
    probabilities, truth = drawn(1.0, 500)
    with_void = np.concatenate([truth, np.full(100, 255)])
    a, b = Calibration(), Calibration()
    a.add(probabilities, truth)
    b.add(np.concatenate([probabilities, probabilities[:100]]), with_void)
    assert a.table() == b.table()
    assert a.log_loss == pytest.approx(b.log_loss)
    assert a.log_loss == pytest.approx(-np.log(probabilities[np.arange(500), truth]).mean())


def test_finds_a_planted_temperature_and_mends_the_error():
    probabilities, truth = drawn(0.4)
    temperature = fit_temperature(probabilities, truth)
    assert temperature == pytest.approx(1 / 0.4, rel=0.05)
    raw, scaled = Calibration(), Calibration(temperature)
    raw.add(probabilities, truth)
    scaled.add(probabilities, truth)
    assert raw.error > 0.1
    assert scaled.error < 0.02
    assert (apply_temperature(probabilities, temperature).argmax(1) == probabilities.argmax(1)).all()


def test_nothing_labelled():
    empty = Calibration()
    empty.add(np.full((3, 2), 0.5), np.full(3, 255))
    assert np.isnan(empty.error)
    assert all(row["confidence"] is None for row in empty.table())
    assert fit_temperature(np.full((3, 2), 0.5), np.full(3, 255)) == 1
