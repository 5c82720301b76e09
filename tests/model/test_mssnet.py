import pytest
import torch
from torch import nn

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.errors import InputError
from tmcnet.model.mssnet import MSSNet, ReferenceMSSNet, repeat_bands
from tmcnet.model.networks import build_network, stack_stems
from tmcnet.model.tmcnet import TMCNet
from tmcnet.model.weights import transfer

SMALL = ModelConfig(backbone="resnet18", width=8, aspp_channels=16, decoder_channels=16)
PUBLISHED = ModelConfig(backbone="resnet50", width=64, aspp_channels=256, decoder_channels=256)
BANDS = {"optical": 4, "sar": 2}
RGB_AND_VV = {"optical": 3, "sar": 1}
PUBLISHED_BANDS = {"optical": 3, "sar": 3}
NETWORKS = [
    ("mssnet", "reference"),
    ("mssnet", "corrected"),
    ("early_fusion", "baseline"),
    ("late_fusion", "baseline"),
    ("optical_only", "baseline"),
    ("sar_only", "baseline"),
]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("network", "variant"), NETWORKS)
def test_any_size_and_band_count_and_nothing_unused(network, variant):
    torch.manual_seed(0)
    module = build_network(network, variant, BANDS, 5, SMALL)
    images = {"optical": torch.randn(2, 4, 45, 70), "sar": torch.randn(2, 2, 45, 70)}
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)  # the bottleneck starts at zero, which would hide what lies before it
    logits = module(images)
    assert logits.shape == (2, 5, 45, 70)
    logits.pow(2).sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []


def test_reads_both_sensors():
    torch.manual_seed(0)
    images = {"optical": torch.randn(1, 3, 32, 32), "sar": torch.randn(1, 1, 32, 32)}
    reads = {}
    for network, variant in NETWORKS:
        module = build_network(network, variant, RGB_AND_VV, 2, SMALL).eval()
        with torch.no_grad():
            logits = module(images)
            reads[network] = tuple(
                bool((module({**images, name: image + 1}) != logits).any()) for name, image in images.items()
            )
    assert reads.pop("optical_only") == (True, False)
    assert reads.pop("sar_only") == (False, True)
    assert set(reads.values()) == {(True, True)}


@pytest.mark.parametrize(("network", "variant"), NETWORKS)
def test_far_pixels_matter_in_the_published_network_only(network, variant):
    """What a window shows far away must not change a place, or windows of a map would not fit together."""
    torch.manual_seed(0)
    module = build_network(network, variant, RGB_AND_VV, 2, SMALL.model_copy(update={"dilations": (1, 1, 1)})).eval()
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)
    images = {"optical": torch.randn(1, 3, 16, 700), "sar": torch.randn(1, 1, 16, 700)}
    with torch.no_grad():
        before = module(images)
        images["optical"][..., 600:], images["sar"][..., 600:] = 3, -3
        after = module(images)
        shifted = module({name: image[..., 48:] for name, image in images.items()})
    same = torch.allclose(before[..., :300], after[..., :300], atol=1e-5)
    inside = torch.allclose(after[..., 380:], shifted[..., 332:], atol=1e-5)
    assert (same, inside) == ((False, False) if variant == "reference" else (True, True))


def test_reference_has_the_published_size():
    with torch.device("meta"):
        reference = ReferenceMSSNet(PUBLISHED_BANDS, 8, PUBLISHED)
        corrected = MSSNet(PUBLISHED_BANDS, 8, PUBLISHED)
    assert count(reference) == pytest.approx(210.9e6, abs=0.05e6)
    assert count(reference.fuse_high.rectify) == pytest.approx(109.1e6, abs=0.05e6)
    assert count(reference.fuse_high.fuse) == pytest.approx(58.7e6, abs=0.05e6)
    assert count(corrected.fuse_high) < count(corrected.backbone_sar) / 4


def test_batch_norm_momentum_follows_the_variant():
    for variant, momentum in (("reference", 0.9), ("corrected", 0.1)):
        module = build_network("mssnet", variant, RGB_AND_VV, 2, SMALL)
        found = {m.momentum for m in module.modules() if isinstance(m, nn.BatchNorm2d)}
        assert found == {momentum}


def test_repeated_bands():
    image = torch.arange(2.0).reshape(1, 2, 1, 1)
    assert repeat_bands(image, 5).flatten().tolist() == [0, 1, 0, 1, 0]


def test_early_fusion_takes_both_stems():
    optical, sar = torch.randn(8, 3, 7, 7), torch.randn(8, 1, 7, 7)
    state = {"backbone_optical.stem.0.weight": optical, "backbone_sar.stem.0.weight": sar}
    module = build_network("early_fusion", "baseline", RGB_AND_VV, 2, SMALL)
    name = "backbone_optical.stem.0.weight"
    assert stack_stems(state)[name].shape == module.state_dict()[name].shape
    assert torch.equal(stack_stems(state)[name][:, 3:], sar)


@pytest.mark.parametrize(("network", "variant"), NETWORKS)
def test_pre_trained_weights_fit(network, variant):
    method = MethodConfig(variant="reference" if variant == "reference" else "corrected")
    state = TMCNet(BANDS, SMALL, method).state_dict()
    state = stack_stems(state) if network == "early_fusion" else state
    module = build_network(network, variant, BANDS, 5, SMALL)
    skipped = transfer(module, state, "all").skipped
    absent = ("backbone_optical.",) if network == "sar_only" else ("backbone_sar.",)
    without = () if network == "late_fusion" or (network, variant) == ("mssnet", "corrected") else absent
    left = [
        name for name in skipped if not name.startswith(("global_head.", "local_head.", "decoder.output.", *without))
    ]
    assert left == []


def test_unknown_network_is_named():
    with pytest.raises(InputError, match="unet"):
        build_network("unet", "baseline", RGB_AND_VV, 2, SMALL)
