"""The examples of CONTRIBUTING.md work as they are written: one file and one name in the registry each."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.train.test_finetune import train
from tests.train.tiny import build_tiles
from tmcnet import registry
from tmcnet.config import MethodConfig, ModelConfig, Run, SweepConfig, expand_sweep
from tmcnet.model.networks import build_network
from tmcnet.report.names import Series
from tmcnet.train.contrastive import build_method

BLOCKS = re.findall(
    r"```python\n# (\S+)\n(.*?)```", (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(), re.S
)
BANDS = {"optical": 4, "sar": 2}


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    """The files of the examples are modules, and their names are in the registry."""
    before = [(table, dict(table)) for table in (registry.NETWORKS, registry.METHODS)]
    for path, code in BLOCKS:
        if path == "tmcnet/registry.py":
            exec(code, vars(registry))
            continue
        name = path.removesuffix(".py").replace("/", ".")
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(code, vars(module))
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)


def test_a_network_is_one_file_and_one_name():
    (run,) = expand_sweep([SweepConfig(networks=["pixel_perceptron"], fractions=[5], seeds=[1])])
    assert Series.of(run).label == "Pixel perceptron, random start"
    network = build_network(run.network, run.variant, BANDS, 3, ModelConfig(width=8))
    logits = network({name: torch.randn(2, count, 16, 16) for name, count in BANDS.items()})
    assert logits.shape == (2, 3, 16, 16)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_pretraining_method_is_one_file_and_one_name():
    method = build_method(MethodConfig(method="agreement"))
    views = torch.randn(5, 8), torch.randn(5, 8)
    assert method.loss({"optical": (views[0], views[0])}, None, np.random.default_rng(0)) == 0
    assert method.loss({"optical": views}, None, np.random.default_rng(0)) > 0


def test_a_classifier_is_one_file_and_one_name(tmp_path):
    (run,) = expand_sweep([SweepConfig(networks=["nearest_mean"], methods=["tmcnet"], fractions=[100], seeds=[1])])
    assert run == Run.parse("nearest_mean-baseline__random__R100__s1")
    assert Series.of(run).label == "Nearest mean"
    train(build_tiles(tmp_path), tmp_path / "run", run)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["validation"]["oa"] > 0.9
