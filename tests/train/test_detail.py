"""The fit of the full-resolution branch to single pixels, before a network is trained."""

import json

import numpy as np
import pytest

from tests.train.test_finetune import train, world  # noqa: F401 - a fixture
from tmcnet.config import Run
from tmcnet.model.weights import read_weights

STILL = {"steps": 1, "validate_every": 1, "learning_rate": 1e-9}
"""The network itself stays as it is."""


@pytest.mark.parametrize("network", ["mssnet-corrected", "early_fusion-baseline", "optical_only-baseline"])
@pytest.mark.parametrize("modality_dropout", [0.0, 0.5])
def test_a_network_begins_with_the_accuracy_of_its_branch(world, tmp_path, network, modality_dropout):  # noqa: F811
    run = Run.parse(f"{network}__random__R100__s1")
    reached = []
    for steps in (0, 100):
        out = tmp_path / str(steps)
        train(world, out, run, pixel_steps=steps, modality_dropout=modality_dropout, **STILL)
        reached.append(json.loads((out / "summary.json").read_text())["validation"]["miou"])
    assert reached[0] < 0.7
    assert reached[1] > 0.9


def test_only_the_branch_is_fitted(world, tmp_path):  # noqa: F811
    states = []
    for steps in (0, 20):
        train(world, tmp_path / str(steps), pixel_steps=steps, **STILL)
        states.append(read_weights(tmp_path / str(steps) / "weights.safetensors")[0])
    weights = [name for name in states[0] if name.endswith(("weight", "bias"))]
    changed = {name for name in weights if not np.allclose(states[0][name], states[1][name], atol=1e-7)}
    assert changed and all(name.startswith("detail.") for name in changed)


@pytest.mark.parametrize("run", ["mssnet-reference", "pixel_logistic-baseline"])
def test_networks_without_a_branch_are_trained_as_before(world, tmp_path, run):  # noqa: F811
    states = []
    for steps in (0, 20):
        out = tmp_path / str(steps)
        train(world, out, Run.parse(f"{run}__random__R100__s1"), pixel_steps=steps, **STILL)
        states.append(read_weights(out / "weights.safetensors")[0])
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
