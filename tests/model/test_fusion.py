import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tmcnet.model.fusion import FeatureFusion, FeatureRectify, LocalFusion, MultiScaleAttention

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
        pytest.skip("TMCNET_DATA is not set: the golden values lie beside that folder")
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
        ("ms_cam", MultiScaleAttention(8, ratio=4)),
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
