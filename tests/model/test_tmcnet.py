"""The pre-training network: sizes, parameter counts, and that nothing idle is built."""

import pytest
import torch
from torch import nn

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.model.context import enlarge
from tmcnet.model.tmcnet import GlobalHead, TMCNet, patch_means

TINY = ModelConfig(width=8, aspp_channels=16, decoder_channels=16)
BANDS = {"optical": 4, "sar": 2}


def batch(n=3, size=64, patches=2):
    generator = torch.Generator().manual_seed(0)
    views = {
        name: tuple(torch.randn(n, c, size, size, generator=generator) for _ in range(2)) for name, c in BANDS.items()
    }
    corners = [torch.randint(0, size - 16, (n, patches, 2), generator=generator) for _ in range(2)]
    return views, tuple(corners), 16


def flat(embeddings):
    return [view for pair in embeddings.values() for view in pair]


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts():
    """docs/method.md, section 4: 140,706,784 in all, 76.7 million of them in two unused convolutions."""
    with torch.device("meta"):
        network = TMCNet(
            {"optical": 3, "sar": 3}, ModelConfig(backbone="resnet50"), MethodConfig(variant="reference")
        )
    unused = 9 * 4096 * 2048 + 2048 + 9 * 512 * 256 + 256
    assert count(network) == 140_706_784 - unused
    assert count(network.backbone_optical) == 23_508_032
    assert network.global_head.project[0].in_features == 512
    assert all(m.momentum == 0.9 for m in network.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_embeddings_and_gradients_reach_everything(variant):
    network = TMCNet(BANDS, TINY, MethodConfig(variant=variant))
    found = network(*batch())
    assert [x.shape for x in flat(found.whole)] == [(3, 64)] * 4
    assert [x.shape for x in flat(found.patches[0])] == [(6, 64)] * 4
    sum(x.square().sum() for x in (*flat(found.whole), *flat(found.patches[0]))).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize(("weight", "absent"), [(0.0, {"global_head"}), (1.0, {"decoder", "local_head"})])
def test_a_dropped_term_is_neither_built_nor_computed(weight, absent):
    network = TMCNet(BANDS, TINY, MethodConfig(lambda_global=weight))
    assert not absent & {name for name, _ in network.named_children() if getattr(network, name) is not None}
    found = network(*batch())
    assert (found.whole is None) == (weight == 0)
    assert (found.patches == []) == (weight == 1)
    used = found.whole or found.patches[0]
    sum(x.square().sum() for x in flat(used)).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_dropout_spares_the_statistics_in_corrected_only():
    torch.manual_seed(0)
    for variant, steady in (("corrected", True), ("reference", False)):
        network = TMCNet(BANDS, TINY, MethodConfig(variant=variant))
        first, second = network(*batch()), network(*batch())
        assert torch.allclose(first.whole["sar"][0], second.whole["sar"][0]) == steady
        assert not torch.allclose(first.patches[0]["sar"][0], second.patches[0]["sar"][0])


@pytest.mark.parametrize("variant", ["corrected", "reference"])
@pytest.mark.parametrize("early", [True, False])
def test_where_dropout_acts_is_a_key(variant, early):
    torch.manual_seed(0)
    network = TMCNet(BANDS, TINY, MethodConfig(variant=variant, dropout_before_statistics=early))
    shares = [m.p for m in network.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    assert shares == [0.5]
    first, second = network(*batch()), network(*batch())
    assert torch.allclose(first.whole["sar"][0], second.whole["sar"][0]) != early
    assert not torch.allclose(first.patches[0]["sar"][0], second.patches[0]["sar"][0])


@pytest.mark.parametrize(("modality", "bands"), [("optical", 4), ("sar", 2)])
def test_one_sensor_is_embedded_as_it_is_beside_the_other(modality, bands):
    """The encoder of a sensor has the same names and shapes, so that its weights fit the same networks."""
    both = TMCNet(BANDS, TINY, MethodConfig())
    alone = TMCNet(BANDS, TINY, MethodConfig(modality=modality))
    shapes = {name: t.shape for name, t in alone.state_dict().items()}
    assert shapes == {n: t.shape for n, t in both.state_dict().items() if n in shapes}
    assert alone.encoder(modality).stem[0].in_channels == bands
    alone.load_state_dict({n: t for n, t in both.state_dict().items() if n in shapes})
    alone.eval(), both.eval()
    one, two = alone(*batch()), both(*batch())
    assert list(one.whole) == list(one.patches[0]) == [modality]
    for got, expected in (
        (one.whole[modality], two.whole[modality]),
        (one.patches[0][modality], two.patches[0][modality]),
    ):
        assert [x.shape for x in got] == [x.shape for x in expected]
        assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(got, expected, strict=True))


@pytest.mark.parametrize("factor", [None, 4])
def test_patch_means_equal_enlarging_first(factor):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 14, 14, generator=generator)
    corners = torch.randint(0, 56 - 12 + 1, (3, 4, 2), generator=generator)
    corners[0, 0], corners[0, 1] = torch.tensor([0, 0]), torch.tensor([44, 44])
    large = enlarge(x, (56, 56), factor)
    expected = torch.stack(
        [
            torch.stack([large[n, :, y : y + 12, c : c + 12].mean((1, 2)) for c, y in corners[n].tolist()])
            for n in range(3)
        ]
    )
    torch.testing.assert_close(patch_means(x, corners, 12, 56, factor), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "patch"), [(64, 16), (70, 21), (64, 48), (64, 64)])
def test_decoding_the_windows_of_patches_equals_decoding_whole_maps(size, patch):
    torch.manual_seed(0)
    network = TMCNet(BANDS, TINY, MethodConfig()).eval()  # with given statistics, batch norms act on each cell alone
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean), nn.init.normal_(layer.bias)
    views, _, _ = batch(size=size)
    corners = torch.randint(0, size - patch + 1, (2, 3, 4, 2))
    corners[:, 0, 0], corners[:, 0, 1] = 0, size - patch  # at the edges of the map
    got = network(views, tuple(corners), patch).patches[0]
    for name, pair in views.items():
        for view in (0, 1):
            high, low = network.encoder(name)(pair[view])
            decoded = network.decoder(network.aspp(high), low)
            expected = network.local_head(decoded, corners[view], patch, size)
            torch.testing.assert_close(got[name][view], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("patches", "decodes_windows"), [(4, True), (8, False)])
def test_windows_that_are_larger_than_the_map_are_not_decoded(monkeypatch, patches, decodes_windows):
    network, decoded = TMCNet(BANDS, TINY, MethodConfig()).eval(), []
    windows = network.decoder.windows
    monkeypatch.setattr(network.decoder, "windows", lambda *args: decoded.append(args) or windows(*args))
    views, _, _ = batch(size=64)
    network(views, tuple(torch.randint(0, 49, (2, 3, patches, 2))), 16)
    assert bool(decoded) == decodes_windows


def test_global_head_sees_mean_and_unbiased_variance():
    head = GlobalHead(2, style=True)
    head.project = nn.Identity()
    x = torch.randn(4, 2, 5, 6)
    got = head(x)
    torch.testing.assert_close(got[:, :2], x.mean((2, 3)))
    torch.testing.assert_close(got[:, 2:], ((x - x.mean((2, 3), keepdim=True)) ** 2).sum((2, 3)) / 29)
    assert GlobalHead(2, style=False)(x).shape == (4, 64)


@pytest.mark.parametrize("scales", [[1.0, 0.5, 0.25], [0.5]])
def test_smaller_patches_are_in_the_middle_of_the_largest(scales):
    torch.manual_seed(0)
    network = TMCNet(BANDS, TINY, MethodConfig(patch_scales=scales)).eval()
    views, corners, side = batch()
    found = network(views, corners, side).patches
    assert len(found) == len(scales)
    network.patch_scales = [1.0]
    for scale, patches in zip(scales, found, strict=True):
        inner = round(side * scale)
        alone = network(views, tuple(c + (side - inner) // 2 for c in corners), inner).patches[0]
        for one, other in zip(flat(patches), flat(alone), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_a_modality_is_predicted_from_the_others_and_from_itself_only_where_it_is_hidden(hidden):
    torch.manual_seed(0)
    network = TMCNet({**BANDS, "dem": 1}, TINY, MethodConfig(reconstruction=1.0, hidden=hidden)).eval()
    views, corners, side = batch()
    views["dem"] = tuple(torch.randn(3, 1, 64, 64) for _ in range(2))
    before = network(views, corners, side).predicted
    assert {name: x[0].shape for name, x in before.items()} == {
        "optical": (3, 4, 16, 16), "sar": (3, 2, 16, 16), "dem": (3, 1, 16, 16)
    }  # fmt: skip
    changed = {**views, "sar": (views["sar"][0] + 1, views["sar"][1])}
    after = network(changed, corners, side).predicted
    moved = {name: not torch.allclose(after[name][0], before[name][0], atol=1e-6) for name in before}
    assert moved == {"optical": True, "sar": hidden > 0, "dem": True}
    assert all(torch.equal(after[name][1], before[name][1]) for name in before)


def test_reconstruction_reaches_everything_that_it_adds():
    network = TMCNet(BANDS, TINY, MethodConfig(reconstruction=1.0))
    sum(x.square().sum() for x in flat(network(*batch()).predicted)).backward()
    heads = ("global_head", "local_head", "decoder")
    idle = [name for name, p in network.named_parameters() if p.grad is None]
    assert idle and all(name.startswith(heads) for name in idle)
