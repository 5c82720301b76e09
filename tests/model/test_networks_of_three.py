"""Networks of three and four modalities: all are looked at, and pre-trained encoders find their places."""

import pytest
import torch

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.errors import InputError
from tmcnet.model.mssnet import LocalFusion
from tmcnet.model.networks import build_network
from tmcnet.model.tmcnet import TMCNet
from tmcnet.model.weights import split_stem, stack_stems, transfer

SMALL = ModelConfig(width=8, aspp_channels=16, decoder_channels=16)
BANDS = {"optical": 3, "sar": 2, "dem": 1, "l_band": 2}
FUSING = [
    ("mssnet", "corrected"),
    ("mssnet", "reference"),
    ("early_fusion", "baseline"),
    ("late_fusion", "baseline"),
]
NETWORKS = [*FUSING, ("dem_only", "baseline"), ("l_band_only", "baseline"), ("sar_only", "baseline")]


def build(network, variant):
    torch.manual_seed(0)
    return build_network(network, variant, BANDS, 5, SMALL)


def images(seed=0, size=48):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, bands, size, size, generator=draw) for name, bands in BANDS.items()}


@torch.no_grad()
@pytest.mark.parametrize(("network", "variant"), NETWORKS)
def test_every_modality_is_looked_at_or_one_alone(network, variant):
    module, given, other = build(network, variant).eval(), images(), images(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # some parts start at zero
    before = module(given)
    assert before.shape == (2, 5, 48, 48)
    read = [name for name in BANDS if not torch.equal(module({**given, name: other[name]}), before)]
    assert read == ([network.removesuffix("_only")] if network.endswith("_only") else list(BANDS))


def test_an_unknown_modality_is_named():
    with pytest.raises(InputError, match=r"dsm_only.*dem_only, l_band_only"):
        build("dsm_only", "baseline")


def test_fusion_starts_as_the_mean_of_all_modalities():
    maps = torch.rand(3, 2, 16, 6, 6)
    fusion = LocalFusion(16, 8, ["optical", "sar", "dem"])
    torch.testing.assert_close(fusion(*maps), maps.mean(0))


@pytest.mark.parametrize(("network", "variant"), NETWORKS)
def test_encoders_of_all_modalities_are_taken_over(network, variant):
    method = MethodConfig(variant="reference" if variant == "reference" else "corrected")
    state = TMCNet(BANDS, SMALL, method).state_dict()
    module = build(network, variant)
    if network == "early_fusion":
        state = stack_stems(state, module.sources["optical"])
        stem = module.state_dict()["backbone_optical.stem.0.weight"]
        assert state["backbone_optical.stem.0.weight"].shape == stem.shape
    own = {name.split(".")[0] for name in module.state_dict() if name.startswith("backbone_")}
    skipped = transfer(module, state, "backbone").skipped
    missing = {name for name in skipped if name.split(".")[0] in own}
    # the published network has one encoder for all, of as many bands as the largest has
    assert missing == set()


def test_a_stacked_encoder_is_shared_out_and_one_alone_serves_early_fusion():
    stacked = TMCNet(BANDS, SMALL, MethodConfig(method="simclr")).state_dict()
    stem = stacked["backbone_stacked.stem.0.weight"]
    shared = split_stem(stacked, BANDS)
    assert torch.equal(shared["backbone_dem.stem.0.weight"], stem[:, 5:6])
    assert torch.equal(shared["backbone_l_band.stem.0.weight"], stem[:, 6:])
    module = build("mssnet", "corrected")
    loaded = transfer(module, shared, "backbone").loaded
    assert {name.split(".")[0] for name in loaded} == {f"backbone_{name}" for name in BANDS}
    alone = TMCNet(BANDS, SMALL, MethodConfig(modality="dem"))
    assert list(alone.sources) == ["dem"]
    assert "backbone_optical.stem.0.weight" in stack_stems(alone.state_dict(), list(BANDS))


def test_encoders_of_two_modalities_start_networks_of_three():
    state = TMCNet({"optical": 3, "sar": 2}, SMALL, MethodConfig()).state_dict()
    module = build("late_fusion", "baseline")
    loaded = transfer(module, state, "backbone").loaded
    assert {name.split(".")[0] for name in loaded} == {"backbone_optical", "backbone_sar"}
    skipped = transfer(build("early_fusion", "baseline"), stack_stems(state, list(BANDS)), "backbone").skipped
    assert "shape" in skipped["backbone_optical.stem.0.weight"]
