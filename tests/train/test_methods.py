"""Every pre-training method: its network, its loss, its health, and the networks that start from its weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tmcnet.config import MethodConfig, ModelConfig, Run
from tmcnet.errors import TrainingError
from tmcnet.model.networks import build_network
from tmcnet.model.weights import save_weights
from tmcnet.train import finetune
from tmcnet.train.contrastive import build_method, health

MODEL = ModelConfig(width=8, aspp_channels=16, decoder_channels=16)
BANDS = {"optical": 3, "sar": 2}
METHODS = [
    MethodConfig(),
    MethodConfig(method="simclr"),
    MethodConfig(method="cross_modal"),
    MethodConfig(modality="optical"),
    MethodConfig(modality="sar"),
]
NAMES = ["tuples", "simclr", "cross_modal", "optical", "sar"]
INPUTS = ["optical", "sar", "stacked"]


def views(n=4, size=48):
    generator = torch.Generator().manual_seed(0)
    images = {
        name: tuple(torch.randn(n, c, size, size, generator=generator) for _ in range(2)) for name, c in BANDS.items()
    }
    corners = [torch.randint(0, size - 12, (n, 2, 2), generator=generator) for _ in range(2)]
    return images, tuple(corners), 12


def named(embeddings, names=("optical", "sar")):
    """Views 1 and 2 of each input by its name."""
    return dict(zip(names, zip(embeddings[::2], embeddings[1::2], strict=True), strict=True))


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("config", METHODS, ids=NAMES)
def test_gradients_reach_everything_and_health_is_told(config):
    method = build_method(config)
    network = method.network(BANDS, MODEL)
    found = network(*views())
    groups = torch.arange(4).repeat_interleave(2)
    total = method.loss(found.whole, None, rng()) + method.loss(found.patches[0], groups, rng())
    total.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    figures = health(found.whole)
    assert all(np.isfinite(value) for value in figures.values())
    assert {"alignment", "uniformity", "effective_rank"} <= figures.keys()


@pytest.mark.parametrize(
    ("config", "encoders"),
    zip(METHODS, [{"optical", "sar"}, {"stacked"}, {"optical", "sar"}, {"optical"}, {"sar"}], strict=True),
    ids=NAMES,
)
def test_only_what_is_looked_at_is_built(config, encoders):
    network = build_method(config).network(BANDS, MODEL).eval()
    assert {name for name, _ in network.named_children() if name.startswith("backbone_")} == {
        f"backbone_{name}" for name in encoders
    }
    first, second = ({name: pair[view] for name, pair in views()[0].items()} for view in (0, 1))
    with torch.no_grad():
        before = network.features(first)
        reads = {name: not torch.equal(network.features({**first, name: second[name]}), before) for name in BANDS}
    assert before.shape == (4, 16 * len(encoders), 3, 3)
    assert {name for name, read in reads.items() if read} == (encoders & {"optical", "sar"} or {"optical", "sar"})


def test_cross_modal_pulls_the_sensors_of_a_place_together():
    """Its gradient makes the two sensors of a place more alike; views of one sensor are not compared."""
    method = build_method(MethodConfig(method="cross_modal", temperature=0.2))
    generator = torch.Generator().manual_seed(0)
    quartet = [torch.randn(16, 8, generator=generator).requires_grad_() for _ in range(4)]
    optimiser = torch.optim.Adam(quartet, lr=0.05)
    before = health(named(quartet))
    for _ in range(60):
        optimiser.zero_grad()
        method.loss(named(quartet), None, rng()).backward()
        optimiser.step()
    after = health(named(quartet))
    assert after["retrieval_optical_to_sar"] == 1.0 > before["retrieval_optical_to_sar"]
    assert after["retrieval_optical"] < 0.5


def test_one_sensor_and_simclr_are_ntxent_of_its_views():
    first, second = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    z = F.normalize(torch.cat([first, second]), dim=1)
    logits = (z @ z.T / 0.5).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(logits, torch.arange(12).roll(6))
    for config, name in ((MethodConfig(method="simclr"), "stacked"), (MethodConfig(modality="sar"), "sar")):
        got = build_method(config).loss({name: (first, second)}, None, rng())
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", INPUTS)
def test_health_of_one_input_speaks_of_nothing_else(name):
    first, second = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    figures = health({name: (first, second)})
    assert figures["effective_rank"] == pytest.approx(figures[f"effective_rank_{name}"])
    nearest = (F.normalize(first, dim=1) @ F.normalize(second, dim=1).T).argmax(1)
    assert figures[f"retrieval_{name}"] == pytest.approx((nearest == torch.arange(6)).float().mean())
    others = {*INPUTS, "_to_"} - {name}
    assert [figure for figure in figures if any(other in figure for other in others)] == []


def test_a_few_shifts_are_drawn_for_each_step():
    quartet = named(torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(0)))
    few = build_method(MethodConfig(variant="reference", shifts=3))
    every = build_method(MethodConfig(variant="reference"))
    same, again, other = (float(few.loss(quartet, None, np.random.default_rng(seed))) for seed in (0, 0, 1))
    assert same == again != other
    assert max(same, other) < float(every.loss(quartet, None, rng()))
    many = build_method(MethodConfig(variant="reference", shifts=50))
    assert float(many.loss(quartet, None, rng())) == pytest.approx(float(every.loss(quartet, None, rng())))


def start(tmp_path, config, network, parts="all"):
    """The networks that pre-training gave and that fine-tuning starts from, and what was taken over."""
    variant = "corrected" if network == "mssnet" else "baseline"
    trained = build_method(config).network(BANDS, MODEL)
    sensors = {"optical": {"bands": ["r", "g", "b"]}, "sar": {"bands": ["vv", "vh"]}}
    header = {"kind": "encoder", "config": {"sensors": sensors}}
    save_weights(tmp_path / "start.safetensors", trained.state_dict(), header)
    module = build_network(network, variant, BANDS, 2, MODEL)
    run = Run.parse(f"{network}-{variant}__pretrained__R100__s1")
    done = finetune._start(module, run, tmp_path / "start.safetensors", parts)
    return trained.state_dict(), module.state_dict(), done


NETWORKS = {
    "mssnet": ("optical", "sar"),
    "late_fusion": ("optical", "sar"),
    "early_fusion": ("optical",),
    "optical_only": ("optical",),
    "sar_only": ("sar",),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("config", METHODS[:3], ids=NAMES[:3])
def test_every_network_starts_with_all_its_encoders(tmp_path, config, network):
    _, state, done = start(tmp_path, config, network)
    wanted = [name for name in state if name.startswith("backbone_") and not name.endswith("num_batches_tracked")]
    assert {name.split(".")[0] for name in wanted} == {f"backbone_{sensor}" for sensor in NETWORKS[network]}
    assert set(wanted) <= set(done.loaded)
    assert any(name.startswith("aspp.") for name in done.loaded)
    assert any(name.startswith("decoder.") for name in done.loaded)
    left = {name.split(".")[0] for name in done.skipped} - {"global_head", "local_head", "decoder"}
    unused = {"backbone_sar", "backbone_optical"} - {f"backbone_{s}" for s in NETWORKS[network]}
    assert left == (set() if (config.method, network) == ("simclr", "early_fusion") else unused)


def test_a_stacked_stem_is_shared_out_by_sensor(tmp_path):
    stem = "stem.0.weight"
    trained, state, _ = start(tmp_path, METHODS[1], "mssnet")
    stacked = trained[f"backbone_stacked.{stem}"]
    assert torch.equal(state[f"backbone_optical.{stem}"], stacked[:, : BANDS["optical"]])
    assert torch.equal(state[f"backbone_sar.{stem}"], stacked[:, BANDS["optical"] :])
    deep = "deeper.2.1.body.3.weight"
    for sensor in ("optical", "sar"):
        assert torch.equal(state[f"backbone_{sensor}.{deep}"], trained[f"backbone_stacked.{deep}"])
    trained, state, _ = start(tmp_path, METHODS[1], "early_fusion")
    assert torch.equal(state[f"backbone_optical.{stem}"], trained[f"backbone_stacked.{stem}"])


@pytest.mark.parametrize(
    ("config", "sensor", "other"), [(METHODS[3], "optical", "sar"), (METHODS[4], "sar", "optical")]
)
def test_the_sensor_that_was_not_pre_trained_stays_random(tmp_path, config, sensor, other):
    _, state, done = start(tmp_path, config, "mssnet", "backbone")
    assert {name.split(".")[0] for name in done.loaded} == {f"backbone_{sensor}"}
    assert f"backbone_{other}.stem.0.weight" in state.keys() - set(done.loaded)
    trained, state, done = start(tmp_path, config, "early_fusion", "backbone")
    assert done.skipped["backbone_optical.stem.0.weight"].startswith("shape 8x")
    assert torch.equal(
        state["backbone_optical.first.0.body.0.weight"], trained[f"backbone_{sensor}.first.0.body.0.weight"]
    )
    with pytest.raises(TrainingError, match="no weights were loaded"):
        start(tmp_path, config, f"{other}_only", "backbone")
