import numpy as np
import pytest
import torch

from tmcnet.train.samples import Placement, draw_placement, take, take_label


@pytest.fixture
def tile():
    """A label, and an image whose every pixel says its label."""
    label = torch.from_numpy(np.random.default_rng(0).integers(0, 7, (40, 56)))
    label[:3] = 255
    return label, label[None].float()


def test_unscaled_crops_keep_every_pixel_and_stay_registered(tile):
    label, image = tile
    for turns in range(4):
        for flip in (False, True):
            placement = Placement(5, 9, 24, turns, flip)
            expected = label[5:29, 9:33]
            expected = expected.flip(1) if flip else expected
            expected = torch.rot90(expected, turns, (0, 1))
            assert torch.equal(take_label(label, placement, 24), expected)
            assert torch.allclose(take(image, placement, 24)[0], expected.float(), atol=1e-3)


def test_drawn_crops_stay_registered_whatever_the_scale():
    # large uniform fields: away from their borders image and label must agree exactly
    fields = torch.arange(4).repeat_interleave(16)
    label = fields[:, None] * 4 + fields[None]
    random = np.random.default_rng(1)
    for _ in range(60):
        placement = draw_placement(64, 64, 32, random)
        image, found = take(label[None].float(), placement, 32)[0], take_label(label, placement, 32)
        inside = (image - image.round()).abs() < 1e-4
        assert inside.float().mean() > 0.7
        assert torch.equal(image[inside].round().long(), found[inside])
        assert set(found.unique().tolist()) <= set(label.unique().tolist())


def test_outside_is_void_and_no_data(tile):
    label, image = tile
    random = np.random.default_rng(2)
    for _ in range(20):
        placement = draw_placement(40, 56, 96, random)
        found = take_label(label, placement, 96)
        assert set(found.unique().tolist()) <= {*range(7), 255}
        assert (found == 255).sum() > 96 * 96 - 1.6 * 40 * 56 - 1
        whole = take(torch.ones_like(image), placement, 96)
        assert (whole == 0).any()
        assert (found[whole[0] == 0] == 255).all()


def test_crops_lie_inside_and_reach_every_corner():
    random = np.random.default_rng(3)
    drawn = [draw_placement(64, 48, 32, random) for _ in range(600)]
    assert all(0 <= p.top <= 64 - p.side + 1e-9 and 0 <= p.left <= 48 - p.side + 1e-9 for p in drawn)
    whole = [p for p in drawn if p.side == 32]
    assert {p.top for p in whole} == set(range(33))
    assert {(p.turns, p.flip) for p in drawn} == {(t, f) for t in range(4) for f in (True, False)}
    sides = [p.side for p in drawn]
    assert min(sides) >= 32 / 1.25 - 1e-9
    assert max(sides) <= 32 / 0.8 + 1e-9
    assert len(whole) == pytest.approx(300, abs=50)
