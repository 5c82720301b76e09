import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.errors import InputError
from tmcnet.model.mssnet import (
    FeatureFusion,
    FeatureRectify,
    LocalFusion,
    MSSNet,
    MultiScaleAttention,
    ReferenceMSSNet,
    repeat_bands,
)
from tmcnet.model.networks import build_network
from tmcnet.model.tmcnet import TMCNet
from tmcnet.model.weights import stack_stems, transfer

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
        nn.init.ones_(norm.weight)  # the bottleneck starts at zero, which would hide all layers before it
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
            nn.init.normal_(module.decoder.output.weight)  # starts at zero
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


RENAMED = {
    "feature_rectify": {"channel_weights.mlp.": "channel_gate.", "spatial_weights.mlp.": "pixel_gate."},
    "feature_fusion": {
        "cross.channel_proj1.": "optical.project.",
        "cross.channel_proj2.": "sar.project.",
        "cross.cross_attn.kv1.": "optical.key_value.",
        "cross.cross_attn.kv2.": "sar.key_value.",
        "cross.end_proj1.": "optical.join.",
        "cross.end_proj2.": "sar.join.",
        "cross.norm1.": "optical.norm.",
        "cross.norm2.": "sar.norm.",
        "channel_emb.residual.": "merge.",
    },
    "ms_cam": {
        **{f"local_att.{i}.": f"pixel.{i}." for i in range(5)},
        **{f"global_att.{i + 1}.": f"whole.{i}." for i in range(5)},
    },
}


def golden(name):
    root = os.environ.get("TMCNET_DATA")
    if root is None:
        pytest.skip("TMCNET_DATA is not set: the golden values are beside that folder")
    path = Path(root).parent / "golden" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with np.load(path) as file:
        values = {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}
    state = {}
    for key, value in values.items():
        for theirs, ours in RENAMED[name].items():
            if key.startswith(f"weight/{theirs}"):
                state[ours + key.removeprefix(f"weight/{theirs}")] = value
    inputs = [values[f"input{i}"] for i in range(2) if f"input{i}" in values]
    outputs = [values[f"output{i}"] for i in range(2) if f"output{i}" in values]
    return state, inputs, outputs


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("feature_rectify", FeatureRectify(8)),
        ("feature_fusion", FeatureFusion(8)),
        ("ms_cam", MultiScaleAttention(8)),
    ],
)
def test_equals_the_published_module(name, module):
    state, inputs, outputs = golden(name)
    module = module.double().eval()
    module.load_state_dict(state)  # strict: every tensor of ours has its value, and none is left over
    with torch.no_grad():
        found = module(*inputs)
    for mine, theirs in zip((found,) if isinstance(found, torch.Tensor) else found, outputs, strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)


def test_attention_reads_the_other_sensor():
    torch.manual_seed(0)
    fusion = FeatureFusion(4).double()
    optical, sar = torch.randn(2, 1, 4, 3, 5, dtype=torch.float64)
    # the slow formula for one optical pixel: its query against the SAR context
    tokens_s = sar.flatten(2).transpose(1, 2)[0]
    query_s = fusion.sar.project(tokens_s).relu()[:, 4:]
    key, value = fusion.sar.key_value(query_s).split(4, dim=1)
    context = torch.zeros(4, 4, dtype=torch.float64)
    for pixel in range(15):
        context += torch.outer(key[pixel], value[pixel])
    context = (context / 2).exp() / (context / 2).exp().sum(0, keepdim=True)
    token = optical[0, :, 1, 2]
    kept, query = fusion.optical.project(token).relu().split(4)
    expected_o = fusion.optical.norm(token + fusion.optical.join(torch.cat([kept, query @ context])))
    changed = fusion(optical, sar)[0, :, 1, 2] - fusion.merge.weight[:, :4, 0, 0] @ expected_o
    # what remains is the SAR half, which must not depend on this pixel's optical token directly
    fusion.merge.weight.data[:, 4:] = 0
    assert torch.allclose(fusion(optical, sar)[0, :, 1, 2], fusion.merge.weight[:, :4, 0, 0] @ expected_o)
    assert changed.abs().max() > 1e-6


def test_local_fusion_starts_as_the_mean_and_learns():
    torch.manual_seed(0)
    fusion = LocalFusion(16, 8, ["optical", "sar"])
    optical, sar = torch.rand(2, 2, 16, 6, 6)
    assert torch.allclose(fusion(optical, sar), (optical + sar) / 2)
    fusion(optical, sar).pow(2).sum().backward()
    assert fusion.norm.weight.grad.abs().max() > 0
    torch.nn.init.ones_(fusion.norm.weight)
    fusion.zero_grad()
    fusion(optical, sar).pow(2).sum().backward()
    silent = [name for name, p in fusion.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_local_fusion_is_far_smaller_than_the_full_block():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    full = count(FeatureRectify(512)) + count(FeatureFusion(512))
    assert count(LocalFusion(512, 64, ["optical", "sar"])) < full / 20
