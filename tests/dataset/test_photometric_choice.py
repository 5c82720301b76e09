"""Which photometric changes the views get is a key of its own."""

import pytest
import torch

from tmcnet.config import PretrainConfig, SensorConfig, SensorsConfig
from tmcnet.dataset.loading import Tile
from tmcnet.dataset.views import ViewMaker

CONFIG = PretrainConfig(crop_size=48, patch_size=12, patches=2)
SENSORS = SensorsConfig(
    optical=SensorConfig(bands=["a"], kind="reflectance"),
    sar=SensorConfig(bands=["b"], kind="backscatter", scale="db"),
)
CLIP = 1.5


def makes(variant, by_sensor):
    """Both views of both sensors of tiles that are the same to both."""
    images = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tiles = [Tile(f"t{i}", {"optical": image, "sar": image}, None) for i, image in enumerate(images)]
    batch = ViewMaker(CONFIG, SENSORS, variant, CLIP, by_sensor)(tiles, 0)
    return batch.views["optical"], batch.views["sar"]


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_published_changes_are_the_same_for_both_sensors(variant):
    optical, sar = makes(variant, False)
    assert torch.equal(optical[0], sar[0])
    assert torch.equal(optical[1], sar[1])


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_changes_by_sensor_differ_in_every_view(variant):
    optical, sar = makes(variant, True)
    for one, other in zip(optical, sar, strict=True):
        assert not any(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_without_a_choice_the_variant_decides():
    for variant, by_sensor in (("reference", False), ("corrected", True)):
        for chosen, own in zip(makes(variant, by_sensor), makes(variant, None), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(chosen, own, strict=True))
