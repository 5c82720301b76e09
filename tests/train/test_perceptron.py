"""The perceptron of single pixels: `pixel_mlp`, and the start of networks."""

import json

import numpy as np
import pytest
import torch

from tests.train.test_finetune import train, world  # noqa: F401 - a fixture
from tmcnet.config import Run
from tmcnet.model.context import Perceptron
from tmcnet.model.pixelwise import ABSENT
from tmcnet.model.weights import read_weights
from tmcnet.train.perceptron import Pixels, fit_perceptron

STILL = {"steps": 1, "validate_every": 1, "learning_rate": 1e-9}
"""The rest of the network stays as it is."""


def two_moons(noise: float = 0.1) -> Pixels:
    """Classes 1 and 3 of four, which no plane divides; one large, one tiny and one constant feature."""
    random = np.random.default_rng(0)
    angle, truth = random.uniform(0, np.pi, 800), random.integers(0, 2, 800)
    x = np.where(truth, 1 - np.cos(angle), np.cos(angle)) + random.normal(0, noise, 800)
    y = np.where(truth, 0.5 - np.sin(angle), np.sin(angle)) + random.normal(0, noise, 800)
    values = np.stack([1000 + 100 * x, 1e-3 * y, np.full(800, 7.0)], axis=1).astype(np.float32)
    return Pixels(values, 1 + 2 * truth, np.ones(800))


def test_learns_from_features_of_any_size_and_never_predicts_a_class_without_labels():
    torch.manual_seed(0)
    perceptron, pixels = Perceptron(3, [16, 16], 4), two_moons()
    assert not perceptron(torch.from_numpy(pixels.values)).any()
    fit_perceptron(perceptron, pixels, 300, seed=1)
    logits = perceptron(torch.from_numpy(pixels.values))
    assert (logits.argmax(dim=1).numpy() == pixels.truth).mean() > 0.95
    assert (logits[:, [0, 2]] == ABSENT).all()
    moved = pixels.values + np.float32([0, 0, 3])  # a constant feature has no weight
    assert torch.equal(perceptron(torch.from_numpy(moved)), logits)


def test_weights_of_pixels_count():
    torch.manual_seed(0)
    truth, weights = np.repeat([0, 1], [800, 100]), np.repeat([0.1, 8.2], [800, 100])
    pixels = Pixels(np.zeros((900, 1), np.float32), truth, weights)
    perceptron = Perceptron(1, [4], 2)
    fit_perceptron(perceptron, pixels, 100, seed=1)
    assert perceptron(torch.zeros(1, 1)).argmax() == 1


@pytest.mark.parametrize("network", ["mssnet-corrected", "early_fusion-baseline", "optical_only-baseline"])
@pytest.mark.parametrize("modality_dropout", [0.0, 0.5])
def test_a_network_begins_with_the_accuracy_of_its_branch(world, tmp_path, network, modality_dropout):  # noqa: F811
    run = Run.parse(f"{network}__random__R100__s1")
    train(world, tmp_path / "run", run, pixelwise={"steps": 100}, modality_dropout=modality_dropout, **STILL)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["validation"]["miou"] > 0.9


def test_training_keeps_the_branch(world, tmp_path):  # noqa: F811
    states = []
    for rate in (1e-9, 1e-2):
        train(world, tmp_path / str(rate), steps=2, validate_every=2, learning_rate=rate)
        states.append(read_weights(tmp_path / str(rate) / "weights.safetensors")[0])
    changed = {name for name in states[0] if not np.array_equal(states[0][name], states[1][name])}
    assert "decoder.output.weight" in changed
    assert not any(name.startswith("detail.") for name in changed)


def test_the_published_network_has_no_branch(world, tmp_path):  # noqa: F811
    states = []
    for steps in (1, 20):
        out = tmp_path / str(steps)
        train(world, out, Run.parse("mssnet-reference__random__R100__s1"), pixelwise={"steps": steps}, **STILL)
        states.append(read_weights(out / "weights.safetensors")[0])
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
