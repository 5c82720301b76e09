"""The examples of CONTRIBUTING.md work as they are written."""

import re
from pathlib import Path

import numpy as np
import torch

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.model.networks import CLASSIFIERS, NETWORKS, build_network
from tmcnet.train.contrastive import METHODS

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(), re.DOTALL)
BANDS = {"optical": 4, "sar": 2}


def test_a_network_a_method_and_a_classifier_are_one_class_and_one_name(monkeypatch):
    for registry in (NETWORKS, METHODS, CLASSIFIERS):
        for name in ("pixel_perceptron", "agreement", "pixel_sharp"):
            monkeypatch.delitem(registry, name, raising=False)
            monkeypatch.setitem(registry, name, None)  # removed again after the test
            del registry[name]
    space = {}
    for block in BLOCKS:
        exec(block, space)
    images = {name: torch.randn(2, count, 16, 16) for name, count in BANDS.items()}
    network = build_network("pixel_perceptron", "baseline", BANDS, 3, ModelConfig(width=8))
    logits = network(images)
    assert logits.shape == (2, 3, 16, 16)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())

    method = METHODS["agreement"](MethodConfig())
    views = torch.randn(5, 8), torch.randn(5, 8)
    assert method.loss({"optical": (views[0], views[0])}, None, np.random.default_rng(0)) == 0
    assert method.loss({"optical": views}, None, np.random.default_rng(0)) > 0

    plain, sharp = (
        build_network(name, "baseline", BANDS, 3, ModelConfig()) for name in ("pixel_logistic", "pixel_sharp")
    )
    for one in (plain, sharp):
        one.weight.data.fill_(1)
    features = torch.randn(plain.weight.shape[1], 7)
    torch.testing.assert_close(sharp.scores(features), 2 * plain.scores(features))
