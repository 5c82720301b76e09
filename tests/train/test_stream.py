"""The order of the tiles, the schedule and the health figures."""

import math

import pytest
import torch
from torch import nn

from tmcnet.config import ModelConfig
from tmcnet.model.networks import build_network
from tmcnet.seeding import generator
from tmcnet.train import loop
from tmcnet.train.contrastive import effective_rank, health, retrieval
from tmcnet.train.loop import (
    FINAL_RATE,
    OptimiserPlan,
    build_optimiser,
    indices_of_step,
    parameter_groups,
    rate_factor,
    step_loader,
)


def test_every_item_comes_once_an_epoch():
    n, size = 12, 5
    for epoch in range(3):
        steps = [indices_of_step(n, size, 1, epoch * 2 + i) for i in range(2)]
        assert len({i for step in steps for i in step}) == 10
    assert indices_of_step(n, size, 1, 0) != indices_of_step(n, size, 1, 2)
    assert indices_of_step(n, size, 1, 0) != indices_of_step(n, size, 2, 0)


def test_items_are_shuffled_once_an_epoch(monkeypatch):
    drawn = []
    monkeypatch.setattr(loop, "generator", lambda *key: drawn.append(key) or generator(*key))
    for step in range(6):  # three in an epoch
        indices_of_step(11, 3, 5, step)
    assert drawn == [(5, "order", 0), (5, "order", 1)]


def test_too_few_items_are_strung_together():
    items = indices_of_step(3, 8, 1, 0)
    assert len(items) == 8
    assert set(items[:3]) == set(items[3:6]) == {0, 1, 2}


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_resuming_change_no_batch(workers):
    batches = list(step_loader(lambda step: torch.tensor(step * 10), 7, 2, workers))
    assert [int(b) for b in batches] == [20, 30, 40, 50, 60]


def test_schedule_rises_then_falls():
    plan = OptimiserPlan(steps=20, learning_rate=0.1, warmup_steps=4, weight_decay=0)
    rates = [rate_factor(plan)(step) * 0.1 for step in range(21)]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[12] == pytest.approx(FINAL_RATE + (0.1 - FINAL_RATE) * 0.5)
    assert rates[20] == pytest.approx(FINAL_RATE)
    short = OptimiserPlan(steps=2, learning_rate=0.1, warmup_steps=10, weight_decay=0)
    assert [rate_factor(short)(step) for step in range(2)] == [0.5, 1.0]


def test_norms_and_biases_are_not_decayed_and_encoders_have_their_rate():
    network = nn.ModuleDict({"sar": nn.Linear(2, 3), "norm": nn.BatchNorm1d(3), "head": nn.Linear(3, 1)})
    plan = OptimiserPlan(5, 0.1, 0, 0.3, encoder_rate=0.1, encoders=("sar.weight", "sar.bias"))
    groups = parameter_groups(network, plan)
    found = {(round(g["lr"], 6), g["weight_decay"]): len(g["params"]) for g in groups}
    assert found == {(0.1, 0.0): 3, (0.1, 0.3): 1, (0.01, 0.0): 1, (0.01, 0.3): 1}
    published, _ = build_optimiser(network, OptimiserPlan(5, 0.1, 0, 0.3, kind="adam"))
    assert isinstance(published, torch.optim.Adam) and not isinstance(published, torch.optim.AdamW)
    assert {g["weight_decay"] for g in published.param_groups} == {0.3}


@pytest.mark.parametrize("name", ["mssnet", "early_fusion"])
@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_only_weights_of_convolutions_and_linear_layers_are_decayed(name, variant):
    network = build_network(
        name, variant, {"optical": 3, "sar": 1}, 2, ModelConfig(width=8, aspp_channels=16, decoder_channels=16)
    )
    plan = OptimiserPlan(steps=5, learning_rate=0.1, warmup_steps=0, weight_decay=0.3)
    decayed = [p for g in parameter_groups(network, plan) if g["weight_decay"] for p in g["params"]]
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert {id(p) for p in decayed} == {id(p) for p in weights}


def test_health_tells_a_good_embedding_from_a_collapsed_one():
    places = torch.eye(8)
    good = health({"optical": (places, places), "sar": (places, places)})
    assert good["alignment"] == pytest.approx(0, abs=1e-6)
    assert good["retrieval_optical_to_sar"] == good["retrieval_sar_to_optical"] == 1
    assert good["retrieval_optical"] == good["retrieval_sar"] == 1
    for rank in ("effective_rank", "effective_rank_optical", "effective_rank_sar"):
        assert good[rank] == pytest.approx(7, abs=0.1)
    assert good["positive_similarity"] == pytest.approx(1)
    assert good["hardest_negative_similarity"] == pytest.approx(0, abs=1e-6)
    assert good["uniformity"] == pytest.approx(-4, abs=1e-3)
    same = torch.ones(8, 8)
    collapsed = health({"optical": (same, same), "sar": (same, same)})
    assert collapsed["uniformity"] == pytest.approx(0, abs=1e-3)
    assert collapsed["retrieval_optical"] == pytest.approx(1 / 8)
    assert collapsed["effective_rank_sar"] == pytest.approx(1, abs=1e-3)
    assert collapsed["positive_similarity"] == collapsed["hardest_negative_similarity"] == pytest.approx(1)
    assert all(math.isfinite(value) for value in collapsed.values())


def test_health_of_random_embeddings_is_that_of_chance():
    generator = torch.Generator().manual_seed(0)
    found = health(dict(zip(("optical", "sar"), torch.randn(2, 2, 400, 64, generator=generator), strict=True)))
    assert abs(found["positive_similarity"]) < 0.02
    assert 0.3 < found["hardest_negative_similarity"] < 0.5
    assert all(value < 0.02 for name, value in found.items() if name.startswith("retrieval"))
    assert all(value > 60 for name, value in found.items() if name.startswith("effective_rank"))


def test_health_sees_that_one_sensor_collapsed_and_that_the_other_finds_nothing_there():
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(50, 16, generator=generator)
    dull = torch.ones(50, 16)
    found = health({"optical": (places, places), "sar": (dull, dull)})
    assert found["effective_rank_optical"] > 12
    assert found["effective_rank_sar"] == pytest.approx(1, abs=1e-3)
    assert found["retrieval_optical"] == 1
    assert found["retrieval_sar_to_optical"] == found["retrieval_optical_to_sar"] == pytest.approx(1 / 50)


def test_the_two_ways_of_retrieval_between_sensors_differ():
    # Both SAR images lie nearest to their own optical one; one SAR image attracts both optical images.
    optical = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    sar = torch.tensor([[0.95, 0.3], [-0.6, 0.8]])
    found = health({"optical": (optical, optical), "sar": (sar, sar)})
    assert found["retrieval_sar_to_optical"] == 1
    assert found["retrieval_optical_to_sar"] == 0.5


def test_effective_rank_counts_directions():
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(200, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
    assert 1 < effective_rank(flat) <= 3.001
    assert retrieval(torch.eye(4), torch.eye(4).roll(1, 0)) == 0
